/**
 * View of the VAD lab.
 *
 * Kernel to page: recording {index, names, bin_ms, duration_ms, turns, pauses, constants} [int16 min/max pairs, float32
 * probabilities]; grid {metrics, thresholds, silences_ms, n_turns, marks} [float32 per metric];
 * service {segments: [[start_ms, stop_ms]]}; clip {view} [PCM16 at 24 kHz].
 * Page to kernel: show {index}; figures {threshold, silence_duration_ms, prefix_padding_ms}, replied to with
 * {rows, recommendation}; play {view, start_ms, span_ms}; action {name}.
 *
 * @typedef {import("./vad_view_model.js").Setting} Setting
 * @typedef {Setting & {channel: string, stream_name: string, metric: string, enabled: string[],
 *   status: {text: string, problem: boolean}}} State
 */
import { ClipPlayer, add, put, watch } from "./shared.js";
import { cutOffs, formatValue } from "./vad_view_model.js";
import { TimeCanvas } from "./vad_view_time.js";
import { HeatMap, TradeOffMap } from "./vad_view_maps.js";

/** @type {{name: keyof Setting, label: string, max: number, step: number, help: string}[]} */
const KNOBS = [
  { name: "threshold", label: "Threshold", max: 1, step: 0.01, help: "0 to 1. Higher needs clearer speech." },
  { name: "silence_duration_ms", label: "Silence duration (ms)", max: 2000, step: 4, help: "Longer cuts fewer people off, and answers later." },
  { name: "prefix_padding_ms", label: "Prefix padding (ms)", max: 1000, step: 10, help: "Audio kept from before the start of speech." },
];
const ACTIONS = [
  { name: "use", text: "Use recommended", title: "Show the recommended setting" },
  { name: "apply", text: "Apply to session", title: "Make the shown setting the session's turn detection" },
  { name: "compare", text: "Compare with the service", title: "Play 20 s of this recording to the service" },
  { name: "record_room_tone", text: "1. Record room tone", title: "10 s in which all are silent" },
  { name: "record_turn", text: "2. Record a turn", title: "15 s, one turn with its pauses" },
];
const RECORDING_HELP =
  "Record the silent room first, then turns as people will speak them, pauses included. " +
  "To show that at most 5 % of turns are cut off takes 59 turns or more (one-sided 95 %).";

/** Range and number field of one setting; returns what shows its value. */
function addKnob(/** @type {Element} */ parent, /** @type {typeof KNOBS[0]} */ { name, label, max, step, help }, /** @type {VadView} */ view) {
  const box = add(parent, "div", {}, label);
  const props = { min: 0, max, step, "data-lm-suppress-shortcuts": "true" }; // else JupyterLab moves to another cell
  const change = (/** @type {any} */ { target }) => target.value && view.change({ [name]: Math.min(max, Math.max(0, Number(target.value))) });
  const fields = [
    add(box, "input", { type: "range", ...props, "aria-label": label, oninput: change }),
    add(box, "input", { type: "number", ...props, "aria-label": `${label}, exact`, onchange: change }),
  ];
  add(box, "small", { className: "rtnb-faint", textContent: help });
  return () => fields.forEach((field) => put(field, "value", String(view.setting()[name])));
}

class VadView {
  asking = false;
  isStale = false;
  shownCuts = "";
  /** @type {?ClipPlayer} */
  player = null;

