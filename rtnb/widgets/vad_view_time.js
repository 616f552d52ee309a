/** One recording over time: waveform, speech probability with a threshold to drag, labels, local model and service. */
import { PaintedCanvas, writeText } from "./vad_view_canvas.js";
import { FRAME_MS, cutOffs, localThreshold, releaseThreshold, segments } from "./vad_view_model.js";

/**
 * @typedef {import("./vad_view_canvas.js").Drawing} Drawing
 * @typedef {import("./vad_view_model.js").Setting} Setting
 * @typedef {{duration_ms: number, turns: import("./vad_view_model.js").Turn[], pauses: [number, number][], bin_ms: number,
 *   constants: import("./vad_view_model.js").Constants, peaks: Int16Array, probabilities: Float32Array}} Recording
 * @typedef {{setting: () => Setting, change: (setting: Partial<Setting>) => void, readOut: (text: string) => void,
 *   play: (start_ms: number, span_ms: number) => void}} Page
 */

const WAVE = { top: 18, height: 50 };
const CURVE = { top: 74, height: 92 };
const LANES = { top: 177, height: 13, step: 17 };
const STEPS_MS = [100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 300_000, Infinity];
const TIME_LOOK = {
  height: LANES.top + 3 * LANES.step,
  label: "Recording over time. Left and right move the cursor, up and down the threshold, Enter plays 3 seconds, + and - zoom.",
};

export class TimeCanvas extends PaintedCanvas {
  /** @type {?Recording} */
  recording = null;
  /** @type {import("./vad_view_model.js").Segment[]} */
  segments = [];
  /** @type {[number, ?number][]} observed start and stop */
  service = [];
  start_ms = 0;
  span_ms = 1;
  /** @type {?number} */
  cursor_ms = null;
  /** @type {?{x: number, start_ms: number, isThreshold: boolean, isMoved: boolean}} */
  drag = null;

  constructor(/** @type {Element} */ parent, /** @type {Page} */ page, /** @type {AbortSignal} */ signal) {
    super(parent, TIME_LOOK, signal);
    this.page = page;
    this.canvas.onpointerdown = (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.drag = { x: event.offsetX, start_ms: this.start_ms, isThreshold: this.isOnThreshold(event), isMoved: false };
    };
    this.canvas.onpointermove = (event) => this.onMove(event);
    this.canvas.onpointerup = (event) => {
      if (this.drag && !this.drag.isMoved && !this.drag.isThreshold) page.play(this.timeAt(event.offsetX), 3000);
      this.drag = null;
    };
  }

  onMove(/** @type {PointerEvent} */ event) {
    const drag = this.drag;
    this.canvas.style.cursor = drag?.isThreshold || this.isOnThreshold(event) ? "ns-resize" : "crosshair";
    if (drag?.isThreshold) this.setThreshold(1 - (event.offsetY - CURVE.top) / CURVE.height);
    else if (drag && (drag.isMoved ||= Math.abs(event.offsetX - drag.x) > 3)) {
      this.look(drag.start_ms - ((event.offsetX - drag.x) * this.span_ms) / this.canvas.clientWidth, this.span_ms);
    }
    this.setCursor(this.timeAt(event.offsetX));
  }

  onPress = (/** @type {string} */ key) => {
    const at_ms = this.cursor_ms ?? this.start_ms + this.span_ms / 2;
    const [time_step_ms, { threshold }] = [Math.max(FRAME_MS, this.span_ms / 50), this.page.setting()];
    if (key === "ArrowUp") this.setThreshold(threshold + 0.01);
    else if (key === "ArrowDown") this.setThreshold(threshold - 0.01);
    else if (key === "ArrowLeft") this.setCursor(at_ms - time_step_ms);
    else if (key === "ArrowRight") this.setCursor(at_ms + time_step_ms);
    else if (key === "Enter") this.page.play(at_ms, 3000);
    else if (key === "+" || key === "-") this.zoom(key === "+" ? 0.5 : 2, at_ms);
    else return false;
    return true;
  };

  setThreshold(/** @type {number} */ value) {
    this.page.change({ threshold: Math.round(Math.min(1, Math.max(0, value)) * 100) / 100 });
  }

  /** Move the cursor, bring it into view, and read out the probability there. */
  setCursor(/** @type {number} */ ms) {
    if (!this.recording) return;
    this.cursor_ms = Math.min(this.recording.duration_ms, Math.max(0, ms));
    this.look(Math.min(this.cursor_ms, Math.max(this.start_ms, this.cursor_ms - this.span_ms)), this.span_ms);
    const p = this.recording.probabilities[Math.floor(this.cursor_ms / FRAME_MS)] ?? 0;
    this.page.readOut(`${(this.cursor_ms / 1000).toFixed(2)} s · speech probability ${p.toFixed(2)}`);
  }

  timeAt(/** @type {number} */ x) {
    return this.start_ms + (x * this.span_ms) / this.canvas.clientWidth;
  }

  /** Pixel rows of the local model's two thresholds. */
  thresholds(/** @type {Recording} */ { constants }) {
    const { threshold } = this.page.setting();
    return [localThreshold(threshold, constants), releaseThreshold(threshold, constants)].map((p) => CURVE.top + (1 - p) * CURVE.height);
  }

