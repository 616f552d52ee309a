/**
 * Player of a trace: both waveforms, turn detection, turns and events on one axis; a click plays from there.
 *
 * The same module is a widget in a cell, which asks the kernel for sound, and the script of a page that holds all of it.
 * Texts of the service are shown with textContent only.
 *
 * @typedef {[role: string, start_ms: number, stop_ms: number, text: string, status: string]} Turn
 * @typedef {[t_ms: number, sent: boolean, type: string, text: string]} EventRow
 * @typedef {{severity: string, t_ms: number, text: string, next_step: string}} Finding
 * @typedef {object} Data
 * @property {string} title
 * @property {number} duration_ms
 * @property {number} bin_ms
 * @property {{name: string, missing: string}[]} lanes
 * @property {[number, number][]} speech what turn detection found, ms
 * @property {Turn[]} turns
 * @property {EventRow[]} events
 * @property {string} note
 * @property {number} clip_ms length of one clip
 *
 * Parts come when they are needed, by name: "findings", "bins/0" (lane), "clip/0/12" (lane, number; FLAC); null: there is
 * none.
 * @typedef {(name: string) => Promise<?Uint8Array>} Fetch
 */

const RULER = 18, LANE = 64, BAR = 8, EVENTS = 16;
const HEIGHT = RULER + 2 * (LANE + BAR) + EVENTS;
const AHEAD_MS = 6000; // sound that is prepared; chosen
const MOST_ROWS = 200; // events that the list shows; chosen

/** Make an element with properties or attributes, and append it. @returns {any} */
function add(/** @type {?Element} */ parent, /** @type {string} */ tag, /** @type {Record<string, any>} */ props = {}) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name in node && !name.startsWith("aria")) /** @type {any} */ (node)[name] = value;
    else node.setAttribute(name, String(value));
  }
  parent?.append(node);
  return node;
}

/** A moment as text: 0:07.5 or 1:02:30.0. */
function clock(/** @type {number} */ ms) {
  const tenths = Math.round(Math.max(0, ms) / 100);
  const [h, m, s] = [Math.floor(tenths / 36000), Math.floor(tenths / 600) % 60, ((tenths % 600) / 10).toFixed(1).padStart(4, "0")];
  return h ? `${h}:${String(m).padStart(2, "0")}:${s}` : `${m}:${s}`;
}

function bytes(/** @type {string} */ base64) {
  return Uint8Array.from(atob(base64), (sign) => sign.charCodeAt(0));
}

/** Plays the clips of both lanes, one after the other. */
class Sound {
  constructor(/** @type {Data} */ data, /** @type {Fetch} */ fetchPart, /** @type {() => void} */ onChange) {
    this.data = data;
    this.fetchPart = fetchPart;
    this.onChange = onChange;
    /** @type {AudioContext | undefined} */
    this.context = undefined;
    /** @type {GainNode[]} */
    this.gains = [];
    /** @type {Set<AudioBufferSourceNode>} */
    this.sources = new Set();
    this.muted = [false, false];
    this.run = 0; // counts plays: what an earlier one still awaits is dropped
    this.playing = false;
    this.from_ms = 0;
    this.at_s = 0;
  }

  get position_ms() {
    const passed_s = this.playing && this.context ? Math.max(0, this.context.currentTime - this.at_s) : 0;
    return Math.min(this.from_ms + 1000 * passed_s, this.data.duration_ms);
  }

  mute(/** @type {number} */ lane, /** @type {boolean} */ muted) {
    this.muted[lane] = muted;
    if (this.gains[lane]) this.gains[lane].gain.value = muted ? 0 : 1;
  }

  stop() {
    this.from_ms = this.position_ms;
    this.playing = false;
    this.run += 1;
    for (const source of this.sources) source.stop();
    this.sources.clear();
    this.onChange();
  }

