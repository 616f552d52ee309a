/**
 * Time axis of a session: waveforms of both sides, speech turns, responses and the playback position.
 *
 * Kernel to page: reset {bin_ms}, bins {lane, index} [int16 min/max pairs], marks {marks, now_ms, cursor: [at_ms, until_ms] or null},
 * clip {view, start_ms, held_from_ms} [PCM16 at 24 kHz]. Page to kernel: play {view, start_ms}.
 *
 * @typedef {object} State
 * @property {string} channel reference to the page's channel
 * @property {string} stream_name name of its stream
 * @property {?number} selected_ms the selected moment
 * @property {number} height_px height of the whole widget
 * @typedef {import("./waveform_pyramid.js").Mark} Mark
 * @typedef {import("./types").Model<State>} Model
 * @typedef {ReturnType<typeof drawing> & {x: (ms: number) => number}} Paper
 */
import { ClipPlayer, add, axis, clock, drawing, onKey, put, putAttribute, toggleButton, watch } from "./shared.js";
import { Pyramid, moment, zoomed } from "./waveform_pyramid.js";

const LEFT = 54; // px for the names of the lanes
const TICKS = 26; // px above the lanes; the tools stand there, too
const SPEECH = 26; // px of the lane with turns and responses
const FOOTER = 20;
const MAX_MARKS = 9000; // the kernel keeps 3,000

/** What the kernel sent; all views of a page show the same. */
class Recording {
  lanes = { you: new Pyramid(), model: new Pyramid() };
  /** @type {Map<string, Mark>} */
  marks = new Map();
  now_ms = 0;
  bin_ms = 2;
  /** @type {?[number, number]} */
  cursor = null;
  cursor_at = 0;

  /** @type {import("./types").OnMessage} */
  take(kind, header, buffers) {
    if (kind === "reset") Object.assign(this, new Recording(), header);
    if (kind === "bins") this.lanes[/** @type {"you" | "model"} */ (header.lane)].write(header.index, int16(buffers[0]));
    if (kind !== "marks") return;
    for (const [key, mark] of Object.entries(header.marks)) this.marks.set(key, mark);
    for (const key of this.marks.keys()) if (this.marks.size > MAX_MARKS) this.marks.delete(key);
    Object.assign(this, { now_ms: header.now_ms, cursor: header.cursor, cursor_at: performance.now() });
  }

  get end_ms() {
    return Math.max(this.now_ms, this.lanes.you.length * this.bin_ms, this.lanes.model.length * this.bin_ms);
  }

  /** Where the playback is: between two reports it goes on by itself. */
  get cursor_ms() {
    return this.cursor && Math.min(this.cursor[0] + performance.now() - this.cursor_at, this.cursor[1]);
  }
}

const int16 = (/** @type {DataView} */ data) => new Int16Array(data.buffer, data.byteOffset, data.byteLength / 2);

class View {
  start_ms = 0;
  span_ms = 30000;
  follow = true;
  note = "";
  frame = 0;
  painted = "";
  /** @type {?number} */
  hover_ms = null;
  /** @type {?ClipPlayer} */
  player = null;

  /**
   * @param {Recording} recording
   * @param {import("./types").RenderProps<State>} props
   * @param {import("./types").Stream} stream
   * @param {string} id
   */
  constructor(recording, { model, el, signal }, stream, id) {
    this.recording = recording;
    this.model = model;
    this.stream = stream;
    this.id = id;
    const root = (this.root = add(el, "div", { className: "rtnb rtnb-waveform", role: "group", "aria-label": "Time axis" }));
    /** @type {HTMLCanvasElement} */
    this.canvas = add(root, "canvas", { tabIndex: 0, role: "slider", "aria-label": "Moment of the session", "aria-valuemin": 0 });
    putAttribute(this.canvas, "aria-description", "Arrow keys select a moment, Enter plays from there, plus and minus zoom.");
    const tools = add(root, "div", { className: "rtnb-tools" });
    const button = (/** @type {string} */ text, /** @type {string} */ name, /** @type {() => void} */ action) =>
      add(tools, "button", { type: "button", textContent: text, title: name, "aria-label": name, onclick: () => (action(), this.draw()) });
    this.play = button("▶", "Play", () => this.toggle());
    button("−", "Zoom out", () => this.zoom(2));
    button("+", "Zoom in", () => this.zoom(0.5));
    this.live = toggleButton(tools, { textContent: "Live", title: "Follow the newest moment" }, (on) => {
      this.follow = on;
      this.draw();
    });
    const footer = add(root, "div", { className: "rtnb-footer" });
    for (const name of ["turn", "response", "cut short"]) add(footer, "span", { className: "rtnb-legend", textContent: name });
    this.readout = add(footer, "span", { className: "rtnb-readout" });
    this.listen(signal);
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(this.canvas);
  }

