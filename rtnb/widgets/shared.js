/** Helpers that several widgets use. Import only what is needed; the classes bundle this file before the widget's own. */

/**
 * Make an element and append it; what is typed in a field stays there. Known properties are set, all others become attributes.
 * @param {?Element} parent null makes it only
 * @param {string} tag
 * @param {Record<string, any>} [props] e.g. {className, textContent, role, "aria-label"}
 * @param {...(Node|string)} children
 * @returns {any}
 */
export function add(parent, tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) setOn(node, name, value);
  if (tag === "input" || tag === "textarea") node.addEventListener("keydown", keepTyping);
  node.append(...children);
  parent?.append(node);
  return node;
}

/**
 * Set properties, and attributes, where they change: writing an equal text still makes the browser lay out the page again.
 * @param {any} node
 * @param {Record<string, any>} values as the `props` of `add`
 */
export function put(node, values) {
  for (const [name, value] of Object.entries(values)) {
    const before = name in node ? node[name] : node.getAttribute(name);
    if (before !== (name in node ? value : String(value))) setOn(node, name, value);
  }
}

function setOn(/** @type {any} */ node, /** @type {string} */ name, /** @type {any} */ value) {
  if (name in node) node[name] = value;
  else node.setAttribute(name, value);
}

/** Set traits and send them to the kernel. */
export function save(/** @type {any} */ model, /** @type {Record<string, any>} */ traits) {
  for (const [name, value] of Object.entries(traits)) model.set(name, value);
  model.save_changes();
}

/**
 * Call `fn` now and whenever one of these traits changes.
 * @param {any} model
 * @param {string[]} names
 * @param {() => void} fn
 * @param {AbortSignal} signal ends it
 */
export function watch(model, names, fn, signal) {
  for (const name of names) model.on(`change:${name}`, fn);
  signal.addEventListener("abort", () => names.forEach((name) => model.off(`change:${name}`, fn)));
  fn();
}

/**
 * Make the module of a widget whose views use the page's channel.
 * @template {object} State
 * @param {(props: import("./types").ViewProps<State>) => void} render is not called where the view was removed meanwhile
 */
export const onChannel = (render) => ({
  async render(/** @type {import("./types").RenderProps<any>} */ props) {
    const { exports: channel } = await props.host.getWidget(props.model.get("channel"));
    if (!props.signal.aborted) render({ ...props, channel });
  },
});

/**
 * Make the module of a widget whose views on a page share one object, from the first view to the last.
 * @template {object} State
 * @template Shared
 * @param {(props: import("./types").SharedProps<State>) => Shared} make
 * @param {(props: import("./types").ViewProps<State>, shared: Shared) => () => void} render returns the function that draws the view
 */
export const shareViews = (make, render) => () => {
  /** @type {Set<() => void>} */
  const views = new Set();
  const draw = () => views.forEach((drawView) => drawView());
  /** @type {any} */
  let model = null; // of the widget: that of a view forgets its listeners with the view
  let ended = new AbortController();
  /** @type {Shared} */
  let shared;
  const { render: renderView } = onChannel((/** @type {import("./types").ViewProps<State>} */ props) => {
    if (!views.size) {
      ended = new AbortController();
      shared = make({ model, channel: props.channel, signal: ended.signal, draw });
    }
    const drawView = render(props, shared);
    views.add(drawView);
    drawView();
    props.signal.addEventListener("abort", () => {
      views.delete(drawView);
      if (!views.size) ended.abort();
    });
  });
  return { initialize: (/** @type {{model: any}} */ props) => void (model = props.model), render: renderView };
};

/**
 * Handle keys pressed in `node`, where JupyterLab's shortcuts then do nothing.
 * @param {HTMLElement} node
 * @param {(event: KeyboardEvent) => boolean} handle returns true where the key is used
 * @param {AbortSignal} signal
 */
export function onKey(node, handle, signal) {
  node.setAttribute("data-lm-suppress-shortcuts", "true");
  node.addEventListener("keydown", (event) => handle(event) && event.preventDefault(), { signal });
}

/** Keep a key of a field from JupyterLab's shortcuts, but for those like Ctrl+S. */
function keepTyping(/** @type {KeyboardEvent} */ event) {
  if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
}

/** @type {(parent: ?Element, textContent: string, onclick: (event: any) => void, props?: Record<string, any>) => any} */
export function button(parent, textContent, onclick, props = {}) {
  return add(parent, "button", { type: "button", textContent, onclick, ...props });
}

/**
 * A button with two states, which screen readers know as pressed or not.
 * @param {Element} parent
 * @param {string} text
 * @param {(pressed: boolean) => void} onToggle called with the wanted state; show it by `aria-pressed`
 * @param {Record<string, any>} [props]
 */