  /** Call it in a click or key handler: browsers refuse sound before one. */
  async play(/** @type {number} */ from_ms) {
    this.stop();
    const run = this.run;
    const context = (this.context ??= new AudioContext());
    if (!this.gains.length) {
      this.gains = this.muted.map((muted) => new GainNode(context, { gain: muted ? 0 : 1 }));
      for (const gain of this.gains) gain.connect(context.destination);
    }
    this.from_ms = from_ms;
    const first = Math.floor(from_ms / this.data.clip_ms);
    let clips = await this.fetch(context, first);
    await context.resume();
    if (run !== this.run) return;
    this.at_s = context.currentTime + 0.05;
    this.playing = true;
    this.onChange();
    for (let index = first; run === this.run; clips = await this.fetch(context, index)) {
      this.schedule(context, index * this.data.clip_ms, clips);
      index += 1;
      while (run === this.run && index * this.data.clip_ms > this.position_ms + AHEAD_MS) await new Promise((go) => setTimeout(go, 200));
      if (index * this.data.clip_ms >= this.data.duration_ms) break;
    }
    while (run === this.run && this.position_ms < this.data.duration_ms) await new Promise((go) => setTimeout(go, 200));
    if (run === this.run) this.stop();
  }

  /** Fetch a clip of each lane; null where there is no sound. */
  fetch(/** @type {AudioContext} */ context, /** @type {number} */ index) {
    return Promise.all(this.data.lanes.map(async (_, lane) => {
      const clip = await this.fetchPart(`clip/${lane}/${index}`);
      return clip?.length ? context.decodeAudioData(clip.slice().buffer) : null;
    }));
  }

  schedule(/** @type {AudioContext} */ context, /** @type {number} */ start_ms, /** @type {(?AudioBuffer)[]} */ clips) {
    clips.forEach((buffer, lane) => {
      if (!buffer) return;
      const source = new AudioBufferSourceNode(context, { buffer });
      source.connect(this.gains[lane]);
      const when_s = this.at_s + (start_ms - this.from_ms) / 1000;
      const late_s = Math.max(0, context.currentTime - when_s);
      if (late_s < buffer.duration) source.start(Math.max(when_s, context.currentTime), late_s);
      this.sources.add(source);
      source.onended = () => this.sources.delete(source);
    });
  }
}

/** Draws the axis; `view` is the part that is shown. */
class Axis {
  constructor(/** @type {HTMLCanvasElement} */ canvas, /** @type {Data} */ data) {
    this.canvas = canvas;
    this.data = data;
    this.bins = data.lanes.map(() => new Int8Array());
    /** @type {Finding[]} */
    this.findings = [];
    this.view = { start_ms: 0, span_ms: Math.max(1000, data.duration_ms) };
  }

  x(/** @type {number} */ ms) {
    return ((ms - this.view.start_ms) / this.view.span_ms) * this.canvas.clientWidth;
  }

  ms(/** @type {number} */ x) {
    return this.view.start_ms + (x / this.canvas.clientWidth) * this.view.span_ms;
  }

  show(/** @type {number} */ start_ms, /** @type {number} */ span_ms) {
    const whole = Math.max(1000, this.data.duration_ms);
    this.view.span_ms = Math.min(whole, Math.max(500, span_ms));
    this.view.start_ms = Math.min(Math.max(0, start_ms), whole - this.view.span_ms);
    this.draw();
  }