  get ms_per_px() {
    return this.span_ms / Math.max(1, this.canvas.clientWidth - LEFT);
  }

  listen(/** @type {AbortSignal} */ signal) {
    const { canvas } = this;
    /** @type {?{x: number, start_ms: number, moved: boolean}} */
    let drag = null;
    const at = (/** @type {MouseEvent} */ e) => this.start_ms + (e.offsetX - LEFT) * this.ms_per_px;
    canvas.onpointerdown = (e) => {
      canvas.setPointerCapture(e.pointerId);
      drag = { x: e.offsetX, start_ms: this.start_ms, moved: false };
    };
    canvas.onpointermove = (e) => {
      this.hover_ms = at(e);
      if (drag && Math.abs(e.offsetX - drag.x) > 3) drag.moved = true;
      if (drag?.moved) this.look(drag.start_ms - (e.offsetX - drag.x) * this.ms_per_px);
      this.draw();
    };
    canvas.onpointerup = (e) => {
      if (drag && !drag.moved) this.select(at(e));
      drag = null;
    };
    canvas.onpointerleave = () => {
      this.hover_ms = null;
      this.draw();
    };
    canvas.ondblclick = (e) => this.playFrom(at(e));
    canvas.onwheel = (e) => {
      if (!e.ctrlKey && !e.metaKey) return; // the notebook scrolls
      e.preventDefault();
      this.zoom(2 ** (e.deltaY / 200), at(e));
      this.draw();
    };
    onKey(canvas, (e) => !(e.ctrlKey || e.metaKey || e.altKey) && this.onKeyDown(e), signal);
  }

  onKeyDown(/** @type {KeyboardEvent} */ e) {
    const now = this.model.get("selected_ms") ?? this.start_ms;
    const step = this.span_ms / (e.shiftKey ? 10 : 100);
    /** @type {Record<string, () => void>} */
    const actions = {
      ArrowLeft: () => this.select(now - step),
      ArrowRight: () => this.select(now + step),
      PageDown: () => this.select(now - this.span_ms / 10),
      PageUp: () => this.select(now + this.span_ms / 10),
      Home: () => this.select(0),
      End: () => this.select(this.recording.end_ms),
      Enter: () => this.toggle(),
      " ": () => this.toggle(),
      "+": () => this.zoom(0.5, now),
      "-": () => this.zoom(2, now),
      Escape: () => this.select(null),
    };
    actions[e.key]?.();
    this.draw();
    return e.key in actions;
  }

  /** Show another part; that ends following. */
  look(/** @type {number} */ start_ms) {
    this.start_ms = Math.max(0, start_ms);
    this.follow = false;
  }

  zoom(/** @type {number} */ factor, at_ms = this.start_ms + this.span_ms / 2) {
    Object.assign(this, zoomed(this, at_ms, factor, Math.max(60000, this.recording.end_ms)));
  }

  /** Bring the selected moment into view. */
  reveal() {
    const ms = this.model.get("selected_ms");
    if (ms !== null && (ms < this.start_ms || ms > this.start_ms + this.span_ms)) this.look(ms - this.span_ms / 2);
    this.draw();
  }

  select(/** @type {?number} */ ms) {
    this.note = "";
    this.model.set("selected_ms", ms === null ? null : Math.min(Math.max(0, ms), this.recording.end_ms));
    this.model.save_changes();
  }

