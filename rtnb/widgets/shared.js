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
  return { g, width, color: (/** @type {string} */ name) => css.getPropertyValue(`--rtnb-${name}`) };
}

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

/**
 * Name the sliders in the box that holds `el`, also those that come later: ipywidgets shows their label, but leaves the
 * handle without a name for screen readers.
 * @param {HTMLElement} el
 * @param {AbortSignal} signal ends it
 */
export function nameSliders(el, signal) {
  const root = el.isConnected ? el.parentElement : null;
  if (!root) {
    if (!signal.aborted) requestAnimationFrame(() => nameSliders(el, signal));
    return;
  }
  const name = () => {
    for (const slider of root.querySelectorAll(".widget-slider")) {
      const handle = slider.querySelector("[role=slider]");
      if (handle) putAttribute(handle, "aria-label", slider.querySelector(".widget-label")?.textContent);
    }
  };
  const observer = new MutationObserver(name);
  observer.observe(root, { childList: true, subtree: true });
  signal.addEventListener("abort", () => observer.disconnect());
  name();
}