  draw() {
    const { canvas, data, view } = this;
    const [width, ratio, css] = [canvas.clientWidth, window.devicePixelRatio, getComputedStyle(canvas)];
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(HEIGHT * ratio)];
    const g = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const color = (/** @type {string} */ name) => {
      canvas.style.color = `var(--${name})`; // a canvas understands no light-dark(): let the style sheet compute it
      return css.color;
    };
    g.scale(ratio, ratio);
    g.font = `11px ${css.fontFamily}`;
    this.ruler(g, width, color);
    data.lanes.forEach((lane, k) => {
      const top = RULER + k * (LANE + BAR);
      this.waveform(g, k, top, color(`lane${k}`));
      g.fillStyle = color("muted");
      g.fillText(lane.missing ? `${lane.name}: ${lane.missing}` : lane.name, 4, top + 11);
    });
    const bars = (/** @type {number[][]} */ spans, /** @type {number} */ top) => {
      for (const [start, stop] of spans.filter(([a, b]) => b > view.start_ms && a < view.start_ms + view.span_ms)) {
        g.fillRect(this.x(start), top, Math.max(1, this.x(stop) - this.x(start)), BAR - 2);
      }
    };
    g.fillStyle = color("speech");
    bars(data.speech, RULER + LANE);
    g.fillStyle = color("lane1");
    bars(data.turns.filter(([role]) => role === "assistant").map(([, start, stop]) => [start, stop]), RULER + 2 * LANE + BAR);
    const [top, error, muted] = [HEIGHT - EVENTS, color("error"), color("muted")];
    for (const [t_ms, sent, type] of data.events) {
      g.fillStyle = type === "error" ? error : muted;
      g.fillRect(this.x(t_ms), sent ? top : top + EVENTS / 2, 1, EVENTS / 2 - 1);
    }
    g.fillStyle = error;
    for (const one of this.findings) if (one.severity !== "note") g.fillRect(this.x(one.t_ms) - 2, top, 4, EVENTS - 1);
  }

  ruler(/** @type {CanvasRenderingContext2D} */ g, /** @type {number} */ width, /** @type {(name: string) => string} */ color) {
    const steps = [100, 500, 1000, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000];
    const step = steps.find((one) => (one / this.view.span_ms) * width > 70) ?? 7200000;
    for (let t = Math.ceil(this.view.start_ms / step) * step; t < this.view.start_ms + this.view.span_ms; t += step) {
      g.fillStyle = color("line");
      g.fillRect(Math.round(this.x(t)), 0, 1, HEIGHT);
      g.fillStyle = color("muted");
      g.fillText(clock(t), Math.round(this.x(t)) + 3, 11);
    }
  }

  waveform(/** @type {CanvasRenderingContext2D} */ g, /** @type {number} */ k, /** @type {number} */ top, /** @type {string} */ fill) {
    const [bins, bin_ms, middle] = [this.bins[k], this.data.bin_ms, top + LANE / 2];
    g.fillStyle = fill;
    for (let x = 0; x < this.canvas.clientWidth; x += 1) {
      const first = Math.max(0, Math.floor(this.ms(x) / bin_ms));
      const last = Math.min(bins.length / 2, Math.max(first + 1, Math.floor(this.ms(x + 1) / bin_ms)));
      let [low, high] = [0, 0];
      for (let bin = first; bin < last; bin += 1) [low, high] = [Math.min(low, bins[2 * bin]), Math.max(high, bins[2 * bin + 1])];
      if (high > low) g.fillRect(x, middle - (high / 128) * (LANE / 2), 1, Math.max(1, ((high - low) / 128) * (LANE / 2)));
    }
  }
}

/** The controls above the axis. */
function controls(
  /** @type {Element} */ root, /** @type {Data} */ data, /** @type {Sound} */ sound, /** @type {(factor: number) => void} */ zoom,
) {
  const bar = add(root, "div", { className: "rtnb-bar" });
  const button = add(bar, "button", { type: "button", textContent: "Play" });
  const time = add(bar, "output", { textContent: clock(0) });
  add(bar, "span", { textContent: `of ${clock(data.duration_ms)}` });
  data.lanes.forEach((lane, k) => {
    const label = add(bar, "label");
    const box = add(label, "input", { type: "checkbox", checked: !lane.missing, disabled: Boolean(lane.missing) });
    label.append(` ${lane.name}`);
    box.onchange = () => sound.mute(k, !box.checked);
  });
  for (const [text, name, factor] of /** @type {[string, string, number][]} */ ([["+", "Zoom in", 0.5], ["−", "Zoom out", 2]])) {
    add(bar, "button", { type: "button", textContent: text, "aria-label": name }).onclick = () => zoom(factor);
  }
  return { button, time };
}

