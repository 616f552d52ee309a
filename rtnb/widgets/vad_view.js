/**
 * View of the VAD lab.
 *
 * Kernel to page: recording {index, names, duration_ms, turns, pauses, turn_gap_ms, bin_ms, frame_ms, levels} [int16 min/max pairs,
 * float32 probabilities]; grid {metrics, thresholds, silences_ms, n_turns, marks, maps} [float32 per metric, then x and y of each map];
 * service {segments: [[start_ms, stop_ms]]}.
 * Page to kernel: show {index}; split {index, turn_gap_ms}; figures {threshold, silence_duration_ms, prefix_padding_ms}, replied
 * to with {index, position, segments, cut_offs, rows, recommendation}; play {start_ms, span_ms} → [PCM16 at 24 kHz]; action {name}.
 *
 * @typedef {import("./vad_view_maps.js").Setting} Setting
 * @typedef {import("./vad_view_maps.js").Grid} Grid
 * @typedef {import("./vad_view_time.js").Span} Span
 * @typedef {Setting & {channel: string, stream_name: string, metric: string, enabled: string[],
 *   status: {text: string, problem: boolean}}} State
 * @typedef {{index: number, position: number, segments: Span[], cut_offs: [turn: number, stop_ms: number][], rows: string[][],
 *   recommendation: string[]}} Figures
 */
import { ClipPlayer, add, button, int16, keepTyping, onChannel, put, save, watch } from "./shared.js";
import { RecordingCanvas } from "./vad_view_time.js";
import { HeatMap, SettingMap, formatValue } from "./vad_view_maps.js";

/** @type {{name: keyof Setting, label: string, max: number, step: number, help: string}[]} */
const KNOBS = [
  { name: "threshold", label: "Threshold", max: 1, step: 0.01, help: "0 to 1. Higher needs clearer speech." },
  { name: "silence_duration_ms", label: "Silence duration (ms)", max: 2000, step: 4, help: "Longer cuts fewer people off, and answers later." },
  { name: "prefix_padding_ms", label: "Prefix padding (ms)", max: 1000, step: 10, help: "Audio kept from before the start of speech." },
];
const ACTIONS = [
  { name: "use", textContent: "Use recommended", title: "Show the recommended setting" },
  { name: "apply", textContent: "Apply to session", title: "Make the shown setting the session's turn detection" },
  { name: "compare", textContent: "Compare with the service", title: "Play 20 s of this recording to the service" },
  { name: "record_room_tone", textContent: "1. Record room tone", title: "10 s in which all are silent" },
  { name: "record_turn", textContent: "2. Record a turn", title: "15 s, one turn with its pauses" },
];

const SIGNS = "● this setting   ■ default   ◆ recommended   □ cursor   · left map: threshold ↑, silence duration →";
const RECORDING = "Record the silent room first, then turns as people will speak them, pauses included. To show that at most 5 % of turns "
  + "are cut off takes 59 turns or more (one-sided 95 %), in 8 recordings or more.";

class VadView {
  asking = false;
  isStale = false;
  /** @type {?ClipPlayer} */
  player = null;
  /** @type {(() => void)[]} called when the shown setting changes */
  updates = [];

