/**
 * The VAD lab's picture. vad_view_model.js, vad_view_time.js and vad_view_maps.js come before it.
 *
 * @typedef {object} State
 * @property {string} channel reference to the page's stream
 * @property {string} stream_name name of its stream
 * @property {number} threshold
 * @property {number} silence_duration_ms
 * @property {number} prefix_padding_ms
 * @property {string} metric what the map shows
 *
 * Kernel to page: recording {index, name, names, bin_ms, duration_ms, turns, pauses, constants} [int16 min/max pairs,
 * float32 probabilities], grid {metrics, thresholds, silences_ms, n_turns, marks} [float32 per metric],
 * service {events}, clip {view} [PCM16 at 24 kHz].
 * Page to kernel: show {index}, point {threshold, silence_duration_ms,
 * prefix_padding_ms} answered {rows, verdict, advice}, play {view, start_ms, span_ms}.
 */
import { cutOffs, front, segments } from "./vad_view_model.js";
import { TIME_HEIGHT, TimeView } from "./vad_view_time.js";
import { MAP, VadMaps } from "./vad_view_maps.js";

const KNOBS = ["threshold", "silence_duration_ms", "prefix_padding_ms"];
const VAD_STYLE = `
.rtnb-vad { padding: 6px 8px; }
.rtnb-vad .rtnb-tools { display: flex; flex-wrap: wrap; gap: 4px; align-items: center; margin-bottom: 4px; }
.rtnb-vad .rtnb-tools select { max-width: 60%; }
.rtnb-vad .rtnb-tools output { flex: 1 1 160px; text-align: end; color: var(--rtnb-faint); font-variant-numeric: tabular-nums; }
.rtnb-vad canvas { display: block; width: 100%; touch-action: pan-y; }
.rtnb-vad .rtnb-time { height: ${TIME_HEIGHT}px; }
.rtnb-vad .rtnb-maps { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 8px; }
.rtnb-vad .rtnb-maps > div { flex: 1 1 300px; min-width: 0; }
.rtnb-vad .rtnb-maps canvas { height: ${MAP.height}px; cursor: pointer; }
.rtnb-vad .rtnb-maps label { display: flex; flex-wrap: wrap; gap: 2px 6px; align-items: center; min-height: 26px; }
.rtnb-vad select { max-width: 100%; min-width: 0; }
.rtnb-vad .rtnb-figures { overflow-x: auto; }
.rtnb-vad .rtnb-cuts { display: flex; flex-wrap: wrap; gap: 4px; margin-top: 6px; align-items: center; min-height: 26px; }
.rtnb-vad table { border-collapse: collapse; margin-top: 6px; font-variant-numeric: tabular-nums; }
.rtnb-vad th, .rtnb-vad td { padding: 1px 12px 1px 0; text-align: start; font-weight: normal; vertical-align: top; }
.rtnb-vad thead th { color: var(--rtnb-faint); }`;

class VadView extends VadMaps {
  constructor(model, el, stream, id) {
    super();
    Object.assign(this, { model, stream, id, grid: null, asking: false, hovered: "" });
    const add = (parent, name, attributes = {}) => parent.appendChild(Object.assign(document.createElement(name), attributes));
    this.add = add;
    const root = (this.root = add(el, "div", { className: "rtnb rtnb-vad" }));
    add(root, "style", { textContent: VAD_STYLE });
    const tools = add(root, "div", { className: "rtnb-tools" });
    this.picker = add(tools, "select", { title: "Recording", onchange: () => stream.send("show", { index: this.picker.selectedIndex }) });
    this.picker.setAttribute("aria-label", "Recording");
    const button = (text, title, onclick) => add(tools, "button", { type: "button", textContent: text, title, onclick }).setAttribute("aria-label", title);
    button("−", "Zoom out", () => this.time.zoom(2));
    button("+", "Zoom in", () => this.time.zoom(0.5));
    button("All", "Show the whole recording", () => this.time.look(0, Infinity));
    this.readout = add(tools, "output", { textContent: "Drag the line; click to listen" });
    const point = () => Object.fromEntries(KNOBS.map((name) => [name, model.get(name)]));
    const played = (start_ms, span_ms) => this.play(start_ms, span_ms);
    this.time = new TimeView(add(root, "canvas", { className: "rtnb-time" }), { point, turned: (knobs) => this.turn(knobs), played });
    this.cuts = add(root, "div", { className: "rtnb-cuts" });
    const maps = add(root, "div", { className: "rtnb-maps" });
    const left = add(maps, "div");
    const label = add(left, "label", { textContent: "Map of " });
    this.metric = add(label, "select", { onchange: () => (model.set("metric", this.metric.value), model.save_changes()) });
    add(label, "span", { className: "rtnb-faint", textContent: "threshold ↑ silence →" });
    this.heat = add(left, "canvas");
    const right = add(maps, "div");
    add(right, "label", { textContent: "Cut off against waited (each point one setting)" });
    this.pareto = add(right, "canvas");
    for (const [canvas, name] of [[this.heat, "Metric over threshold and silence; click to take a setting"], [this.pareto, "Cut-off rate over delay; click to take a setting"]]) {
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", name);
    }
    this.heat.onclick = (e) => this.take(this.cell(e));
    this.heat.onmousemove = (e) => this.tell(this.cell(e));
    this.pareto.onclick = (e) => this.take(this.nearest(e));
    this.pareto.onmousemove = (e) => this.tell(this.nearest(e));
    this.legend = add(root, "div", { className: "rtnb-faint", textContent: "● this setting   ■ default   ◆ recommended" });
    this.table = add(root, "div", { className: "rtnb-figures" });
    this.words = add(root, "div", { className: "rtnb-message" });
    this.told = add(root, "div", { className: "rtnb-message rtnb-faint" });
    this.sizes = new ResizeObserver(() => this.drawMaps());
    this.sizes.observe(maps);
  }

