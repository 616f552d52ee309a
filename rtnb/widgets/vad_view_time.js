/** One recording on one time axis: waveform, probabilities with a threshold to drag, labels, model, service. vad_view_model.js comes before it. */
import { FRAME_MS, cutOffs, localThreshold, releaseThreshold, segments } from "./vad_view_model.js";

const TOP = { wave: 18, curve: 74, lanes: 174 };
const SIZE = { wave: 50, curve: 92, lane: 17 };
const LANES = ["Labels", "Model", "Service"];
export const TIME_HEIGHT = TOP.lanes + LANES.length * SIZE.lane + 4;

export class TimeView {
  constructor(canvas, { point, turned, played }) {
    Object.assign(this, { canvas, point, start_ms: 0, span_ms: 1, recording: null, segments: [], service: [], hover: null });
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "slider");
    canvas.setAttribute("aria-label", "Threshold, on the curve of speech probability; up and down move it");
    let drag = null;
    const at = (e) => this.start_ms + (e.offsetX * this.span_ms) / canvas.clientWidth;
    const level = (e) => Math.min(1, Math.max(0, 1 - (e.offsetY - TOP.curve) / SIZE.curve));
    const near = (e) => this.recording && Math.abs(e.offsetY - this.y(this.high())) < 7;
    canvas.addEventListener("pointerdown", (e) => {
      canvas.setPointerCapture(e.pointerId);
      drag = { x: e.offsetX, start_ms: this.start_ms, threshold: near(e), moved: false };
    });
    canvas.addEventListener("pointermove", (e) => {
      canvas.style.cursor = drag?.threshold || near(e) ? "ns-resize" : "crosshair";
      this.hover = at(e);
      if (drag?.threshold) turned({ threshold: Math.round(level(e) * 100) / 100 });
      else if (drag && (drag.moved ||= Math.abs(e.offsetX - drag.x) > 3))
        this.look(drag.start_ms - ((e.offsetX - drag.x) * this.span_ms) / canvas.clientWidth, this.span_ms);
      this.draw();
    });
    canvas.addEventListener("pointerup", (e) => {
      if (drag && !drag.moved && !drag.threshold && this.recording) played(at(e), 3000);
      drag = null;
    });
    canvas.addEventListener("pointerleave", () => ((this.hover = null), this.draw()));
    canvas.addEventListener("wheel", (e) => {
      if (!e.ctrlKey && !e.metaKey && !e.shiftKey) return; // the page scrolls
      e.preventDefault();
      this.zoom(e.deltaY > 0 ? 1.25 : 0.8, at(e));
    });
    canvas.addEventListener("keydown", (e) => {
      const step = { ArrowUp: 0.01, ArrowDown: -0.01, PageUp: 0.1, PageDown: -0.1 }[e.key];
      if (!step) return;
      e.preventDefault();
      turned({ threshold: Math.round(Math.min(1, Math.max(0, this.point().threshold + step)) * 100) / 100 });
    });
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(canvas);
  }

  /** Another recording: {duration_ms, turns, pauses, quiet, constants, peaks: Int16Array of min/max, bin_ms, probabilities}. */
  show(recording) {
    Object.assign(this, { recording, service: [] });
    this.look(0, recording.duration_ms);
    this.turn();
  }

  turn() {
    if (this.recording) this.segments = segments(this.recording.probabilities, this.point(), this.recording.constants);
    this.draw();
  }

  look(start_ms, span_ms) {
    const all = this.recording?.duration_ms ?? 1;
    this.span_ms = Math.min(all, Math.max(500, span_ms));
    this.start_ms = Math.min(all - this.span_ms, Math.max(0, start_ms));
    this.draw();
  }

  zoom(factor, at_ms = this.start_ms + this.span_ms / 2) {
    const span_ms = this.span_ms * factor;
    this.look(at_ms - ((at_ms - this.start_ms) * span_ms) / this.span_ms, span_ms);
  }

  high = () => localThreshold(this.point().threshold, this.recording.constants);
  y = (p) => TOP.curve + (1 - p) * SIZE.curve;

  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (this.canvas.clientWidth) this.paint();
    });
  }

  paint() {
    const { canvas, recording } = this;
    const [width, ratio] = [canvas.clientWidth, window.devicePixelRatio];
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(TIME_HEIGHT * ratio))
      [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(TIME_HEIGHT * ratio)];
    const css = getComputedStyle(canvas);
    const color = (name) => css.getPropertyValue(`--rtnb-${name}`);
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, TIME_HEIGHT);
    g.font = `11px ${css.fontFamily}`;
    if (!recording) return;
    const x = (ms) => ((ms - this.start_ms) * width) / this.span_ms;
    const bar = (from_ms, to_ms, top, height, fill, alpha = 1) => {
      const [from, to] = [Math.max(-1, x(from_ms)), Math.min(width + 1, x(to_ms))];
      if (to < 0 || from > width) return;
      Object.assign(g, { fillStyle: fill, globalAlpha: alpha });
      g.fillRect(from, top, Math.max(1, to - from), height);
      g.globalAlpha = 1;
    };
    this.axis(g, x, width, color);
    for (const { start_ms, end_ms } of recording.turns) bar(start_ms, end_ms, TOP.wave, TOP.lanes - TOP.wave, color("good"), 0.12);
    this.columns(g, x, width, color);
    this.thresholds(g, width, color);
    LANES.forEach((name, i) => {
      const top = TOP.lanes + i * SIZE.lane + 3;
      bar(this.start_ms, this.start_ms + this.span_ms, top, SIZE.lane - 4, color("raised"));
    });
    const top = (i) => TOP.lanes + i * SIZE.lane + 3;
    for (const { start_ms, end_ms } of recording.turns) bar(start_ms, end_ms, top(0), SIZE.lane - 4, color("good"), 0.8);
    for (const [from, to] of recording.pauses) bar(from, to, top(0) + 4, SIZE.lane - 12, color("back"));
    for (const one of this.segments) bar(one.audio_start_ms, one.stop_ms ?? recording.duration_ms, top(1), SIZE.lane - 4, color("accent"), 0.75);
    for (const { start_ms, stop_ms } of this.service) bar(start_ms, stop_ms ?? recording.duration_ms, top(2), SIZE.lane - 4, color("warn"), 0.8);
    for (const { stop_ms } of cutOffs(this.segments, recording.turns)) bar(stop_ms, stop_ms + (1.5 * this.span_ms) / width, TOP.wave, TIME_HEIGHT, color("bad"));
    const label = (text, left, y) => {
      Object.assign(g, { strokeStyle: color("back"), fillStyle: color("text"), lineWidth: 3, lineJoin: "round" });
      g.strokeText(text, left, y);
      g.fillText(text, left, y);
    };
    LANES.forEach((name, i) => label(i === 2 && !this.service.length ? "Service: press Verify" : name, 4, top(i) + 10));
    label("Speech probability", 4, TOP.curve + SIZE.curve - 4);
    if (this.hover !== null) bar(this.hover, this.hover, 16, TIME_HEIGHT, color("faint"), 0.7);
    const { threshold } = this.point();
    for (const [name, value] of Object.entries({ valuemin: 0, valuemax: 1, valuenow: threshold })) canvas.setAttribute(`aria-${name}`, value);
  }

  axis(g, x, width, color) {
    const steps = [100, 200, 500, 1000, 2000, 5000, 10000, 30000, 60000, 300000];
    const step = steps.find((ms) => (ms * width) / this.span_ms >= 70) ?? 600000;
    for (let ms = Math.ceil(this.start_ms / step) * step; x(ms) < width; ms += step) {
      g.fillStyle = color("border");
      g.fillRect(x(ms), 16, 1, 4);
      g.fillStyle = color("faint");
      if (x(ms) + 34 < width) g.fillText(`${(ms / 1000).toFixed(step < 1000 ? 1 : 0)} s`, x(ms) + 3, 12);
    }
  }

  /** Per pixel the loudest and the likeliest of what it stands for. */
  columns(g, x, width, color) {
    const { peaks, bin_ms, probabilities } = this.recording;
    const middle = TOP.wave + SIZE.wave / 2;
    const scale = SIZE.wave / 2 / Math.max(1600, this.recording.loudest);
    const ms_per_px = this.span_ms / width;
    g.fillStyle = color("faint");
    for (let i = 0; i < width; i++) {
      const from = Math.floor((this.start_ms + i * ms_per_px) / bin_ms);
      let [low, high] = [0, 0];
      for (let k = from; k <= from + ms_per_px / bin_ms && 2 * k + 1 < peaks.length; k++) {
        if (peaks[2 * k] < low) low = peaks[2 * k];
        if (peaks[2 * k + 1] > high) high = peaks[2 * k + 1];
      }
      if (high > low) g.fillRect(i, middle - high * scale, 1, Math.max(1, (high - low) * scale));
    }
    g.strokeStyle = color("accent");
    g.lineWidth = 1.25;
    g.beginPath();
    for (let i = 0; i < width; i++) {
      const from = Math.floor((this.start_ms + i * ms_per_px) / FRAME_MS);
      let most = probabilities[from] ?? 0;
      for (let k = from; k < from + ms_per_px / FRAME_MS && k < probabilities.length; k++) most = Math.max(most, probabilities[k]);
      if (i) g.lineTo(i, this.y(most));
      else g.moveTo(i, this.y(most));
    }
    g.stroke();
  }

  thresholds(g, width, color) {
    const high = this.y(this.high());
    const low = this.y(releaseThreshold(this.point().threshold, this.recording.constants));
    g.fillStyle = color("text");
    g.fillRect(0, high - 0.75, width, 1.5);
    g.fillRect(width - 26, high - 3, 18, 6); // something to take hold of
    for (let i = 0; i < width; i += 6) g.fillRect(i, low - 0.5, 3, 1);
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.sizes.disconnect();
  }
}
