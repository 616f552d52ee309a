/** Plots of the VAD lab: maps of all settings, on which the pointer or the arrow keys move a cursor. */
import { PaintedCanvas } from "./shared.js";

/**
 * @typedef {import("./shared.js").Drawing} Drawing
 * @typedef {{name: string, label: string, unit: string, values: Float32Array}} Column one value per setting, row by row of the
 *   thresholds; a share has the unit "%"
 * @typedef {{columns: Column[], n_silences: number, front: [delay_p90_ms: number, cut_off: number][]}} Grid
 *   the first two columns are threshold and silence duration; `front`: the settings that no other beats in both
 * @typedef {{grid: Grid, marks: Record<string, ?number>[], cursor: ?number, setCursor: (index: ?number) => void, take: () => void}} Page
 *   `marks`: values by the names of their columns, for each sign of `SIGNS`
 * @typedef {[low: number, high: number]} Range
 */

const PLOT = { left: 52, right: 16, top: 8, bottom: 20, height: 190 };
const SIGNS = ["●", "■", "◆"];
const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 50, 100, 200, 500, 1000, 2000, 5000, 10000];

/** Format a value for display. */
export function formatValue(/** @type {number} */ value, /** @type {string} */ unit) {
  if (!isFinite(value)) return "–";
  if (!unit) return value.toFixed(2);
  return unit === "%" ? `${Number((100 * value).toFixed(1))} %` : `${Math.round(value)} ${unit}`;
}

/**
 * Lowest and highest of the finite values, and a margin.
 * @returns {Range}
 */
export function range(/** @type {Float32Array} */ values, margin = 0) {
  const finite = values.filter(isFinite);
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const by = margin * (high - low || 1);
  return [low - by, high + by];
}

/**
 * Write a text with a halo, readable on any background.
 * @type {(drawing: Drawing, text: string, x: number, y: number) => void}
 */
export const writeText = ({ g, color }, text, x, y) => {
  Object.assign(g, { strokeStyle: color("back"), fillStyle: color("text"), lineWidth: 3, lineJoin: "round" });
  g.strokeText(text, x, y);
  g.fillText(text, x, y);
};

/** All settings as points: a line joins those that no other beats. */
export class SettingMap extends PaintedCanvas {
  /** @type {Column[]} x and y */
  axes = [];
  /** @type {Range[]} what they show */
  ranges = [];

  constructor(/** @type {Element} */ parent, /** @type {string} */ name, /** @type {Page} */ page, /** @type {AbortSignal} */ signal) {
    super(parent, PLOT.height, `${name}. Arrow keys move the cursor, Enter takes its setting.`, signal);
    this.page = page;
    this.canvas.onpointermove = ({ offsetX, offsetY }) => page.setCursor(this.nearest(offsetX, offsetY));
    this.canvas.onpointerleave = () => page.setCursor(null);
    this.canvas.onclick = () => page.take();
  }

  show(/** @type {Column[]} */ ...axes) {
    this.axes = axes;
    this.ranges = axes.map(({ values }) => range(values, 0.04));
  }