/** Make the lists below the axis; returns what fills those of findings and of the events in view. */
function lists(/** @type {Element} */ root, /** @type {Data} */ data, /** @type {(ms: number) => void} */ hear) {
  const panes = add(root, "div", { className: "rtnb-panes" });
  const pane = (/** @type {string} */ name) => {
    const section = add(panes, "section", { "aria-label": name });
    add(section, "h3", { textContent: name });
    return section;
  };
  const row = (/** @type {Element} */ parent, /** @type {number} */ t_ms, /** @type {string[]} */ texts, className = "") => {
    const node = add(parent, "button", { type: "button", className });
    for (const text of [clock(t_ms), ...texts]) add(node, "span", { textContent: text });
    node.onclick = () => hear(t_ms);
  };
  const transcript = pane("Transcript");
  for (const [role, start_ms, , text, status] of data.turns) {
    row(transcript, start_ms, [role, text || "(no text)", status === "complete" ? "" : status], role);
  }
  const found = pane("Findings");
  const showFindings = (/** @type {Finding[]} */ findings) => {
    for (const one of findings) row(found, one.t_ms, [one.severity, `${one.text} ${one.next_step}`], one.severity);
    if (!findings.length) add(found, "p", { textContent: "none" });
  };
  const events = pane("Events in view");
  const filter = add(events, "input", { type: "search", placeholder: "Filter by type or text", "aria-label": "Filter events" });
  const list = add(events, "div");
  /** @type {[number, number]} */
  let part = [0, Infinity];
  const fill = () => {
    const [start, stop] = part;
    const fits = data.events.filter(([t_ms, , type, text]) => t_ms >= start && t_ms <= stop && `${type} ${text}`.includes(filter.value));
    list.replaceChildren();
    for (const [t_ms, sent, type, text] of fits.slice(0, MOST_ROWS)) row(list, t_ms, [sent ? "→" : "←", type, text]);
    if (fits.length > MOST_ROWS) add(list, "p", { textContent: `${fits.length - MOST_ROWS} more: zoom in or filter` });
  };
  filter.oninput = fill;
  filter.onkeydown = (/** @type {Event} */ event) => event.stopPropagation();
  const showEvents = (/** @type {number} */ start, /** @type {number} */ stop) => {
    part = [start, stop];
    fill();
  };
  return { showEvents, showFindings };
}

/** Move and zoom the axis by mouse and keys; a click plays. */
function steer(
  /** @type {HTMLCanvasElement} */ canvas, /** @type {Axis} */ axis, /** @type {Sound} */ sound,
  /** @type {(ms: number) => void} */ hear, /** @type {(factor: number, at?: number) => void} */ zoom,
) {
  /** @type {?{x: number, start: number, moved: boolean}} */
  let drag = null;
  canvas.onpointerdown = (event) => {
    drag = { x: event.offsetX, start: axis.view.start_ms, moved: false };
    canvas.setPointerCapture(event.pointerId);
  };
  canvas.onpointermove = (event) => {
    if (!drag || (!drag.moved && Math.abs(event.offsetX - drag.x) < 4)) return;
    drag.moved = true;
    axis.show(drag.start - ((event.offsetX - drag.x) / canvas.clientWidth) * axis.view.span_ms, axis.view.span_ms);
    zoom(1);
  };
  canvas.onpointerup = (event) => {
    if (drag && !drag.moved) hear(axis.ms(event.offsetX));
    drag = null;
  };
  canvas.onwheel = (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // else the page scrolls
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, axis.ms(event.offsetX));
  };
  canvas.onkeydown = (event) => {
    const at = sound.position_ms;
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowLeft: () => hear(Math.max(0, at - 2000)), ArrowRight: () => hear(at + 2000), Home: () => hear(0), "+": () => zoom(0.5), "-": () => zoom(2),
      " ": () => (sound.playing ? sound.stop() : hear(at)),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab has keys of its own
    keys[event.key]();
  };
}

