/**
 * Both sides of a session on one time axis: waveforms, speech, responses, playback. waveform_pyramid.js comes before it.
 *
 * @typedef {object} State
 * @property {string} channel reference to the page's stream
 * @property {string} stream_name name of its stream
 * @property {?number} selected_ms the selected moment
 *
 * Kernel to page: reset {bin_ms}, bins {lane, index} [int16 min/max pairs], marks {marks, now_ms, cursor_ms},
 * clip {view, start_ms} [PCM16 at 24 kHz]. Page to kernel: play {view, start_ms}.
 */
import { Pyramid, clock, moment, tick_ms, zoomed } from "./waveform_pyramid.js";

const LANES = { you: { top: 20, height: 60 }, model: { top: 84, height: 60 } };
const HEIGHT = 158;
const STYLE = `
.rtnb-waveform { padding: 6px 8px; --rtnb-you: var(--rtnb-good); --rtnb-model: var(--rtnb-accent); }
.rtnb-waveform .rtnb-tools { display: flex; flex-wrap: wrap; gap: 4px; align-items: center; margin-bottom: 4px; }
.rtnb-waveform output { flex: 1 1 180px; text-align: end; color: var(--rtnb-faint); font-variant-numeric: tabular-nums; }
.rtnb-waveform button[aria-pressed=true] { border-color: var(--rtnb-accent); color: var(--rtnb-accent); }
.rtnb-waveform canvas { display: block; width: 100%; height: ${HEIGHT}px; cursor: crosshair; touch-action: pan-y; }`;

class View {
  constructor(shared, model, el, stream, id, signal) {
    Object.assign(this, { shared, model, stream, id, signal, start_ms: 0, span_ms: 30000, follow: true, hover: null, clip: null });
    const add = (parent, name, attributes = {}) => parent.appendChild(Object.assign(document.createElement(name), attributes));
    const root = (this.root = add(el, "div", { className: "rtnb rtnb-waveform" }));
    add(root, "style", { textContent: STYLE });
    const tools = add(root, "div", { className: "rtnb-tools" });
    const button = (text, title, action) =>
      add(tools, "button", { type: "button", textContent: text, title, onclick: () => (action(), this.draw()) });
    this.play = button("▶ Play", "Play from the selected moment (Enter)", () => this.toggle());
    button("−", "Zoom out", () => this.zoom(2)).setAttribute("aria-label", "Zoom out");
    button("+", "Zoom in", () => this.zoom(0.5)).setAttribute("aria-label", "Zoom in");
    button("All", "Show the whole session", () => this.look(0, Math.max(1000, this.end()), false));
    this.live = button("Live", "Follow what happens now", () => (this.follow = !this.follow));
    this.readout = add(tools, "output");
    this.canvas = add(root, "canvas", { tabIndex: 0 });
    this.canvas.setAttribute("role", "slider");
    this.canvas.setAttribute("aria-label", "Moment of the session");
    this.listen();
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(this.canvas);
  }