export function toggleButton(parent, text, onToggle, props = {}) {
  const onClick = (/** @type {any} */ { currentTarget }) => onToggle(currentTarget.getAttribute("aria-pressed") !== "true");
  return button(parent, text, onClick, { "aria-pressed": false, ...props });
}

/** A moment as text: 0:07, 1:02:30, with `digits` of a second. */
export function clock(/** @type {number} */ ms, digits = 0) {
  const s = Number((Math.max(0, ms) / 1000).toFixed(digits)); // rounded first: 59.9 s are 1:00, not 0:60
  const rest = (s % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  return h ? `${h}:${String(m).padStart(2, "0")}:${rest}` : `${m}:${rest}`;
}

/** Samples of a message, without a copy. */
export const int16 = (/** @type {DataView} */ data) => new Int16Array(data.buffer, data.byteOffset, data.byteLength / 2);

/** Make a buffer to play of 16-bit samples. */
export function makeBuffer(/** @type {BaseAudioContext} */ context, /** @type {Int16Array} */ pcm) {
  const buffer = context.createBuffer(1, Math.max(1, pcm.length), 24000);
  buffer.copyToChannel(Float32Array.from(pcm, (value) => value / 32768), 0);
  return buffer;
}

/** Load an audio worklet from its text; a page whose security policy forbids that rejects. */
export async function loadWorklet(/** @type {BaseAudioContext} */ context, /** @type {string} */ text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  await context.audioWorklet.addModule(url).finally(() => URL.revokeObjectURL(url));
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
  context = new AudioContext();
  /** @type {?{source: AudioBufferSourceNode, start_ms: number, from_s: number}} */
  clip = null;
  id = ""; // of what was played last by `toggle`

  constructor(/** @type {AbortSignal} */ signal, /** @type {() => void} */ onChange = () => {}) {
    this.onChange = onChange;
    signal.addEventListener("abort", () => this.context.close());
  }

  play(/** @type {Int16Array} */ pcm, start_ms = 0) {
    this.stop();
    if (!pcm.length) return;
    const source = new AudioBufferSourceNode(this.context, { buffer: makeBuffer(this.context, pcm) });
    source.connect(this.context.destination);
    source.onended = () => this.clip?.source === source && this.stop();
    source.start();
    this.clip = { source, start_ms, from_s: this.context.currentTime };
    this.onChange();
  }

  /**
   * Play what a request brings; stop where that plays already.
   * @param {string} id
   * @param {() => Promise<{buffers: DataView[]}>} request
   */
  async toggle(id, request) {
    const isAgain = this.clip && this.id === id;
    this.stop();
    if (isAgain) return;
    this.id = id;
    const { buffers: [pcm] } = await request();
    this.play(int16(pcm));
  }

  /** Where it plays, ms; null while nothing does. */
  get position_ms() { return this.clip && this.clip.start_ms + 1000 * (this.context.currentTime - this.clip.from_s); }

  stop() {
    this.clip?.source.stop();
    this.clip = null;
    this.onChange();
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

/**
 * Make a button that sends an audio file, which the kernel decodes. A click meanwhile cancels it.
 * @param {Element} parent
 * @param {import("./types").Stream} stream
 * @param {string} kind
 * @param {AbortSignal} signal cancels it, too
 * @param {(text: string, failed?: boolean) => void} onStatus gets the progress; at the end why it was not
 *   sent (or an empty text), and whether that is a failure
 */
export function fileButton(parent, stream, kind, signal, onStatus) {
  /** @type {?AbortController} */
  let sending = null;
  const input = add(parent, "input", { type: "file", accept: ".wav,.flac,.ogg,.oga,.opus,.mp3", hidden: true, "aria-label": "Audio file" });
  const send = async (/** @type {File} */ file, /** @type {AbortSignal} */ cancelled) => {
    onStatus(`Sending ${file.name}…`);
    const onProgress = (/** @type {number} */ sent, /** @type {number} */ size) =>
      onStatus(`Sending ${file.name}: ${Math.floor((100 * sent) / size)} %`);
    await upload(stream, kind, file, { name: file.name }, { onProgress, signal: cancelled });
  };
  input.onchange = async () => {
    const [file] = input.files;
    input.value = "";
    if (!file || sending) return;
    const { signal: cancelled } = (sending = new AbortController());
    const reason = await send(file, cancelled).then(() => "", (error) => (cancelled.aborted ? "cancelled" : error.message));
    sending = null;
    onStatus(reason && `${file.name} was not sent: ${reason}.`, Boolean(reason) && !cancelled.aborted);
  };
  signal.addEventListener("abort", () => sending?.abort());
  const choose = button(parent, "", () => (sending ? sending.abort() : input.click()));
  return { choose, isSending: () => sending !== null };
}

/** @typedef {{g: CanvasRenderingContext2D, width: number, color: (name: string) => string}} Drawing */

/**
 * Canvas over time, which is painted at most once per animation frame, also when its size changes. Dragging moves it, a click
 * picks a moment, and the keyboard reaches it.
 */
export class TimeCanvas {
  frame = 0;
  height = 0;
  start_ms = 0;
  span_ms = 30000;
  left = 0; // px before the axis
  follow = false; // whether it shows the newest moment; dragging ends that
  /** @type {?{x: number, start_ms: number, isMoved: boolean}} */
  drag = null;

  /**
   * @param {Element} parent
   * @param {number} height CSS pixels
   * @param {string} label name, for screen readers
   * @param {AbortSignal} signal ends it
   * @param {Record<string, any>} props of the element
   */
  constructor(parent, height, label, signal, props = { role: "application" }) {
    /** @type {HTMLCanvasElement} */
    this.canvas = add(parent, "canvas", { tabIndex: 0, "aria-label": label, ...props });
    this.setHeight(height);
    const sizes = new ResizeObserver(() => this.draw());
    sizes.observe(this.canvas);
    signal.addEventListener("abort", () => {
      sizes.disconnect();
      cancelAnimationFrame(this.frame);
      this.frame = -1; // nothing is painted any more
    });
    onKey(this.canvas, (event) => !event.ctrlKey && !event.metaKey && !event.altKey && this.onPress(event.key), signal);
    this.canvas.onpointerdown = (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.drag = { x: event.offsetX, start_ms: this.start_ms, isMoved: false };
    };
    this.canvas.onpointermove = ({ offsetX }) => {
      const by_px = this.drag ? offsetX - this.drag.x : 0;
      if (this.drag && (this.drag.isMoved ||= Math.abs(by_px) > 3)) {
        this.follow = false;
        this.look(this.drag.start_ms - by_px * this.ms_per_px);
      }
      this.hover(this.timeAt(offsetX));
    };
    this.canvas.onpointerup = ({ offsetX }) => {
      if (this.drag?.isMoved === false) this.pick(this.timeAt(offsetX));
      this.drag = null;
    };
  }

  setHeight(/** @type {number} */ height) {
    this.height = height;
    this.canvas.style.height = `${height}px`;
    this.draw();
  }

  draw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (this.canvas.clientWidth) this.paint(drawing(this.canvas, this.height));
    });
  }

  /** Draw everything. @type {(drawing: Drawing) => void} */
  paint() {}

  /** Handle a key; true where it is used. */
  onPress(/** @type {string} */ key) {
    const [now_ms, step_ms, End] = [this.moment_ms, this.span_ms / 100, this.longest_ms];
    /** @type {Record<string, ?number>} */
    const moments = { ArrowLeft: now_ms - step_ms, ArrowRight: now_ms + step_ms, PageDown: now_ms - 10 * step_ms,
      PageUp: now_ms + 10 * step_ms, Home: 0, End, Escape: null };
    if (key in moments) this.go(moments[key]);
    else if (key === "Enter" || key === " ") this.enter(now_ms);
    else if (key === "+" || key === "-") this.zoom(key === "+" ? 0.5 : 2, now_ms);
    else return false;
    return true;
  }

  /** Moment from which the keys move on. */
  get moment_ms() { return this.start_ms; }

  get ms_per_px() { return this.span_ms / Math.max(1, this.canvas.clientWidth - this.left); }

  /** Longest span that can be shown. */
  get longest_ms() { return 60000; }

  timeAt(/** @type {number} */ x) { return this.start_ms + (x - this.left) * this.ms_per_px; }

  /** Show another part. */
  look(/** @type {number} */ start_ms, span_ms = this.span_ms) {
    this.span_ms = Math.min(this.longest_ms, span_ms);
    this.start_ms = Math.min(this.longest_ms - this.span_ms, Math.max(0, start_ms));
    this.draw();
  }

  /** Zoom around a moment that stays in its place. */
  zoom(/** @type {number} */ factor, at_ms = this.start_ms + this.span_ms / 2) {
    const span_ms = Math.min(this.longest_ms, Math.max(500, this.span_ms * factor));
    this.look(at_ms - ((at_ms - this.start_ms) * span_ms) / this.span_ms, span_ms);
  }

  /** Move to a moment, or to none, by key. @type {(ms: ?number) => void} */
  go() {}

  /** Act at a moment. @type {(ms: number) => void} */
  enter() {}

  /** @type {(ms: number) => void} */
  hover() {}

  /** @type {(ms: number) => void} */
  pick() {}
}

/**
 * Make a level meter in decibels. @returns {(peak: number) => void} sets it; 1 is full scale
 * @param {Element} parent
 * @param {string} name for screen readers
 */
export function levelMeter(parent, name) {
  const meter = add(parent, "meter", { min: -60, max: 0, value: -60, "aria-label": name });
  return (peak) => {
    const db = Math.max(-60, Math.round(20 * Math.log10(peak)));
    put(meter, { value: db, "aria-valuetext": db > -60 ? `${db} dB` : "silent" });
  };
}