  constructor(/** @type {import("./types").RenderProps<State>} */ { model, el, signal }, /** @type {string} */ id) {
    this.model = model;
    this.signal = signal;
    this.id = id;
    /** @type {?import("./types").Stream} */
    this.stream = null;
    const root = add(el, "div", { className: "rtnb rtnb-vad" });
    const knobs = add(root, "div", { className: "rtnb-vad-knobs" });
    const updates = KNOBS.map((knob) => addKnob(knobs, knob, this));
    const tools = add(root, "div", { className: "rtnb-vad-tools" });
    this.picker = add(tools, "select", { "aria-label": "Recording", onchange: () => this.stream?.send("show", { index: this.picker.selectedIndex }) });
    /** @type {[string, string, () => void][]} */
    const zooms = [["−", "Zoom out", () => this.time.zoom(2)], ["+", "Zoom in", () => this.time.zoom(0.5)], ["Show all", "", () => this.time.look(0, Infinity)]];
    for (const [text, label, onclick] of zooms) add(tools, "button", { type: "button", textContent: text, onclick, "aria-label": label || text });
    add(tools, "span", { className: "rtnb-faint", textContent: "Drag the line to set the threshold; click to listen." });
    this.time = new TimeCanvas(root, this, signal);
    this.cuts = add(root, "div", { className: "rtnb-vad-cuts" });
    const maps = add(root, "div", { className: "rtnb-vad-columns" });
    const left = add(maps, "div");
    const heading = add(left, "label", {}, "Map of ");
    this.picked = add(heading, "select", { onchange: () => (model.set("metric", this.picked.value), model.save_changes()) });
    this.scale = add(heading, "span", { className: "rtnb-faint" });
    this.heat = new HeatMap(left, "One metric over threshold and silence duration.", this, signal);
    const right = add(maps, "div", {}, add(null, "label", { textContent: "Turns cut off over delay (P90); each point is one setting" }));
    this.tradeOff = new TradeOffMap(right, "Turns cut off over delay.", this, signal);
    add(root, "div", { className: "rtnb-faint", textContent: "● this setting   ■ default   ◆ recommended   □ cursor" });
    this.readout = add(root, "output", { textContent: "Point at a map, or focus it and use the arrow keys, to read its numbers." });
    const bottom = add(root, "div", { className: "rtnb-vad-columns" });
    this.table = add(add(bottom, "div"), "table");
    const side = add(bottom, "div");
    this.recommendation = add(side, "div", { className: "rtnb-message" });
    const buttons = add(side, "div", { className: "rtnb-vad-tools" });
    this.buttons = ACTIONS.map(({ name, text, title }) =>
      add(buttons, "button", { type: "button", name, textContent: text, title, onclick: () => this.stream?.request("action", { name }).catch(this.showError) }));
    add(side, "div", { className: "rtnb-faint", textContent: RECORDING_HELP });
    this.status = add(side, "div", { className: "rtnb-message rtnb-vad-status", role: "status" });
    this.update = () => (updates.forEach((update) => update()), this.time.update(), this.drawMaps(), this.listCuts(), this.ask());
  }

  open(/** @type {import("./types").Stream} */ stream) {
    this.stream = stream;
    const ends = [
      watch(this.model, KNOBS.map(({ name }) => name), this.update),
      watch(this.model, ["metric"], () => this.drawMaps()),
      watch(this.model, ["enabled"], () => this.buttons.forEach((button) => (button.disabled = !this.model.get("enabled").includes(button.name)))),
      watch(this.model, ["status"], () => this.setStatus(this.model.get("status"))),
    ];
    return () => [...ends, stream.close, () => this.player?.close()].forEach((end) => end());
  }

  /** @returns {Setting} */
  setting() {
    const [threshold, silence_duration_ms, prefix_padding_ms] = KNOBS.map(({ name }) => this.model.get(name));
    return { threshold, silence_duration_ms, prefix_padding_ms };
  }

  metric() {
    return this.model.get("metric");
  }

  change(/** @type {Partial<Setting>} */ setting) {
    for (const { name } of KNOBS) if (setting[name] !== undefined) this.model.set(name, /** @type {number} */ (setting[name]));
    this.model.save_changes();
  }

  readOut(/** @type {string} */ text) {
    put(this.readout, "textContent", text);
  }

  setStatus(/** @type {State["status"]} */ { text, problem }) {
    put(this.status, "textContent", text);
    this.status.classList.toggle("rtnb-error", problem);
  }

  play(/** @type {number} */ start_ms, /** @type {number} */ span_ms) {
    this.player ??= new ClipPlayer(() => {});
    this.stream?.send("play", { view: this.id, start_ms: Math.max(0, start_ms), span_ms });
  }