  listen() {
    const { canvas } = this;
    let drag = null;
    const at = (event) => this.start_ms + (event.offsetX * this.span_ms) / canvas.clientWidth;
    canvas.addEventListener("pointerdown", (e) => {
      canvas.setPointerCapture(e.pointerId);
      drag = { x: e.offsetX, start_ms: this.start_ms, moved: false };
    });
    canvas.addEventListener("pointermove", (e) => {
      this.hover = at(e);
      if (drag && Math.abs(e.offsetX - drag.x) > 3) drag.moved = true;
      if (drag?.moved) this.look(drag.start_ms - ((e.offsetX - drag.x) * this.span_ms) / canvas.clientWidth, this.span_ms, false);
      this.draw();
    });
    canvas.addEventListener("pointerup", (e) => {
      if (drag && !drag.moved) this.select(at(e));
      drag = null;
    });
    canvas.addEventListener("pointerleave", () => ((this.hover = null), this.draw()));
    canvas.addEventListener("dblclick", (e) => this.listenFrom(at(e)));
    canvas.addEventListener("wheel", (e) => {
      if (!e.ctrlKey && !e.metaKey && !canvas.matches(":focus")) return; // the notebook scrolls, unless it was clicked
      e.preventDefault();
      if (e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY)) this.look(this.start_ms + ((e.deltaX || e.deltaY) * this.span_ms) / 1000, this.span_ms, false);
      else this.zoom(2 ** (e.deltaY / 200), at(e));
      this.draw();
    });
    const key = (e) => {
      const now = this.model.get("selected_ms") ?? this.start_ms;
      const step = this.span_ms / (e.shiftKey ? 10 : 100);
      const act = {
        ArrowLeft: () => this.select(now - step),
        ArrowRight: () => this.select(now + step),
        Home: () => this.select(0),
        End: () => this.select(this.end()),
        Enter: () => this.toggle(),
        " ": () => this.toggle(),
        "+": () => this.zoom(0.5, now),
        "-": () => this.zoom(2, now),
        Escape: () => this.select(null),
      }[e.key];
      if (e.target !== canvas || !act || e.ctrlKey || e.metaKey || e.altKey) return;
      e.preventDefault();
      e.stopPropagation();
      act();
      this.reveal();
      this.draw();
    };
    // JupyterLab takes some keys for itself, in the capture phase on the document: be earlier.
    window.addEventListener("keydown", key, { capture: true, signal: this.signal });
  }

  end() {
    const { lanes, bin_ms, now_ms } = this.shared;
    return Math.max(now_ms, ...Object.values(lanes).map((lane) => lane.length * bin_ms));
  }

  look(start_ms, span_ms, follow = this.follow) {
    Object.assign(this, { start_ms: Math.max(0, start_ms), span_ms, follow });
  }

  zoom(factor, at_ms = this.start_ms + this.span_ms / 2) {
    const view = zoomed(this, at_ms, factor, { most_ms: Math.max(60000, this.end()) });
    this.look(view.start_ms, view.span_ms);
  }

  reveal() {
    const ms = this.model.get("selected_ms");
    if (ms !== null && (ms < this.start_ms || ms > this.start_ms + this.span_ms)) this.look(ms - this.span_ms / 2, this.span_ms, false);
  }

  select(ms) {
    this.model.set("selected_ms", ms === null ? null : Math.min(Math.max(0, ms), this.end()));
    this.model.save_changes();
  }

  toggle() {
    if (this.clip) this.stop();
    else this.listenFrom(this.model.get("selected_ms") ?? this.start_ms);
  }

  listenFrom(ms) {
    this.stop();
    this.context ??= new AudioContext(); // a click or a key came first, so the browser lets it sound
    this.stream.send("play", { view: this.id, start_ms: Math.max(0, ms) });
  }

  sound(start_ms, pcm) {
    this.stop();
    if (!pcm.length) return;
    const buffer = this.context.createBuffer(1, pcm.length, 24000);
    buffer.copyToChannel(Float32Array.from(pcm, (value) => value / 32768), 0);
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(this.context.destination);
    source.onended = () => this.clip?.source === source && this.stop();
    source.start();
    this.clip = { source, start_ms, from_s: this.context.currentTime };
    this.draw();
  }

  stop() {
    this.clip?.source.stop();
    this.clip = null;
    this.draw();
  }

  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (this.canvas.clientWidth) this.paint();
      if (this.clip) this.draw();
    });
  }

  paint() {
    const { canvas, shared } = this;
    const cursor_ms = this.clip ? this.clip.start_ms + 1000 * (this.context.currentTime - this.clip.from_s) : shared.cursor_ms;
    if (this.follow) this.start_ms = Math.max(0, (shared.cursor_ms ?? this.end()) - 0.9 * this.span_ms);
    const [width, ratio] = [canvas.clientWidth, window.devicePixelRatio];
    if (canvas.width !== Math.round(width * ratio)) [canvas.width, canvas.height] = [Math.round(width * ratio), HEIGHT * ratio];
    const css = getComputedStyle(this.root);
    const color = (name) => css.getPropertyValue(`--rtnb-${name}`);
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, HEIGHT);
    g.font = `11px ${css.fontFamily}`;
    const x = (ms) => ((ms - this.start_ms) * width) / this.span_ms;
    this.axis(g, x, width, color);
    this.stretches(g, x, width, color);
    for (const [name, { top, height }] of Object.entries(LANES)) {
      const [lane, middle] = [shared.lanes[name], top + height / 2];
      const scale = height / 2 / Math.max(lane.peak, 1600); // as loud as the loudest so far, at most 20 times
      const columns = lane.columns(this.start_ms / shared.bin_ms, this.span_ms / width / shared.bin_ms, width);
      g.fillStyle = color(name);
      for (let i = 0; i < width; i++) {
        const [low, high] = [columns[2 * i] * scale, columns[2 * i + 1] * scale];
        if (low || high) g.fillRect(i, middle - high, 1, Math.max(1, high - low));
      }
      g.fillRect(0, middle - 0.25, width, 0.5);
    }
    this.dim(g, x, color);
    for (const [name, { top }] of Object.entries(LANES)) {
      const text = name === "you" ? "You" : "Model";
      Object.assign(g, { strokeStyle: color("back"), fillStyle: color("text"), lineWidth: 3, lineJoin: "round" });
      g.strokeText(text, 4, top + 11); // an edge, not a box: what it lies on stays to be seen
      g.fillText(text, 4, top + 11);
    }
    const line = (ms, stroke, dash) => {
      g.fillStyle = stroke;
      if (ms !== null) for (let y = 16; y < HEIGHT; y += dash ? 6 : HEIGHT) g.fillRect(x(ms) - 0.75, y, 1.5, dash ? 3 : HEIGHT);
    };
    line(this.hover, color("faint"), true);
    line(this.model.get("selected_ms"), color("text"), false);
    line(cursor_ms, color("bad"), false);
    this.say(cursor_ms);
  }

  axis(g, x, width, color) {
    const step = tick_ms(this.span_ms / width);
    for (let ms = Math.ceil(this.start_ms / step) * step; x(ms) < width; ms += step) {
      g.fillStyle = color("border");
      g.globalAlpha = 0.5;
      g.fillRect(x(ms), 16, 1, HEIGHT);
      g.globalAlpha = 1;
      g.fillStyle = color("faint");
      if (x(ms) + 40 < width) g.fillText(clock(ms, step < 100 ? 2 : step < 1000 ? 1 : 0), x(ms) + 3, 11);
    }
  }

  stretches(g, x, width, color) {
    for (const [key, { start_ms, stop_ms, status }] of this.shared.marks) {
      const [from, to] = [Math.max(0, x(start_ms)), Math.min(width, x(stop_ms ?? this.end()))];
      if (to < 0 || from > width || key[0] === "i") continue;
      g.fillStyle = key[0] === "s" ? color("you") : status === "completed" || status === "in_progress" ? color("model") : color("warn");
      g.globalAlpha = key[0] === "s" ? 0.16 : 0.75;
      const { top, height } = key[0] === "s" ? LANES.you : { top: 149, height: 6 };
      g.fillRect(from, top, Math.max(2, to - from), height);
      g.globalAlpha = 1;
    }
  }

  /** What nobody heard fades. */
  dim(g, x, color) {
    g.fillStyle = color("back");
    g.globalAlpha = 0.65;
    const items = [...this.shared.marks].filter(([key]) => key[0] === "i").map(([, mark]) => mark);
    items.forEach(({ start_ms, heard_ms, audio_ms }, i) => {
      if (heard_ms === null) return;
      const stop_ms = Math.min(start_ms + audio_ms, items[i + 1]?.start_ms ?? Infinity);
      const from = x(start_ms + heard_ms);
      g.fillRect(from, LANES.model.top, Math.max(0, x(stop_ms) - from), LANES.model.height);
    });
    g.globalAlpha = 1;
  }

  say(cursor_ms) {
    const { canvas, shared } = this;
    const selected = this.model.get("selected_ms");
    const ms = this.hover ?? cursor_ms ?? selected ?? this.end();
    const text = [clock(Math.max(0, ms)), moment(shared.marks, ms)].filter(Boolean).join(" · ");
    if (this.readout.textContent !== text) this.readout.textContent = text;
    const play = this.clip ? "■ Stop" : "▶ Play";
    if (this.play.textContent !== play) this.play.textContent = play;
    this.live.setAttribute("aria-pressed", this.follow);
    const at = Math.round(selected ?? 0);
    const values = { valuemin: 0, valuemax: Math.round(this.end()), valuenow: at, valuetext: `${clock(at)} ${moment(shared.marks, at)}` };
    for (const [name, value] of Object.entries(values)) canvas.setAttribute(`aria-${name}`, value);
  }

  close() {
    this.stop();
    cancelAnimationFrame(this.frame);
    this.sizes.disconnect();
    this.context?.close();
  }
}