  toggle() {
    if (this.player?.clip) this.player.stop();
    else this.playFrom(this.model.get("selected_ms") ?? this.start_ms);
  }

  playFrom(/** @type {number} */ ms) {
    this.player ??= new ClipPlayer(() => this.draw()); // a click or a key came first, so the browser lets it play
    this.player.stop();
    this.stream.send("play", { view: this.id, start_ms: Math.max(0, ms) });
  }

  onClip(/** @type {any} */ { start_ms, held_from_ms }, /** @type {Int16Array} */ pcm) {
    const gone = start_ms < held_from_ms;
    this.note = gone ? `The audio before ${clock(held_from_ms)} is no longer held.` : pcm.length ? "" : "No audio after this moment.";
    this.player?.play(pcm, start_ms);
    this.draw();
  }

  /** Paint in the next frame; while something plays, in each frame in which its line moves on. */
  draw() {
    this.painted = "";
    this.frame ||= requestAnimationFrame(() => this.paintIfMoved());
  }

  paintIfMoved() {
    this.frame = 0;
    const [clip_ms, cursor_ms] = [this.player?.position_ms ?? null, this.recording.cursor_ms];
    const moves = clip_ms !== null || (cursor_ms !== null && cursor_ms < /** @type {any} */ (this.recording.cursor)[1]);
    const state = [clip_ms, cursor_ms].map((ms) => ms !== null && Math.round(ms / this.ms_per_px)).join() + moves;
    if (state !== this.painted && this.canvas.clientWidth) this.paint(clip_ms ?? cursor_ms);
    this.painted = state;
    if (moves) this.frame ||= requestAnimationFrame(() => this.paintIfMoved());
  }

  paint(/** @type {?number} */ cursor_ms) {
    const { canvas, recording } = this;
    const height = this.model.get("height_px") - FOOTER;
    const px = this.ms_per_px;
    if (this.follow) this.start_ms = Math.max(0, (recording.cursor_ms ?? recording.end_ms) - 0.9 * this.span_ms);
    this.start_ms = Math.round(this.start_ms / px) * px; // whole pixels: the columns stay as they are while they move
    const paper = { ...drawing(canvas, height), x: (/** @type {number} */ ms) => LEFT + (ms - this.start_ms) / px };
    const { g, width, color, x } = paper;
    const room = (height - TICKS - SPEECH) / 2;
    axis(g, this, { left: LEFT, right: width, labelsTo: width - 130, top: 4, height, line: color("grid"), text: color("faint") });
    this.paintLane(paper, "you", TICKS, room);
    this.paintLane(paper, "model", TICKS + room, room);
    this.paintUnheard(paper, TICKS + room, room);
    this.paintBars(paper, height - SPEECH + 4);
    g.clearRect(0, 0, LEFT, height);
    g.fillStyle = color("text");
    ["You", "Model", "Speech"].forEach((name, i) => g.fillText(name, 0, 4 + (i < 2 ? TICKS + (i + 0.5) * room : height - SPEECH / 2)));
    const line = (/** @type {?number} */ ms, /** @type {string} */ stroke, w = 2) => {
      g.fillStyle = stroke;
      if (ms !== null && x(ms) >= LEFT) g.fillRect(x(ms) - w / 2, TICKS - 6, w, height);
    };
    line(this.hover_ms, color("faint"), 1);
    line(this.model.get("selected_ms"), color("text"));
    line(cursor_ms, color("bad"));
    this.describe(cursor_ms);
  }

  paintLane(/** @type {Paper} */ paper, /** @type {"you" | "model"} */ name, /** @type {number} */ top, /** @type {number} */ height) {
    const { g, color, width } = paper;
    const { lanes, bin_ms } = this.recording;
    const middle = top + height / 2;
    const scale = (height / 2 - 1) / Math.max(lanes[name].peak, 1600); // as loud as the loudest so far, at most 20 times
    const columns = lanes[name].columns(this.start_ms / bin_ms, this.ms_per_px / bin_ms, width - LEFT);
    g.fillStyle = color(name);
    for (let i = 0; i < width - LEFT; i++) {
      const [low, high] = [columns[2 * i] * scale, columns[2 * i + 1] * scale];
      if (low || high) g.fillRect(LEFT + i, middle - high, 1, Math.max(1, high - low));
    }
    g.fillRect(LEFT, middle - 0.25, width, 0.5);
  }

