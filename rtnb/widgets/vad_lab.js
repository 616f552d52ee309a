/**
 * View of the VAD lab: one recording over time, with a threshold to drag, labels, local model and service; below it pictures of
 * all settings. A clip to play: message {play_ms, view} → [PCM16 at 24 kHz].
 *
 * @typedef {[from_ms: number, to_ms: ?number]} Span null where it has no end
 * @typedef {{duration_ms: number, turns: Span[], pauses: Span[], bin_ms: number, frame_ms: number, levels: [number, number][],
 *   peaks: Int16Array, probabilities: Float32Array}} Recording
 *   `levels` are the probabilities that start and end speech, for thresholds of 0.00, 0.01 … 1
 * @typedef {{segments?: Span[], cut_offs_ms?: number[], marks?: (?{left: string, bottom: string})[]}} Figures of the
 *   shown setting; `marks` are its places in the maps, null where it has none
 * @typedef {{threshold: number, recording: any, maps: {src: string, alt: string}[], figures: Figures, service: Span[]}} State
 */
import { ClipPlayer, TimeCanvas, add, axis, button, put, save, watch } from "./shared.js";

const WAVE = { top: 18, height: 50 };
const CURVE = { top: 74, height: 92 };
const LANES = { top: 177, height: 13, step: 17 };
const KEYS = "Left and right move the cursor, Enter plays 3 seconds, + and - zoom.";
const bytes = (/** @type {DataView} */ data) => data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength); // aligned

/**
 * Write a text with a halo, readable on any background.
 * @type {(drawing: import("./shared.js").Drawing, text: string, x: number, y: number) => void}
 */
const writeText = ({ g, color }, text, x, y) => {
  Object.assign(g, { strokeStyle: color("back"), fillStyle: color("text"), lineWidth: 3, lineJoin: "round" });
  g.strokeText(text, x, y);
  g.fillText(text, x, y);
};

class VadView extends TimeCanvas {
  /** @type {?Recording} */
  recording = null;
  /** @type {?number} */
  cursor_ms = null;
  grabbed = false; // the line of the threshold
  /** @type {?ClipPlayer} */
  player = null;
  id = crypto.getRandomValues(new Uint32Array(1))[0];

  /** @param {import("./types").RenderProps<State>} props */
  constructor({ model, el, signal }) {
    const root = add(el, "div", { className: "rtnb rtnb-vad" });
    super(root, LANES.top + 3 * LANES.step, `Recording over time. ${KEYS}`, signal);
    this.model = model;
    this.signal = signal;
    const tools = add(root, "div", { className: "rtnb-vad-tools" });
    button(tools, "−", () => this.zoom(2), { "aria-label": "Zoom out" });
    button(tools, "+", () => this.zoom(0.5), { "aria-label": "Zoom in" });
    this.next = button(tools, "Play next cut-off", () => this.playCutOff());
    this.cutOffs = add(tools, "span");
    this.readout = add(root, "output", { textContent: KEYS });
    const maps = add(root, "div", { className: "rtnb-vad-maps" });
    this.maps = [0, 1].map(() => {
      const box = add(maps, "div");
      return { picture: add(box, "img"), mark: add(box, "b", { textContent: "●" }) };
    });
    this.canvas.addEventListener("pointerdown", (event) => {
      this.grabbed = this.isOnThreshold(event);
      if (this.grabbed) this.drag = null;
    });
    this.canvas.addEventListener("pointermove", (event) => {
      this.canvas.style.cursor = this.grabbed || this.isOnThreshold(event) ? "ns-resize" : "crosshair";
      const threshold = 1 - (event.offsetY - CURVE.top) / CURVE.height;
      if (this.grabbed) save(model, { threshold: Number(Math.min(1, Math.max(0, threshold)).toFixed(2)) });
    });
    this.canvas.addEventListener("pointerup", () => (this.grabbed = false));
    const onClip = (/** @type {any} */ { view }, /** @type {DataView[]} */ [pcm]) => {
      if (view === this.id) this.player?.play(new Int16Array(bytes(pcm)));
    };
    model.on("msg:custom", onClip);
    signal.addEventListener("abort", () => model.off("msg:custom", onClip));
    watch(model, ["recording"], () => this.showRecording(), signal);
    watch(model, ["threshold", "figures", "service"], () => this.showFigures(), signal);
    watch(model, ["maps", "figures"], () => this.showMaps(), signal);
  }

  hover(/** @type {number} */ ms) { this.setCursor(ms); }

  pick(/** @type {number} */ ms) { this.play(ms); }

  get longest_ms() { return this.recording?.duration_ms ?? 1; }

  get moment_ms() { return this.cursor_ms ?? this.start_ms + this.span_ms / 2; }

  go(/** @type {?number} */ ms) { if (ms !== null) this.setCursor(ms); }

  enter(/** @type {number} */ ms) { this.play(ms); }

  /** Move the cursor, bring it into view, and read out the probability there. */
  setCursor(/** @type {number} */ ms) {
    if (!this.recording) return;
    this.cursor_ms = Math.min(this.recording.duration_ms, Math.max(0, ms));
    this.look(Math.min(this.cursor_ms, Math.max(this.start_ms, this.cursor_ms - this.span_ms)), this.span_ms);
    const p = this.recording.probabilities[Math.floor(this.cursor_ms / this.recording.frame_ms)] ?? 0;
    put(this.readout, { textContent: `${(this.cursor_ms / 1000).toFixed(2)} s · speech probability ${p.toFixed(2)}` });
  }

  play(/** @type {number} */ from_ms) {
    if (!this.recording) return;
    this.player ??= new ClipPlayer(this.signal);
    this.model.send({ play_ms: Math.max(0, from_ms), view: this.id });
  }