  onPress(/** @type {string} */ key) {
    const { grid: { n_silences }, cursor, marks: [shown] } = this.page;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: n_silences, ArrowDown: -n_silences }[key];
    if (key === "Enter") this.page.take();
    else if (!step || !shown) return false;
    else if (cursor !== null) this.page.setCursor(cursor + step in this.axes[0].values ? cursor + step : cursor);
    else this.page.setCursor(this.nearest(this.place(shown).x, this.place(shown).y));
    return true;
  }

  /** Pixels of a point. */
  at(/** @type {number[]} */ point) {
    const [x, y] = this.ranges.map(([low, high], i) => (point[i] - low) / (high - low));
    const [width, height] = [this.canvas.clientWidth - PLOT.left - PLOT.right, this.height - PLOT.top - PLOT.bottom];
    return { x: PLOT.left + x * width, y: PLOT.top + (1 - y) * height };
  }

  /** Write round numbers along both axes. */
  paintAxes(/** @type {Drawing} */ { g, color }) {
    const [xTicks, yTicks] = this.ranges.map(([low, high]) => {
      const step = STEPS.find((one) => (high - low) / one <= 6) ?? high;
      return Array.from({ length: 7 }, (_, i) => (Math.ceil(low / step) + i) * step).filter((value) => value <= high);
    });
    Object.assign(g, { fillStyle: color("faint"), textAlign: "center" });
    for (const x of xTicks) g.fillText(formatValue(x, this.axes[0].unit), this.at([x, 0]).x, this.height - 5);
    g.textAlign = "end";
    for (const y of yTicks) g.fillText(formatValue(y, this.axes[1].unit), PLOT.left - 6, this.at([0, y]).y + 4);
    g.textAlign = "start";
  }

  nearest(/** @type {number} */ x, /** @type {number} */ y) {
    const far = [...(this.axes[0]?.values.keys() ?? [])].map((i) => Math.hypot(this.pixel(i).x - x, this.pixel(i).y - y));
    const best = far.reduce((found, one, i) => (one < (far[found] ?? 24) ? i : found), -1);
    return best < 0 ? null : best;
  }

  /** Pixels of a mark, NaN where it has no place. */
  place(/** @type {Record<string, ?number>} */ mark) {
    return this.at(this.axes.map(({ name }) => mark[name] ?? NaN));
  }

  /** Pixels of a setting of the grid. */
  pixel(/** @type {number} */ index) {
    return this.at(this.axes.map(({ values }) => values[index]));
  }

  paint(/** @type {Drawing} */ drawing) {
    if (!this.axes.length) return;
    const { g, color } = drawing;
    this.paintSettings(drawing);
    this.paintAxes(drawing);
    Object.assign(g, { textAlign: "center", textBaseline: "middle", font: g.font.replace("11px", "14px") });
    [...this.page.marks.entries()].reverse().forEach(([i, mark]) => {
      const { x, y } = this.place(mark);
      if (isFinite(x + y)) writeText(drawing, SIGNS[i], x, y);
    });
    if (this.page.cursor === null) return;
    const { x, y } = this.pixel(this.page.cursor);
    for (const [name, lineWidth] of Object.entries({ back: 4, text: 2 })) {
      Object.assign(g, { strokeStyle: color(name), lineWidth });
      g.strokeRect(x - 7, y - 7, 14, 14);
    }
  }

  paintSettings(/** @type {Drawing} */ { g, color }) {
    Object.assign(g, { fillStyle: color("text"), strokeStyle: color("accent"), globalAlpha: 0.4, lineWidth: 1.5 });
    this.axes[0].values.forEach((_, i) => g.fillRect(this.pixel(i).x - 1.5, this.pixel(i).y - 1.5, 3, 3)); // NaN draws nothing
    g.globalAlpha = 1;
    g.beginPath();
    for (const point of this.page.grid.front) g.lineTo(this.at(point).x, this.at(point).y);
    g.stroke();
  }
}

/** Map whose settings are cells, coloured by the value of one metric: light is low, dark is high. */
export class HeatMap extends SettingMap {
  /** @type {?Column} */
  metric = null;

  paintSettings(/** @type {Drawing} */ { g, color }) {
    const values = this.metric?.values ?? new Float32Array();
    const [low, high] = range(values);
    const [first, above] = [this.pixel(0), this.pixel(this.page.grid.n_silences)];
    const [width, height] = [this.pixel(1).x - first.x, first.y - above.y];
    values.forEach((value, i) => {
      const [share, { x, y }] = [(value - low) / (high - low || 1), this.pixel(i)];
      g.fillStyle = isFinite(value) ? `hsl(${40 - 110 * share} ${85 - 25 * share}% ${88 - 74 * share}%)` : color("raised");
      g.fillRect(x - width / 2, y - height / 2, width + 0.6, height + 0.6);
    });
  }
}