  /** Knobs moved here: the picture first, then the model (and with it whatever is linked). */
  turn(knobs) {
    for (const [name, value] of Object.entries(knobs)) this.model.set(name, value);
    this.model.save_changes();
  }

  turned() {
    this.time.turn();
    this.drawMaps();
    this.listCuts();
    this.ask();
  }

  /** What all recordings say of this setting: one question at a time, the newest last. */
  async ask() {
    if (this.asking) return void (this.again = true);
    this.asking = true;
    try {
      const figures = await this.stream.request("point", Object.fromEntries(KNOBS.map((name) => [name, this.model.get(name)])));
      if (figures.rows) this.figures(figures);
    } catch (error) {
      this.told.textContent = `No figures: ${error.message}`;
    } finally {
      this.asking = false;
      if (this.again) (this.again = false), this.ask();
    }
  }

  show(header, peaks, probabilities) {
    let loudest = 0;
    for (const value of peaks) loudest = Math.max(loudest, Math.abs(value));
    this.picker.replaceChildren(...header.names.map((name) => Object.assign(document.createElement("option"), { textContent: name })));
    this.picker.selectedIndex = header.index;
    this.time.show({ ...header, peaks, probabilities, loudest });
    this.listCuts();
    this.ask();
  }

  listCuts() {
    const { recording, segments: found } = this.time;
    if (!recording) return;
    const cut = cutOffs(found, recording.turns);
    const text = !recording.turns.length ? `${found.length} false starts in this recording` : `${cut.length} of ${recording.turns.length} turn${recording.turns.length === 1 ? "" : "s"} cut off here${cut.length ? ":" : ""}`;
    const shown = `${text} ${cut.map((one) => one.stop_ms)}`;
    if (this.shown === shown) return;
    this.shown = shown;
    const listen = cut.slice(0, 12).map(({ turn, stop_ms }) => {
      const name = `▶ turn ${turn + 1} at ${(stop_ms / 1000).toFixed(2)} s`;
      return Object.assign(document.createElement("button"), { type: "button", textContent: name, title: "Listen to what was said around the stop", onclick: () => this.play(stop_ms - 1500, 3000) });
    });
    this.cuts.replaceChildren(Object.assign(document.createElement("span"), { textContent: text }), ...listen);
  }

  setGrid(header, values) {
    const [T, S] = [header.thresholds.length, header.silences_ms.length];
    this.grid = { ...header, T, S, values: Object.fromEntries(header.metrics.map(({ name }, i) => [name, values[i]])) };
    this.metric.replaceChildren(...header.metrics.map(({ name, label }) => Object.assign(document.createElement("option"), { value: name, textContent: label })));
    this.metric.value = this.model.get("metric");
    const points = Array.from({ length: T * S }, (_, i) => ({ x: this.grid.values.delay_p90_ms[i], y: this.grid.values.cut_off_rate[i] }));
    Object.assign(this.grid, { points, front: front(points) });
    this.drawMaps();
  }

  figures({ rows, verdict, advice }) {
    const table = document.createElement("table");
    rows.forEach((row, i) => {
      const tr = this.add(i ? table : this.add(table, "thead"), "tr");
      for (const text of row) this.add(tr, i ? "td" : "th", { textContent: text });
    });
    this.table.replaceChildren(table);
    const words = [verdict, ...advice].filter(Boolean).join("\n");
    if (this.words.textContent !== words) this.words.textContent = words;
  }

  play(start_ms, span_ms) {
    this.context ??= new AudioContext(); // a click came first, so the browser lets it sound
    this.stream.send("play", { view: this.id, start_ms: Math.max(0, start_ms), span_ms });
  }

  sound(pcm) {
    this.source?.stop();
    if (!pcm.length) return;
    const buffer = this.context.createBuffer(1, pcm.length, 24000);
    buffer.copyToChannel(Float32Array.from(pcm, (value) => value / 32768), 0);
    this.source = new AudioBufferSourceNode(this.context, { buffer });
    this.source.connect(this.context.destination);
    this.source.start();
  }

  service({ events }) {
    this.time.service = events;
    this.time.draw();
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.time.close();
    this.sizes.disconnect();
    this.context?.close();
  }
}

export default () => {
  let made = 0;
  async function render({ model, el, host }) {
    const { exports: channel } = await host.getWidget(model.get("channel"));
    let view = null;
    const stream = channel.openStream(model.get("stream_name"), (kind, header, buffers) => {
      const as = (Type, i) => new Type(buffers[i].buffer.slice(buffers[i].byteOffset, buffers[i].byteOffset + buffers[i].byteLength));
      if (kind === "recording") view.show(header, as(Int16Array, 0), as(Float32Array, 1));
      if (kind === "grid") view.setGrid(header, buffers.map((_, i) => as(Float32Array, i)));
      if (kind === "service") view.service(header);
      if (kind === "clip" && header.view === view.id) view.sound(as(Int16Array, 0));
    });
    view = new VadView(model, el, stream, `${channel.pageId}-vad-${made++}`);
    const turned = () => view.turned();
    const events = [...KNOBS.map((name) => `change:${name}`)].join(" ");
    model.on(events, turned);
    const other = () => ((view.metric.value = model.get("metric")), view.drawMaps());
    model.on("change:metric", other);
    return () => {
      model.off(events, turned);
      model.off("change:metric", other);
      view.close();
      stream.close();
    };
  }
  return { render };
};
