/**
 * View of the VAD lab: one recording over time, and maps of all settings. A clip to play: message {play_ms, view} → [PCM16 at 24 kHz].
 *
 * @typedef {import("./vad_view_maps.js").Grid} Grid
 * @typedef {import("./vad_view_time.js").Recording} Recording
 * @typedef {import("./vad_view_time.js").Span} Span
 * @typedef {{segments?: Span[], cut_offs_ms?: number[], marks?: Record<string, ?number>[]}} Figures of the shown setting
 * @typedef {{threshold: number, silence_duration_ms: number, recording: any, grid: any, figures: Figures, service: Span[]}} State
 */
import { ClipPlayer, add, button, put, save, watch } from "./shared.js";
import { RecordingCanvas } from "./vad_view_time.js";
import { HeatMap, SettingMap, formatValue, range } from "./vad_view_maps.js";

const LEGEND = "● this setting   ■ default   ◆ recommended   □ cursor   · left map: threshold ↑, silence duration →";
const bytes = (/** @type {DataView} */ data) => data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength); // aligned

class VadView {
  /** @type {Grid} */
  grid = { columns: [], n_silences: 1, front: [] };
  /** @type {?number} index of the setting under the cursor */
  cursor = null;
  /** @type {?ClipPlayer} */
  player = null;

  /** @param {import("./types").RenderProps<State>} props */
  constructor({ model, el, signal }) {
    this.model = model;
    this.signal = signal;
    this.id = crypto.getRandomValues(new Uint32Array(1))[0];
    const root = add(el, "div", { className: "rtnb rtnb-vad" });
    this.time = new RecordingCanvas(root, this, signal);
    const tools = add(root, "div", { className: "rtnb-vad-tools" });
    button(tools, "−", () => this.time.zoom(2), { "aria-label": "Zoom out" });
    button(tools, "+", () => this.time.zoom(0.5), { "aria-label": "Zoom in" });
    this.next = button(tools, "Play next cut-off", () => this.playCutOff());
    this.cutOffs = add(tools, "span");
    const maps = add(root, "div", { className: "rtnb-vad-columns" });
    this.metric = add(null, "select", { onchange: () => this.showMetric() });
    this.scale = add(null, "span", { className: "rtnb-faint" });
    const left = add(maps, "div", {}, add(null, "label", {}, "Map of", this.metric, this.scale));
    const right = add(maps, "div", {}, add(null, "label", {}, "Turns cut off over delay (P90); each point is one setting"));
    this.heat = new HeatMap(left, "One metric over threshold and silence duration", this, signal);
    this.tradeOff = new SettingMap(right, "Turns cut off over delay", this, signal);
    add(root, "div", { className: "rtnb-faint", textContent: LEGEND });
    this.readout = add(root, "output", { textContent: "Point at a map, or focus it and use the arrow keys, to read its numbers." });
    const onClip = (/** @type {any} */ { view }, /** @type {DataView[]} */ [pcm]) => {
      if (view === this.id) this.player?.play(new Int16Array(bytes(pcm)));
    };
    model.on("msg:custom", onClip);
    signal.addEventListener("abort", () => model.off("msg:custom", onClip));
    watch(model, ["recording"], () => this.showRecording(), signal);
    watch(model, ["grid"], () => this.showGrid(), signal);
    watch(model, ["threshold", "figures", "service"], () => this.draw(), signal);
  }

  /** @returns {Record<string, ?number>[]} */
  get marks() { return this.model.get("figures").marks ?? []; }

  draw() {
    const { turns = [] } = this.model.get("recording");
    const { cut_offs_ms = [], segments = [] } = this.model.get("figures");
    const cut = `Turns cut off in this recording: ${cut_offs_ms.length} of ${turns.length}`;
    put(this.cutOffs, { textContent: turns.length ? cut : `False starts in this recording: ${segments.length}` });
    put(this.next, { disabled: !cut_offs_ms.length });
    for (const canvas of [this.heat, this.tradeOff, this.time]) canvas.draw();
  }

  play(/** @type {number} */ from_ms) {
    if (!this.time.recording) return;
    this.player ??= new ClipPlayer(this.signal);
    this.model.send({ play_ms: Math.max(0, from_ms), view: this.id });
  }

  /** Play the next cut-off after the cursor, from 1.5 s before it. */
  playCutOff() {
    const { cut_offs_ms = [] } = this.model.get("figures");
    const stop_ms = cut_offs_ms.find((ms) => ms > (this.time.cursor_ms ?? 0)) ?? cut_offs_ms[0];
    this.time.setCursor(stop_ms);
    this.play(stop_ms - 1500);
  }

  /** Move the cursor of both maps and read out the numbers of its setting. */
  setCursor(/** @type {?number} */ index) {
    this.cursor = index;
    if (index !== null) {
      const known = this.grid.columns.filter(({ values }) => isFinite(values[index]));
      const facts = known.map(({ label, unit, values }) => `${label} ${formatValue(values[index], unit)}`);
      put(this.readout, { textContent: facts.join(" · ") });
    }
    this.draw();
  }

  /** Take the setting under the cursor. */
  take() {
    if (this.cursor === null) return;
    const [threshold, silence_duration_ms] = this.grid.columns.map(({ values }) => values[this.cursor ?? 0]);
    save(this.model, { threshold: Number(threshold.toFixed(2)), silence_duration_ms });
  }

  showRecording() {
    const { peaks, probabilities, ...recording } = this.model.get("recording");
    if (peaks) this.time.show({ ...recording, peaks: new Int16Array(bytes(peaks)), probabilities: new Float32Array(bytes(probabilities)) });
  }

  showGrid() {
    const { columns = [], ...grid } = this.model.get("grid");
    this.grid = { ...grid, columns: columns.map((/** @type {any} */ one) => ({ ...one, values: new Float32Array(bytes(one.values)) })) };
    const [threshold, silence, ...metrics] = this.grid.columns;
    if (!threshold) return;
    const chosen = Math.max(0, this.metric.selectedIndex);
    this.metric.replaceChildren(...metrics.map(({ label }) => new Option(label)));
    this.metric.selectedIndex = chosen;
    this.heat.show(silence, threshold);
    const [delay, cut_off] = ["delay_p90_ms", "cut_off_rate"].map((name) => metrics.filter((one) => one.name === name)[0]);
    this.tradeOff.show(delay, cut_off);
    this.setCursor(null);
    this.showMetric();
  }

  showMetric() {
    const metric = this.grid.columns[2 + this.metric.selectedIndex];
    const [low, high] = range(metric.values);
    put(this.scale, { textContent: `light ${formatValue(low, metric.unit)}, dark ${formatValue(high, metric.unit)}` });
    this.heat.metric = metric;
    this.heat.draw();
  }
}

export default { render: (/** @type {import("./types").RenderProps<State>} */ props) => void new VadView(props) };