  /** Play the next cut-off after the cursor, from 1.5 s before it. */
  playCutOff() {
    const { cut_offs_ms = [] } = this.model.get("figures");
    const stop_ms = cut_offs_ms.find((ms) => ms > (this.cursor_ms ?? 0)) ?? cut_offs_ms[0];
    this.setCursor(stop_ms);
    this.play(stop_ms - 1500);
  }

  showRecording() {
    const { peaks, probabilities, ...recording } = this.model.get("recording");
    if (!peaks) return;
    this.recording = { ...recording, peaks: new Int16Array(bytes(peaks)), probabilities: new Float32Array(bytes(probabilities)) };
    this.cursor_ms = null;
    this.look(0, recording.duration_ms);
  }

  showFigures() {
    const { turns = [] } = this.model.get("recording");
    const { cut_offs_ms = [], segments = [] } = this.model.get("figures");
    const cut = `Turns cut off in this recording: ${cut_offs_ms.length} of ${turns.length}`;
    put(this.cutOffs, { textContent: turns.length ? cut : `False starts in this recording: ${segments.length}` });
    put(this.next, { disabled: !cut_offs_ms.length });
    this.draw();
  }

  showMaps() {
    const { marks = [] } = this.model.get("figures");
    this.maps.forEach(({ picture, mark }, i) => {
      const map = this.model.get("maps")[i];
      put(picture, { hidden: !map, ...map });
      put(mark, { hidden: !marks[i] });
      put(mark.style, marks[i] ?? {});
    });
  }

  /** Pixel rows of the probabilities that start and end speech. */
  levels() {
    const levels = this.recording?.levels[Math.round(100 * this.model.get("threshold"))] ?? [];
    return levels.map((p) => CURVE.top + (1 - p) * CURVE.height);
  }

  isOnThreshold(/** @type {PointerEvent} */ event) {
    return Math.abs(event.offsetY - this.levels()[0]) < 7;
  }

  paint(/** @type {import("./shared.js").Drawing} */ drawing) {
    if (!this.recording) return;
    const { duration_ms, turns, pauses } = this.recording;
    const { g, width, color } = drawing;
    const x = (/** @type {number} */ ms) => Math.min(width + 1, Math.max(-1, ((ms - this.start_ms) * width) / this.span_ms));
    /** @type {(name: string, alpha: number, top: number, height: number, spans: Span[]) => void} */
    const bars = (name, alpha, top, height, spans) => {
      Object.assign(g, { fillStyle: color(name), globalAlpha: alpha });
      for (const [from, to] of spans) g.fillRect(x(from), top, Math.max(1.5, x(to ?? duration_ms) - x(from)), height);
      g.globalAlpha = 1;
    };
    bars("good", 0.12, WAVE.top, LANES.top - WAVE.top, turns);
    this.paintSignals(drawing, this.recording);
    const { segments = [], cut_offs_ms = [] } = this.model.get("figures");
    const service = this.model.get("service");
    const names = [`Labels: ${turns.length} turn${turns.length === 1 ? "" : "s"}`, "Local model", service.length ? "Service" : "Service: not compared yet"];
    [turns, segments, service].forEach((spans, i) => {
      const top = LANES.top + i * LANES.step;
      bars("raised", 1, top, LANES.height, [[0, duration_ms]]);
      bars(["good", "accent", "warn"][i], 0.8, top, LANES.height, spans);
      if (i === 0) bars("back", 1, top + 4, LANES.height - 8, pauses);
      writeText(drawing, names[i], 4, top + 10);
    });
    bars("bad", 1, WAVE.top, this.height, cut_offs_ms.map((/** @type {number} */ ms) => [ms, ms]));
    if (this.cursor_ms !== null) bars("text", 0.7, 16, this.height, [[this.cursor_ms, this.cursor_ms]]);
    writeText(drawing, "Speech probability", 4, CURVE.top + CURVE.height - 4);
    axis(g, this, { right: width, height: 20, line: color("border"), text: color("text") });
  }

  /**
   * Draw, for each pixel, the extremes of the waveform and the highest probability; then the thresholds.
   * @type {(drawing: import("./shared.js").Drawing, recording: Recording) => void}
   */
  paintSignals({ g, width, color }, { peaks, bin_ms, probabilities, frame_ms }) {
    const scale = WAVE.height / 2 / peaks.reduce((most, value) => Math.max(most, Math.abs(value)), 1600);
    const index = (/** @type {number} */ x, /** @type {number} */ step_ms) => Math.floor(this.timeAt(x) / step_ms);
    g.fillStyle = color("faint");
    g.beginPath();
    for (let x = 0; x < width; x++) {
      const columns = peaks.subarray(2 * index(x, bin_ms), 2 * Math.max(index(x, bin_ms) + 1, index(x + 1, bin_ms)));
      const [low, high] = [Math.min(0, ...columns), Math.max(0, ...columns)];
      g.fillRect(x, WAVE.top + WAVE.height / 2 - high * scale, 1, Math.max(1, (high - low) * scale));
      const likely = probabilities.subarray(index(x, frame_ms), Math.max(index(x, frame_ms) + 1, index(x + 1, frame_ms)));
      g.lineTo(x, CURVE.top + (1 - Math.max(0, ...likely)) * CURVE.height);
    }
    Object.assign(g, { strokeStyle: color("accent"), lineWidth: 1.25, fillStyle: color("text") });
    g.stroke();
    const [high, low] = this.levels();
    g.fillRect(0, high - 0.75, width, 1.5);
    g.fillRect(width - 26, high - 3, 18, 6); // handle
    for (let x = 0; x < width; x += 6) g.fillRect(x, low - 0.5, 3, 1);
  }
}

export default { render: (/** @type {import("./types").RenderProps<State>} */ props) => void new VadView(props) };
