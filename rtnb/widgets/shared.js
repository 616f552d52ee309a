/** Helpers that several widgets use. Import only what is needed; the classes bundle this file before the widget's own. */

/**
 * Make an element and append it. Known properties are set, all others become attributes.
 * @param {?Element} parent null makes it only
 * @param {string} tag
 * @param {Record<string, any>} [props] e.g. {className, textContent, role, "aria-label"}
 * @param {...(Node|string)} children
 * @returns {any}
 */
export function add(parent, tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name in node && !name.startsWith("aria")) /** @type {any} */ (node)[name] = value;
    else node.setAttribute(name, String(value));
  }
  node.append(...children);
  parent?.append(node);
  return node;
}

/** Set a property only where it changes: writing an equal text still makes the browser lay out the page again. */
export function put(/** @type {any} */ node, /** @type {string} */ name, /** @type {any} */ value) {
  if (node[name] !== value) node[name] = value;
}

/** The same for an attribute. */
export function putAttribute(/** @type {Element} */ node, /** @type {string} */ name, /** @type {any} */ value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

/**
 * Call `fn` now and whenever one of these traits changes.
 * @param {any} model
 * @param {string[]} names
 * @param {() => void} fn
 * @returns {() => void} ends it
 */
export function watch(model, names, fn) {
  for (const name of names) model.on(`change:${name}`, fn);
  fn();
  return () => names.forEach((name) => model.off(`change:${name}`, fn));
}

/**
 * Handle keys pressed in `node` before JupyterLab does: it listens in the capture phase on the document.
 * @param {Element} node
 * @param {(event: KeyboardEvent) => boolean} handle returns true where the key is used
 * @param {AbortSignal} signal
 */
export function onKey(node, handle, signal) {
  const listener = (/** @type {KeyboardEvent} */ event) => {
    if (!(event.target instanceof Node) || !node.contains(event.target) || !handle(event)) return;
    event.preventDefault();
    event.stopPropagation();
  };
  window.addEventListener("keydown", listener, { capture: true, signal });
}

/** Keep what is typed in a field from JupyterLab's shortcuts. */
export function keepTyping(/** @type {HTMLElement} */ field) {
  field.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
}

/**
 * A button with two states, which screen readers know as pressed or not.
 * @param {Element} parent
 * @param {Record<string, any>} props
 * @param {(pressed: boolean) => void} onToggle called with the wanted state; show it by `aria-pressed`
 */
export function toggleButton(parent, props, onToggle) {
  const button = add(parent, "button", { type: "button", "aria-pressed": "false", ...props });
  button.addEventListener("click", () => onToggle(button.getAttribute("aria-pressed") !== "true"));
  return button;
}

/** A moment as text: 0:07, 1:02:30, with `digits` of a second. */
export function clock(/** @type {number} */ ms, digits = 0) {
  const s = Math.max(0, ms) / 1000;
  const rest = (s % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  return h ? `${h}:${String(m).padStart(2, "0")}:${rest}` : `${m}:${rest}`;
}

/** Save a text as a file of the user's. */
export function download(/** @type {string} */ name, /** @type {string} */ text, type = "text/plain") {
  const url = URL.createObjectURL(new Blob([text], { type }));
  add(null, "a", { href: url, download: name }).click();
  URL.revokeObjectURL(url);
}

/**
 * Prepare a canvas for drawing in CSS pixels.
 * @param {HTMLCanvasElement} canvas
 * @param {number} height
 */
export function drawing(canvas, height) {
  const [width, ratio] = [canvas.clientWidth, window.devicePixelRatio];
  const size = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  const css = getComputedStyle(canvas);
  const g = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  g.font = `11px ${css.fontFamily}`;
  const color = (/** @type {string} */ name) => {
    const value = css.getPropertyValue(`--rtnb-${name}`);
    const key = css.colorScheme + value;
    if (!colors.has(key)) {
      canvas.style.color = value; // a canvas understands no light-dark() or color-mix(): let the style sheet compute it
      colors.set(key, css.color);
      canvas.style.color = "";
    }
    return /** @type {string} */ (colors.get(key));
  };
  return { g, width, color };
}

/** @type {Map<string, string>} a few per theme */
const colors = new Map();

/** Plays clips of 16-bit samples, one at a time. Make it in a click or key handler: browsers refuse sound before one. */
export class ClipPlayer {
  constructor(/** @type {() => void} */ onChange) {
    this.onChange = onChange;
    this.context = new AudioContext();
    /** @type {?{source: AudioBufferSourceNode, start_ms: number, from_s: number}} */
    this.clip = null;
  }

  play(/** @type {Int16Array} */ pcm, start_ms = 0, rate_hz = 24000) {
    this.stop();
    if (!pcm.length) return;
    const buffer = this.context.createBuffer(1, pcm.length, rate_hz);
    buffer.copyToChannel(Float32Array.from(pcm, (value) => value / 32768), 0);
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(this.context.destination);
    source.onended = () => this.clip?.source === source && this.stop();
    source.start();
    this.clip = { source, start_ms, from_s: this.context.currentTime };
    this.onChange();
  }

  /** Where it plays, ms; null while nothing does. */
  get position_ms() {
    return this.clip && this.clip.start_ms + 1000 * (this.context.currentTime - this.clip.from_s);
  }

  stop() {
    this.clip?.source.stop();
    this.clip = null;
    this.onChange();
  }

  close() {
    this.clip?.source.stop();
    return this.context.close();
  }
}

const PIECE_BYTES = 2 ** 20;
const PIECE_TIMEOUT_MS = 60_000; // on widget messages a piece waits while a cell computes

/**
 * Send bytes to the kernel in pieces: each waits for the reply to the one before. `Upload` in _upload.py receives them.
 * @param {import("./types").Stream} stream
 * @param {string} kind kind of each piece's message
 * @param {ArrayBuffer | Blob} data
 * @param {Record<string, any>} header goes with each piece, e.g. {name}
 * @param {{ onProgress?: (sent: number, size: number) => void, signal?: AbortSignal }} [options] `signal` cancels it
 * @returns {Promise<any>} the kernel's reply to the last piece; rejects with its error, or with the signal's reason
 */
export async function upload(stream, kind, data, header, { onProgress, signal } = {}) {
  const blob = data instanceof Blob ? data : new Blob([data]);
  const [{ size }, id] = [blob, crypto.getRandomValues(new Uint32Array(2)).join("-")];
  try {
    for (let at = 0; ; ) {
      const piece = await blob.slice(at, at + PIECE_BYTES).arrayBuffer();
      signal?.throwIfAborted();
      const options = { buffers: [piece], timeout_ms: PIECE_TIMEOUT_MS, signal };
      const reply = await stream.request(kind, { ...header, upload: { id, at, size } }, options);
      at += piece.byteLength;
      onProgress?.(at, size);
      if (at >= size) return reply;
    }
  } catch (error) {
    stream.send(kind, { ...header, upload: { id, cancel: true } });
    throw error;
  }
}

/**
 * Draw a time axis from `left` to `right`: a line and a label at round times, 70 px or more apart.
 * @param {CanvasRenderingContext2D} g
 * @param {{start_ms: number, span_ms: number}} view what the width shows
 * @param {{left?: number, right: number, labelsTo?: number, top?: number, height: number, line: string, text: string}} place
 *   in px; the labels stand at `top` and end before `labelsTo`, the lines below them end at `height`; two colors
 */
export function axis(g, { start_ms, span_ms }, { left = 0, right, labelsTo = right, top = 0, height, line, text }) {
  const px = (right - left) / span_ms;
  const steps = [10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 3e4, 6e4, 12e4, 3e5, 6e5, 12e5];
  const step = steps.find((ms) => ms * px >= 70) ?? 36e5;
  const digits = step < 100 ? 2 : step < 1000 ? 1 : 0;
  for (let ms = Math.ceil(start_ms / step) * step; ms <= start_ms + span_ms; ms += step) {
    const x = left + (ms - start_ms) * px;
    g.fillStyle = line;
    g.fillRect(x, top + 16, 1, height - top - 16);
    g.fillStyle = text;
    if (x + 50 < labelsTo) g.fillText(ms < 60000 ? `${(ms / 1000).toFixed(digits)} s` : clock(ms, digits), x + 3, top + 12);
  }
}

/** Decode an audio file of any format that the browser reads: 16-bit samples at 24 kHz, all channels mixed. */
export async function decodeFile(/** @type {Blob} */ file) {
  const context = new OfflineAudioContext(1, 1, 24000); // decoding resamples to its rate
  const decoded = await context.decodeAudioData(await file.arrayBuffer());
  const channels = Array.from({ length: decoded.numberOfChannels }, (_, i) => decoded.getChannelData(i));
  return Int16Array.from({ length: decoded.length }, (_, i) => {
    const sum = channels.reduce((all, channel) => all + channel[i], 0);
    return Math.max(-32768, Math.min(32767, Math.round((sum / channels.length) * 32768)));
  });
}