/** Show a trace in `root`; returns what ends it. */
function player(/** @type {HTMLElement} */ root, /** @type {Data} */ data, /** @type {Fetch} */ fetchPart) {
  root.classList.add("rtnb-trace");
  add(root, "h2", { textContent: data.title });
  const sound = new Sound(data, fetchPart, () => update());
  const { button, time } = controls(root, data, sound, (factor) => zoom(factor));
  const stage = add(root, "div", { className: "rtnb-stage" });
  const canvas = add(stage, "canvas", { tabIndex: 0, role: "slider", "aria-label": "Time", "aria-valuemin": 0, "aria-valuemax": Math.round(data.duration_ms / 1000) });
  canvas.style.height = `${HEIGHT}px`;
  const head = add(stage, "div", { className: "rtnb-head" });
  add(root, "p", { textContent: `Below You: turn detection. Below Model: answers. Marks: events sent (upper) and received. ${data.note}` });
  const axis = new Axis(canvas, data);
  const hear = (/** @type {number} */ ms) => void sound.play(Math.min(ms, data.duration_ms));
  const { showEvents, showFindings } = lists(root, data, hear);
  const zoom = (/** @type {number} */ factor, at = sound.position_ms) => {
    const { start_ms, span_ms } = axis.view;
    const anchor = at >= start_ms && at <= start_ms + span_ms ? at : start_ms + span_ms / 2;
    if (factor !== 1) axis.show(anchor - (anchor - start_ms) * factor, span_ms * factor);
    showEvents(axis.view.start_ms, axis.view.start_ms + axis.view.span_ms);
    update();
  };
  let timer = 0;
  function update() {
    cancelAnimationFrame(timer);
    const at = sound.position_ms;
    if (sound.playing && (at > axis.view.start_ms + axis.view.span_ms || at < axis.view.start_ms)) {
      axis.show(at, axis.view.span_ms);
      showEvents(axis.view.start_ms, axis.view.start_ms + axis.view.span_ms);
    }
    [time.textContent, button.textContent] = [clock(at), sound.playing ? "Pause" : "Play"];
    canvas.setAttribute("aria-valuenow", String(Math.round(at / 1000)));
    canvas.setAttribute("aria-valuetext", clock(at));
    head.style.left = `${axis.x(at)}px`;
    if (sound.playing) timer = requestAnimationFrame(update);
  }
  button.onclick = () => (sound.playing ? sound.stop() : hear(sound.position_ms >= data.duration_ms ? 0 : sound.position_ms));
  steer(canvas, axis, sound, hear, zoom);
  const resized = new ResizeObserver(() => (axis.draw(), update()));
  resized.observe(canvas);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.onchange = () => axis.draw();
  zoom(1);
  data.lanes.forEach(async (_, lane) => {
    axis.bins[lane] = new Int8Array((await fetchPart(`bins/${lane}`))?.slice().buffer ?? new ArrayBuffer(0));
    axis.draw();
  });
  fetchPart("findings").then((found) => {
    axis.findings = found ? JSON.parse(new TextDecoder().decode(found)) : [];
    showFindings(axis.findings);
    axis.draw();
  });
  return () => (sound.stop(), resized.disconnect(), void sound.context?.close());
}

/** As a page: everything is in it. */
export function page(/** @type {Document} */ here) {
  const text = (/** @type {string} */ id) => here.getElementById(id)?.textContent;
  return player(here.body, JSON.parse(text("data") ?? "{}"), async (name) => {
    const part = text(name);
    return part ? bytes(part) : null;
  });
}

/** As a widget: the kernel has the parts. */
export default {
  /** @param {{model: any, el: HTMLElement}} props */
  render({ model, el }) {
    /** @type {Map<string, (part: ?Uint8Array) => void>} */
    const waiting = new Map();
    const onMessage = (/** @type {{part: string}} */ message, /** @type {DataView[]} */ [part]) => {
      waiting.get(message.part)?.(part ? new Uint8Array(part.buffer, part.byteOffset, part.byteLength) : null);
      waiting.delete(message.part);
    };
    model.on("msg:custom", onMessage);
    const close = player(el, JSON.parse(model.get("data")), (name) => new Promise((resolve) => {
      waiting.set(name, resolve);
      model.send({ part: name });
    }));
    return () => (close(), model.off("msg:custom", onMessage));
  },
};