  /** Fade audio that was cut before it was played. */
  paintUnheard(/** @type {Paper} */ { g, color, x }, /** @type {number} */ top, /** @type {number} */ height) {
    Object.assign(g, { fillStyle: color("back"), globalAlpha: 0.65 });
    const items = [...this.recording.marks].filter(([key]) => key[0] === "i").map(([, mark]) => mark);
    items.forEach(({ start_ms, heard_ms, audio_ms }, i) => {
      if (heard_ms === null) return;
      const [from, to] = [x(start_ms + heard_ms), x(Math.min(start_ms + audio_ms, items[i + 1]?.start_ms ?? Infinity))];
      if (to > from) g.fillRect(from, top, to - from + 1, height);
    });
    g.globalAlpha = 1;
  }

  /** Turns above, responses below them. */
  paintBars(/** @type {Paper} */ { g, width, color, x }, /** @type {number} */ top) {
    for (const [key, { start_ms, stop_ms, status }] of this.recording.marks) {
      const [from, to] = [Math.max(LEFT, x(start_ms)), Math.min(width, x(stop_ms ?? this.recording.end_ms))];
      if (key[0] === "i" || to < LEFT || from > width) continue;
      const whole = status === "completed" || status === "in_progress";
      g.fillStyle = color(key[0] === "s" ? "you" : whole ? "model" : "warn");
      g.fillRect(from, key[0] === "s" ? top : top + 11, Math.max(2, to - from), 7);
    }
  }

  describe(/** @type {?number} */ cursor_ms) {
    const { canvas, recording } = this;
    const selected = this.model.get("selected_ms");
    const words = (/** @type {number} */ ms) => [clock(ms, 2), moment(recording.marks, ms)].filter(Boolean).join(" · ");
    const ms = Math.min(this.hover_ms ?? cursor_ms ?? selected ?? Infinity, recording.end_ms);
    put(this.readout, "textContent", this.note || words(Math.max(0, ms)));
    const plays = Boolean(this.player?.clip);
    put(this.play, "textContent", plays ? "■" : "▶");
    put(this.play, "title", plays ? "Stop" : "Play from the selected moment (Enter)");
    putAttribute(this.play, "aria-label", plays ? "Stop" : "Play");
    putAttribute(this.live, "aria-pressed", this.follow);
    putAttribute(canvas, "aria-valuemax", Math.round(recording.end_ms));
    putAttribute(canvas, "aria-valuenow", Math.round(selected ?? 0));
    putAttribute(canvas, "aria-valuetext", selected === null ? "no moment selected" : words(selected));
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.sizes.disconnect();
    this.player?.close();
    this.frame = -1; // nothing is painted any more
  }
}

export default () => {
  const recording = new Recording();
  /** @type {Set<View>} */
  const views = new Set();
  /** @type {?import("./types").Stream} */
  let stream = null; // one for all views
  let count = 0;

  /** @type {import("./types").OnMessage} */
  function onMessage(kind, header, buffers) {
    recording.take(kind, header, buffers);
    for (const view of views) {
      if (kind !== "clip") view.draw();
      else if (header.view === view.id) view.onClip(header, int16(buffers[0]));
    }
  }

  async function render(/** @type {import("./types").RenderProps<State>} */ props) {
    const { model, host } = props;
    const { exports: channel } = await host.getWidget(model.get("channel"));
    stream ??= /** @type {import("./types").Stream} */ (channel.openStream(model.get("stream_name"), onMessage));
    const view = new View(recording, props, stream, `${channel.pageId}-${count++}`);
    views.add(view);
    const unwatch = watch(model, ["selected_ms", "height_px"], () => {
      view.root.style.height = `${model.get("height_px")}px`;
      view.reveal();
    });
    return () => {
      unwatch();
      view.close();
      views.delete(view);
      if (views.size) return;
      stream?.close();
      stream = null;
    };
  }
  return { render };
};