  isOnThreshold(/** @type {PointerEvent} */ event) {
    return this.recording !== null && Math.abs(event.offsetY - this.thresholds(this.recording)[0]) < 7;
  }

  show(/** @type {Recording} */ recording) {
    Object.assign(this, { recording, service: [], cursor_ms: null });
    this.look(0, recording.duration_ms);
    this.update();
  }

  /** Find the segments of the shown setting. */
  update() {
    if (this.recording) this.segments = segments(this.recording.probabilities, this.page.setting(), this.recording.constants);
    this.draw();
  }

  look(/** @type {number} */ start_ms, /** @type {number} */ span_ms) {
    const all = this.recording?.duration_ms ?? 1;
    this.span_ms = Math.min(all, Math.max(500, span_ms));
    this.start_ms = Math.min(all - this.span_ms, Math.max(0, start_ms));
    this.draw();
  }

  zoom(/** @type {number} */ factor, at_ms = this.start_ms + this.span_ms / 2) {
    this.look(at_ms - (at_ms - this.start_ms) * factor, this.span_ms * factor);
  }

  paint = (/** @type {Drawing} */ drawing) => {
    if (!this.recording) return;
    const { duration_ms, turns, pauses } = this.recording;
    const { g, width, color } = drawing;
    const x = (/** @type {number} */ ms) => Math.min(width + 1, Math.max(-1, ((ms - this.start_ms) * width) / this.span_ms));
    /** @type {(name: string, alpha: number, top: number, height: number, spans_ms: [number, number][]) => void} */
    const bars = (name, alpha, top, height, spans_ms) => {
      Object.assign(g, { fillStyle: color(name), globalAlpha: alpha });
      for (const [from, to] of spans_ms) g.fillRect(x(from), top, Math.max(1.5, x(to) - x(from)), height);
      g.globalAlpha = 1;
    };
    /** @type {[number, number][][]} */
    const [labels, model, service, cuts] = [
      turns.map((one) => [one.start_ms, one.end_ms]),
      this.segments.map((one) => [one.audio_start_ms, one.stop_ms ?? duration_ms]),
      this.service.map(([from, to]) => [from, to ?? duration_ms]),
      cutOffs(this.segments, turns).map(({ stop_ms }) => [stop_ms, stop_ms]),
    ];
    bars("good", 0.12, WAVE.top, LANES.top - WAVE.top, labels);
    this.paintSignals(drawing, this.recording);
    const names = ["Labels", "Local model", service.length ? "Service" : "Service: not compared yet"];
    [labels, model, service].forEach((spans_ms, i) => {
      const top = LANES.top + i * LANES.step;
      bars("raised", 1, top, LANES.height, [[0, duration_ms]]);
      bars(["good", "accent", "warn"][i], 0.8, top, LANES.height, spans_ms);
      if (i === 0) bars("back", 1, top + 4, LANES.height - 8, pauses);
      writeText(drawing, names[i], 4, top + 10);
    });
    bars("bad", 1, WAVE.top, this.height, cuts);
    writeText(drawing, "Speech probability", 4, CURVE.top + CURVE.height - 4);
    if (this.cursor_ms !== null) bars("text", 0.7, 16, this.height, [[this.cursor_ms, this.cursor_ms]]);
    const step = STEPS_MS.find((ms) => (ms * width) / this.span_ms >= 70) ?? Infinity;
    for (let ms = Math.ceil(this.start_ms / step) * step; x(ms) + 34 < width; ms += step) {
      g.fillStyle = color("faint");
      g.fillRect(x(ms), 4, 1, 12);
      g.fillText(`${(ms / 1000).toFixed(step < 1000 ? 1 : 0)} s`, x(ms) + 4, 12);
    }
  };

  /** Draw, for each pixel, the extremes of the waveform and the highest probability; then the thresholds. */
  paintSignals(/** @type {Drawing} */ { g, width, color }, /** @type {Recording} */ recording) {
    const { peaks, bin_ms, probabilities } = recording;
    const scale = WAVE.height / 2 / peaks.reduce((most, value) => Math.max(most, Math.abs(value)), 1600);
    const at = (/** @type {number} */ x, /** @type {number} */ step_ms) => Math.floor(this.timeAt(x) / step_ms);
    g.fillStyle = color("faint");
    g.beginPath();
    for (let x = 0; x < width; x++) {
      const columns = peaks.subarray(2 * at(x, bin_ms), 2 * Math.max(at(x, bin_ms) + 1, at(x + 1, bin_ms)));
      const [low, high] = [Math.min(0, ...columns), Math.max(0, ...columns)];
      g.fillRect(x, WAVE.top + WAVE.height / 2 - high * scale, 1, Math.max(1, (high - low) * scale));
      const likely = probabilities.subarray(at(x, FRAME_MS), Math.max(at(x, FRAME_MS) + 1, at(x + 1, FRAME_MS)));
      g.lineTo(x, CURVE.top + (1 - Math.max(0, ...likely)) * CURVE.height);
    }
    Object.assign(g, { strokeStyle: color("accent"), lineWidth: 1.25, fillStyle: color("text") });
    g.stroke();
    const [high, low] = this.thresholds(recording);
    g.fillRect(0, high - 0.75, width, 1.5);
    g.fillRect(width - 26, high - 3, 18, 6); // handle
    for (let x = 0; x < width; x += 6) g.fillRect(x, low - 0.5, 3, 1);
  }
}
