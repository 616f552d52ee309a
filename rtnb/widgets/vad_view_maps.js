/** The maps of the VAD lab: a metric over threshold and silence, and what is cut off against how long everyone waits. */
import { figure, front, shade } from "./vad_view_model.js";

export const MAP = { left: 34, bottom: 20, top: 6, right: 8, height: 190 };

export class VadMaps {
  prepared(canvas) {
    const [width, ratio] = [canvas.clientWidth, window.devicePixelRatio];
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(MAP.height * ratio)];
    const css = getComputedStyle(canvas);
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.font = `11px ${css.fontFamily}`;
    return { g, width, color: (name) => css.getPropertyValue(`--rtnb-${name}`) };
  }

  drawMaps() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (!this.grid || !this.heat.clientWidth) return;
      this.drawHeat();
      this.drawPareto();
    });
  }

  marks(draw) {
    const { marks, thresholds, silences_ms } = this.grid;
    const here = { threshold: this.model.get("threshold"), silence_duration_ms: this.model.get("silence_duration_ms") };
    const at = (axis, value) => axis.reduce((best, one, i) => (Math.abs(one - value) < Math.abs(axis[best] - value) ? i : best), 0);
    for (const [sign, one] of [["■", marks.default], ["◆", marks.recommended], ["●", here]])
      if (one) draw(sign, at(thresholds, one.threshold), at(silences_ms, 32 * Math.ceil(one.silence_duration_ms / 32)));
  }

  sign(g, color, text, x, y) {
    Object.assign(g, { textAlign: "center", textBaseline: "middle", lineWidth: 4, lineJoin: "round", strokeStyle: color("back"), fillStyle: color("text") });
    g.font = g.font.replace("11px", "14px");
    g.strokeText(text, x, y);
    g.fillText(text, x, y);
    g.font = g.font.replace("14px", "11px");
    Object.assign(g, { textAlign: "start", textBaseline: "alphabetic" });
  }

  box(width) {
    const { left, right, top, bottom, height } = MAP;
    return { x: left, y: top, w: width - left - right, h: height - top - bottom };
  }

  drawHeat() {
    const { g, width, color } = this.prepared(this.heat);
    const { T, S, thresholds, silences_ms } = this.grid;
    const name = this.model.get("metric");
    const values = this.grid.values[name] ?? this.grid.values.cut_off_rate;
    const { x, y, w, h } = this.box(width);
    const finite = values.filter(isFinite);
    const [low, high] = [Math.min(...finite), Math.max(...finite)];
    for (let t = 0; t < T; t++)
      for (let s = 0; s < S; s++) {
        const value = values[t * S + s];
        g.fillStyle = isFinite(value) ? shade(high > low ? (value - low) / (high - low) : 0) : color("raised");
        g.fillRect(x + (s * w) / S, y + ((T - 1 - t) * h) / T, w / S + 0.6, h / T + 0.6);
      }
    g.fillStyle = color("faint");
    for (let t = 0; t < T; t += 4) g.fillText(thresholds[t].toFixed(1), 8, y + ((T - 0.5 - t) * h) / T + 4);
    const every = Math.ceil((S * 60) / w);
    for (let s = 0; s < S; s += every) if (x + (s * w) / S + 50 < width) g.fillText(`${silences_ms[s]} ms`, x + (s * w) / S, MAP.height - 6);
    this.marks((sign, t, s) => this.sign(g, color, sign, x + ((s + 0.5) * w) / S, y + ((T - 0.5 - t) * h) / T));
  }

  scale(width) {
    const { points } = this.grid;
    const of = (key, least) => Math.max(least, ...points.map((one) => one[key]).filter(isFinite));
    const [most_x, most_y] = [of("x", 500), of("y", 0.05)];
    const { x, y, w, h } = this.box(width);
    return { most_x, most_y, x: (value) => x + (value / most_x) * w, y: (value) => y + h - (value / most_y) * h };
  }

  drawPareto() {
    const { g, width, color } = this.prepared(this.pareto);
    const { points, front: best, S } = this.grid;
    const to = this.scale(width);
    g.fillStyle = color("faint");
    for (let k = 0; k <= 2; k++) g.fillText(`${Math.round((50 * k * to.most_y))} %`, 2, Math.max(12, to.y((k * to.most_y) / 2) + 4));
    for (let ms = 500; ms < to.most_x; ms += to.most_x > 2500 ? 1000 : 500) if (to.x(ms) + 20 < width) g.fillText(`${ms} ms`, to.x(ms) - 16, MAP.height - 6);
    g.globalAlpha = 0.35;
    for (const point of points) if (isFinite(point.x) && isFinite(point.y)) g.fillRect(to.x(point.x) - 1.5, to.y(point.y) - 1.5, 3, 3);
    g.globalAlpha = 1;
    Object.assign(g, { strokeStyle: color("accent"), lineWidth: 1.5 });
    g.beginPath();
    best.forEach((i, k) => g[k ? "lineTo" : "moveTo"](to.x(points[i].x), to.y(points[i].y)));
    g.stroke();
    this.marks((sign, t, s) => {
      const point = points[t * S + s];
      if (isFinite(point.x) && isFinite(point.y)) this.sign(g, color, sign, to.x(point.x), to.y(point.y));
    });
  }

  cell(e) {
    if (!this.grid) return null;
    const { T, S } = this.grid;
    const { x, y, w, h } = this.box(this.heat.clientWidth);
    const [s, t] = [Math.floor(((e.offsetX - x) * S) / w), T - 1 - Math.floor(((e.offsetY - y) * T) / h)];
    return s >= 0 && s < S && t >= 0 && t < T ? t * S + s : null;
  }

  nearest(e) {
    if (!this.grid) return null;
    const to = this.scale(this.pareto.clientWidth);
    const far = ({ x, y }) => (isFinite(x) && isFinite(y) ? Math.hypot(to.x(x) - e.offsetX, to.y(y) - e.offsetY) : Infinity);
    const best = this.grid.points.reduce((found, point, i) => (far(point) < far(this.grid.points[found]) ? i : found), 0);
    return far(this.grid.points[best]) < 24 ? best : null;
  }

  take(index) {
    if (index !== null) this.turn({ threshold: this.grid.thresholds[Math.floor(index / this.grid.S)], silence_duration_ms: this.grid.silences_ms[index % this.grid.S] });
  }

  tell(index) {
    if (index === null) return;
    const { S, thresholds, silences_ms, metrics, values, n_turns } = this.grid;
    const { name, label, unit } = metrics.find((one) => one.name === this.model.get("metric")) ?? metrics[0];
    this.readout.textContent = `threshold ${thresholds[Math.floor(index / S)].toFixed(2)} · silence ${silences_ms[index % S]} ms · ${label}: ${figure(values[name][index], unit)} (${n_turns} turns)`;
  }
}
