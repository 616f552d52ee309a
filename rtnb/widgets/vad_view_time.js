/** One recording over time: waveform, speech probability with a threshold to drag, labels, local model and service. */
import { TimeCanvas, axis, put, save } from "./shared.js";
import { writeText } from "./vad_view_maps.js";

/**
 * @typedef {import("./shared.js").Drawing} Drawing
 * @typedef {[from_ms: number, to_ms: ?number]} Span null where it has no end
 * @typedef {{duration_ms: number, turns: Span[], pauses: Span[], bin_ms: number, frame_ms: number, levels: [number, number][],
 *   peaks: Int16Array, probabilities: Float32Array}} Recording
 *   `levels` are the probabilities that start and end speech, for thresholds of 0.00, 0.01 … 1
 * @typedef {{model: any, readout: HTMLElement, play: (from_ms: number) => void}} Page
 */

const WAVE = { top: 18, height: 50 };
const CURVE = { top: 74, height: 92 };
const LANES = { top: 177, height: 13, step: 17 };
const TIME_KEYS = "Left and right move the cursor, Enter plays 3 seconds, + and - zoom.";

export class RecordingCanvas extends TimeCanvas {
  /** @type {?Recording} */
  recording = null;
  /** @type {?number} */
  cursor_ms = null;
  grabbed = false; // the line of the threshold

  constructor(/** @type {Element} */ parent, /** @type {Page} */ page, /** @type {AbortSignal} */ signal) {
    super(parent, LANES.top + 3 * LANES.step, `Recording over time. ${TIME_KEYS}`, signal);
    this.page = page;
    this.canvas.addEventListener("pointerdown", (event) => {
      this.grabbed = this.isOnThreshold(event);
      if (this.grabbed) this.drag = null;
    });
    this.canvas.addEventListener("pointermove", (event) => {
      this.canvas.style.cursor = this.grabbed || this.isOnThreshold(event) ? "ns-resize" : "crosshair";
      const threshold = 1 - (event.offsetY - CURVE.top) / CURVE.height;
      if (this.grabbed) save(page.model, { threshold: Number(Math.min(1, Math.max(0, threshold)).toFixed(2)) });
    });
    this.canvas.addEventListener("pointerup", () => (this.grabbed = false));
  }

  hover(/** @type {number} */ ms) { this.setCursor(ms); }

  pick(/** @type {number} */ ms) { this.page.play(ms); }

  get longest_ms() { return this.recording?.duration_ms ?? 1; }

  onPress(/** @type {string} */ key) {
    const at_ms = this.cursor_ms ?? this.start_ms + this.span_ms / 2;
    if (key === "ArrowLeft") this.setCursor(at_ms - this.span_ms / 50);
    else if (key === "ArrowRight") this.setCursor(at_ms + this.span_ms / 50);
    else if (key === "Enter") this.page.play(at_ms);
    else if (key === "+" || key === "-") this.zoom(key === "+" ? 0.5 : 2, at_ms);
    else return false;
    return true;
  }

  /** Move the cursor, bring it into view, and read out the probability there. */
  setCursor(/** @type {number} */ ms) {
    if (!this.recording) return;
    this.cursor_ms = Math.min(this.recording.duration_ms, Math.max(0, ms));
    this.look(Math.min(this.cursor_ms, Math.max(this.start_ms, this.cursor_ms - this.span_ms)), this.span_ms);
    const p = this.recording.probabilities[Math.floor(this.cursor_ms / this.recording.frame_ms)] ?? 0;
    put(this.page.readout, { textContent: `${(this.cursor_ms / 1000).toFixed(2)} s · speech probability ${p.toFixed(2)}` });
  }

  /** Pixel rows of the probabilities that start and end speech. */
  levels() {
    const levels = this.recording?.levels[Math.round(100 * this.page.model.get("threshold"))] ?? [];
    return levels.map((p) => CURVE.top + (1 - p) * CURVE.height);
  }

  isOnThreshold(/** @type {PointerEvent} */ event) {
    return Math.abs(event.offsetY - this.levels()[0]) < 7;
  }

  show(/** @type {Recording} */ recording) {
    Object.assign(this, { recording, cursor_ms: null });
    this.look(0, recording.duration_ms);
  }

  paint(/** @type {Drawing} */ drawing) {
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
    const { segments = [], cut_offs_ms = [] } = this.page.model.get("figures");
    const service = this.page.model.get("service");
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

  /** Draw, for each pixel, the extremes of the waveform and the highest probability; then the thresholds. */
  paintSignals(/** @type {Drawing} */ { g, width, color }, /** @type {Recording} */ { peaks, bin_ms, probabilities, frame_ms }) {
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