  /** @param {import("./types").ViewProps<State>} props */
  constructor({ model, el, channel, signal }) {
    this.model = model;
    this.signal = signal;
    this.stream = channel.openStream(model.get("stream_name"), (...message) => this.onMessage(...message), signal);
    const root = add(el, "div", { className: "rtnb rtnb-vad" });
    const knobs = add(root, "div", { className: "rtnb-vad-knobs" });
    for (const knob of KNOBS) this.addKnob(knobs, knob);
    const tools = add(root, "div", { className: "rtnb-vad-tools" });
    const onPick = () => this.stream.send("show", { index: this.picker.selectedIndex });
    this.picker = add(tools, "select", { "aria-label": "Recording", onchange: onPick });
    const zoom = (/** @type {number} */ factor) => this.time.zoom(factor, this.time.cursor_ms ?? undefined);
    button(tools, "−", () => zoom(2), { "aria-label": "Zoom out" });
    button(tools, "+", () => zoom(0.5), { "aria-label": "Zoom in" });
    button(tools, "Show all", () => zoom(1e9));
    const onSplit = () => {
      const header = { index: this.picker.selectedIndex, turn_gap_ms: Number(this.gap.value) };
      if (this.gap.value) this.stream.send("split", header);
    };
    const gapProps = { type: "number", min: 0, step: 100, title: "A silence at least this long separates two turns.", onchange: onSplit };
    this.gap = add(null, "input", gapProps);
    keepTyping(this.gap);
    add(tools, "label", {}, "Turn gap (ms)", this.gap);
    add(tools, "span", { className: "rtnb-faint", textContent: "Drag the line to set the threshold; click to listen." });
    this.time = new RecordingCanvas(root, this, signal);
    const cuts = add(root, "div", { className: "rtnb-vad-tools" });
    this.cutOffs = add(cuts, "span");
    this.next = button(cuts, "Play next cut-off", () => this.playCutOff(), { disabled: true });
    const maps = add(root, "div", { className: "rtnb-vad-columns" });
    this.metric = add(null, "select", { onchange: () => save(model, { metric: this.metric.value }) });
    this.scale = add(null, "span", { className: "rtnb-faint" });
    const left = add(maps, "div", {}, add(null, "label", {}, "Map of", this.metric, this.scale));
    const right = add(maps, "div", {}, add(null, "label", {}, "Turns cut off over delay (P90); each point is one setting"));
    this.heat = new HeatMap(left, "One metric over threshold and silence duration", this, signal);
    this.tradeOff = new SettingMap(right, "Turns cut off over delay", this, signal);
    this.tradeOff.metrics = ["cut_off_rate", "delay_p90_ms"];
    add(root, "div", { className: "rtnb-faint", textContent: SIGNS });
    this.readout = add(root, "output", { textContent: "Point at a map, or focus it and use the arrow keys, to read its numbers." });
    this.table = add(null, "table");
    this.recommendation = add(null, "div", { className: "rtnb-message" });
    this.buttons = ACTIONS.map((props) => add(null, "button", { type: "button", onclick: () => this.act(props.name), ...props }));
    const buttons = add(null, "div", { className: "rtnb-vad-tools" }, ...this.buttons);
    const help = add(null, "div", { className: "rtnb-faint", textContent: RECORDING });
    this.status = add(null, "div", { className: "rtnb-message rtnb-vad-status", role: "status" });
    const side = add(null, "div", {}, this.recommendation, buttons, help, this.status);
    add(root, "div", { className: "rtnb-vad-columns" }, add(null, "div", {}, this.table), side);
    watch(model, KNOBS.map(({ name }) => name), () => (this.updates.forEach((update) => update()), this.time.draw(), this.ask()), signal);
    watch(model, ["metric"], () => this.showMetric(), signal);
    const enable = () => this.buttons.forEach((action) => (action.disabled = !model.get("enabled").includes(action.name)));
    watch(model, ["enabled"], enable, signal);
    watch(model, ["status"], () => this.setStatus(model.get("status")), signal);
  }

  /** Add a range and a number field of one setting. */
  addKnob(/** @type {Element} */ parent, /** @type {typeof KNOBS[0]} */ { name, label, max, step, help }) {
    const box = add(parent, "div", {}, label);
    const onChange = (/** @type {any} */ { target }) => target.value && this.change({ [name]: Number(target.value) });
    const props = { min: 0, max, step, "data-lm-suppress-shortcuts": "true" }; // else JupyterLab moves to another cell
    const range = add(box, "input", { type: "range", ...props, "aria-label": label, oninput: onChange });
    const number = add(box, "input", { type: "number", ...props, "aria-label": `${label}, exact`, onchange: onChange });
    add(box, "small", { className: "rtnb-faint", textContent: help });
    this.updates.push(() => [range, number].forEach((field) => put(field, { value: String(this.model.get(name)) })));
  }

  /** @returns {any} */
  setting() {
    return Object.fromEntries(KNOBS.map(({ name }) => [name, this.model.get(name)]));
  }

  change(/** @type {Partial<Setting>} */ setting) {
    for (const { name, max } of KNOBS) {
      const value = setting[name];
      if (value !== undefined) this.model.set(name, Number(Math.min(max, Math.max(0, value)).toFixed(2)));
    }
    this.model.save_changes();
  }

  readOut(/** @type {string} */ text) {
    put(this.readout, { textContent: text });
  }