const empty = () => ({ lanes: { you: new Pyramid(), model: new Pyramid() }, marks: new Map(), now_ms: 0, cursor_ms: null, bin_ms: 2 });

export default () => {
  const shared = empty();
  const views = new Set();
  let made = 0;
  function take(kind, header, buffers) {
    const int16 = () => new Int16Array(buffers[0].buffer, buffers[0].byteOffset, buffers[0].byteLength / 2);
    if (kind === "reset") Object.assign(shared, empty(), header);
    if (kind === "bins") shared.lanes[header.lane].write(header.index, int16());
    if (kind === "marks") {
      for (const [key, mark] of Object.entries(header.marks)) shared.marks.set(key, mark);
      Object.assign(shared, { now_ms: header.now_ms, cursor_ms: header.cursor_ms });
    }
    for (const view of views) {
      if (kind !== "clip") view.draw();
      else if (header.view === view.id) view.sound(header.start_ms, int16());
    }
  }
  let stream = null; // one for all views
  async function render({ model, el, host, signal }) {
    const { exports: channel } = await host.getWidget(model.get("channel"));
    stream ??= channel.openStream(model.get("stream_name"), take);
    const view = new View(shared, model, el, stream, `${channel.pageId}-${made++}`, signal);
    views.add(view);
    const moved = () => (view.reveal(), view.draw());
    model.on("change:selected_ms", moved);
    view.draw();
    return () => {
      model.off("change:selected_ms", moved);
      view.close();
      views.delete(view);
      if (!views.size) stream = stream.close();
    };
  }
  return { render };
};