  /** Ask for the figures of all recordings; while a reply is awaited, only the newest setting is kept. */
  async ask() {
    this.isStale = true;
    if (this.asking) return;
    for (this.asking = true; this.isStale; ) {
      this.isStale = false;
      await this.stream?.request("figures", this.setting()).then(this.showFigures).catch(this.showError);
    }
    this.asking = false;
  }

  showError = (/** @type {Error} */ { message }) => this.setStatus({ text: message, problem: true });

  showFigures = (/** @type {{rows: string[][], recommendation: string[]}} */ { rows, recommendation }) => {
    const [head, ...body] = rows.map((cells, i) =>
      add(null, "tr", {}, ...cells.map((textContent, k) => add(null, i && k ? "td" : "th", { textContent, scope: i ? "row" : "col" }))));
    this.table.replaceChildren(add(null, "thead", {}, ...(head ? [head] : [])), add(null, "tbody", {}, ...body));
    put(this.recommendation, "textContent", recommendation.join("\n"));
  };

  showRecording(/** @type {any} */ header, /** @type {Int16Array} */ peaks, /** @type {Float32Array} */ probabilities) {
    this.picker.replaceChildren(...header.names.map((/** @type {string} */ name) => new Option(name)));
    this.picker.selectedIndex = header.index;
    this.time.show({ ...header, peaks, probabilities });
    this.listCuts();
    this.ask();
  }

  listCuts() {
    const { recording, segments } = this.time;
    if (!recording) return;
    const [cut, n] = [cutOffs(segments, recording.turns), recording.turns.length];
    const text = n ? `${cut.length} of ${n} turn${n === 1 ? "" : "s"} cut off in this recording` : `${segments.length} false starts in this recording`;
    const shown = [text, ...cut.map(({ stop_ms }) => stop_ms)].join(" ");
    if (this.shownCuts === shown) return;
    this.shownCuts = shown;
    this.cuts.replaceChildren(text);
    for (const { turn, stop_ms } of cut.slice(0, 12)) {
      const name = `Play turn ${turn + 1} at ${(stop_ms / 1000).toFixed(2)} s`;
      add(this.cuts, "button", { type: "button", textContent: name, onclick: () => this.play(stop_ms - 1500, 3000) });
    }
  }

  showGrid(/** @type {any} */ header, /** @type {Float32Array[]} */ values) {
    /** @type {import("./vad_view_maps.js").Grid["metrics"]} */
    const metrics = header.metrics;
    const grid = { ...header, values: Object.fromEntries(metrics.map(({ name }, i) => [name, values[i]])) };
    this.picked.replaceChildren(...metrics.map(({ name, label }) => new Option(label, name)));
    this.heat.show(grid);
    this.tradeOff.show(grid);
    this.drawMaps();
  }

  drawMaps() {
    const unit = this.heat.grid.metrics.find(({ name }) => name === this.metric())?.unit ?? "";
    const [low, high] = this.heat.range;
    put(this.picked, "value", this.metric());
    put(this.scale, "textContent", ` light ${formatValue(low, unit)}, dark ${formatValue(high, unit)}`);
    this.heat.draw();
    this.tradeOff.draw();
  }
}

let views = 0;

/** @param {import("./types").RenderProps<State>} props */
async function render(props) {
  const { exports: channel } = await props.host.getWidget(props.model.get("channel"));
  const view = new VadView(props, `${channel.pageId}-vad-${views++}`);
  /** @type {import("./types").OnMessage} */
  const onMessage = (kind, header, buffers) => {
    const copies = buffers.map((one) => one.buffer.slice(one.byteOffset, one.byteOffset + one.byteLength));
    if (kind === "recording") view.showRecording(header, new Int16Array(copies[0]), new Float32Array(copies[1]));
    if (kind === "grid") view.showGrid(header, copies.map((one) => new Float32Array(one)));
    if (kind === "service") (view.time.service = header.segments), view.time.draw();
    if (kind === "clip" && header.view === view.id) view.player?.play(new Int16Array(copies[0]));
  };
  return view.open(channel.openStream(props.model.get("stream_name"), onMessage));
}

export default { render };