  setStatus(/** @type {State["status"]} */ { text, problem }) {
    put(this.status, { textContent: text });
    this.status.classList.toggle("rtnb-error", problem);
  }

  act(/** @type {string} */ name) {
    this.stream.request("action", { name }).catch(({ message }) => this.setStatus({ text: message, problem: true }));
  }

  play(/** @type {number} */ start_ms, /** @type {number} */ span_ms) {
    this.player ??= new ClipPlayer(this.signal);
    const clip = this.stream.request("play", { start_ms: Math.max(0, start_ms), span_ms });
    const failed = (/** @type {Error} */ { message }) => this.setStatus({ text: message, problem: true });
    clip.then(({ buffers: [pcm] }) => this.player?.play(int16(pcm)), failed);
  }

  /** Ask for the figures of the shown setting; while a reply is awaited, only the newest setting is kept. */
  async ask() {
    this.isStale = true;
    if (this.asking) return;
    for (this.asking = true; this.isStale; ) {
      this.isStale = false;
      const reply = this.stream.request("figures", this.setting());
      await reply.then((figures) => this.showFigures(figures)).catch(({ message }) => this.setStatus({ text: message, problem: true }));
    }
    this.asking = false;
  }

  showFigures(/** @type {Figures} */ { index, position, rows, recommendation, ...model }) {
    const [head, ...body] = rows.map((cells, i) =>
      add(null, "tr", {}, ...cells.map((textContent, k) => add(null, i && k ? "td" : "th", { textContent, scope: i ? "row" : "col" }))));
    this.table.replaceChildren(add(null, "thead", {}, head ?? ""), add(null, "tbody", {}, ...body));
    put(this.recommendation, { textContent: recommendation.join("\n") });
    this.heat.position = this.tradeOff.position = position;
    if (index === this.time.recording?.index) {
      this.time.model = model;
      const [n_cut, n_turns] = [model.cut_offs.length, this.time.recording.turns.length];
      const text = n_turns ? `Turns cut off in this recording: ${n_cut} of ${n_turns}` : `False starts in this recording: ${model.segments.length}`;
      put(this.cutOffs, { textContent: text });
      this.next.disabled = !model.cut_offs.length;
    }
    [this.heat, this.tradeOff, this.time].forEach((canvas) => canvas.draw());
  }

  /** Play the next cut-off after the cursor, from 1.5 s before it. */
  playCutOff() {
    const { cut_offs } = this.time.model;
    const [, stop_ms] = cut_offs.find(([, ms]) => ms > (this.time.cursor_ms ?? 0)) ?? cut_offs[0];
    this.time.setCursor(stop_ms);
    this.play(stop_ms - 1500, 3000);
  }

  showMetric() {
    this.heat.metrics = [this.model.get("metric")];
    const { unit, low, high } = this.heat.shown;
    put(this.metric, { value: this.model.get("metric") });
    put(this.scale, { textContent: `light ${formatValue(low, unit)}, dark ${formatValue(high, unit)}` });
    this.heat.draw();
  }

  /** @type {import("./types").OnMessage} */
  onMessage(kind, header, buffers) {
    const floats = (/** @type {number} */ i) => new Float32Array(int16(buffers[i]).slice().buffer);
    if (kind === "recording") {
      this.picker.replaceChildren(...header.names.map((/** @type {string} */ name) => new Option(name)));
      this.picker.selectedIndex = header.index;
      put(this.gap, { value: String(header.turn_gap_ms ?? "") });
      this.time.show({ ...header, peaks: int16(buffers[0]), probabilities: floats(1) });
      this.ask();
    } else if (kind === "grid") {
      /** @type {Grid} */
      const grid = { ...header, values: {} };
      grid.metrics.forEach(({ name }, i) => (grid.values[name] = floats(i)));
      const n = grid.metrics.length;
      this.metric.replaceChildren(...grid.metrics.map(({ name, label }) => new Option(label, name)));
      [this.heat, this.tradeOff].forEach((map, i) => map.show(grid, { ...grid.maps[i], x: floats(n + 2 * i), y: floats(n + 2 * i + 1) }));
      this.showMetric();
    } else if (kind === "service") {
      this.time.service = header.segments;
      this.time.draw();
    }
  }
}

export default onChannel((/** @type {import("./types").ViewProps<State>} */ props) => void new VadView(props));
