/** Map of all settings: the pointer or the arrow keys move a cursor, a click or Enter takes its setting. */
import { PaintedCanvas } from "./shared.js";

/**
 * @typedef {import("./shared.js").Drawing} Drawing
 * @typedef {{threshold: number, silence_duration_ms: number, prefix_padding_ms: number}} Setting
 * @typedef {[text: string, share: number]} Tick
 * @typedef {{x: Float32Array, y: Float32Array, x_ticks: Tick[], y_ticks: Tick[], stops: number[], columns: number}} Places
 *   shares of the axes, y upwards, NaN where a setting has no place; `stops` are the settings that the
 *   keyboard reaches, in rows of `columns`
 * @typedef {{metrics: {name: string, label: string, unit: string}[], thresholds: number[], silences_ms: number[], n_turns: number,
 *   marks: Record<string, number>, values: Record<string, Float32Array>, maps: Places[]}} Grid
 *   settings are counted row by row: threshold index × number of silences + silence index
 * @typedef {{setting: () => Setting, change: (setting: Partial<Setting>) => void, readOut: (text: string) => void}} Page
 */

const BOX = { left: 44, right: 10, top: 8, bottom: 20, height: 190 };
/** @type {Grid} before the first recording */
const EMPTY_GRID = { metrics: [], thresholds: [], silences_ms: [], n_turns: 0, marks: {}, values: {}, maps: [] };

/** Format a value for display; a value without unit is a share. */
export function formatValue(/** @type {number} */ value, /** @type {string} */ unit) {
  if (!isFinite(value)) return "–";
  return unit === "" ? `${(100 * value).toFixed(1)} %` : `${Math.round(value)} ${unit.replace("1/", "per ")}`;
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

export class SettingMap extends PaintedCanvas {
  grid = EMPTY_GRID;
  /** @type {Places} */
  places = { x: new Float32Array(), y: new Float32Array(), x_ticks: [], y_ticks: [], stops: [], columns: 1 };
  /** @type {string[]} names of the metrics to read out */
  metrics = [];
  /** Index of the shown setting. */
  position = 0;
  /** @type {?number} index of the setting under the cursor */
  cursor = null;

  constructor(/** @type {Element} */ parent, /** @type {string} */ name, /** @type {Page} */ page, /** @type {AbortSignal} */ signal) {
    super(parent, BOX.height, `${name}. Arrow keys move the cursor, Enter takes its setting.`, signal);
    this.page = page;
    this.canvas.onpointermove = (event) => this.setCursor(this.nearest(event));
    this.canvas.onpointerleave = () => this.setCursor(null);
    this.canvas.onclick = (event) => this.take(this.nearest(event));
  }

  show(/** @type {Grid} */ grid, /** @type {Places} */ places) {
    this.grid = grid;
    this.places = places;
    this.setCursor(null);
  }

  onPress(/** @type {string} */ key) {
    const { stops, columns } = this.places;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: columns, ArrowDown: -columns }[key];
    if (key === "Enter") this.take(this.cursor);
    else if (!step || !stops.length) return false;
    else this.setCursor(this.cursor === null ? this.position : (stops[stops.indexOf(this.cursor) + step] ?? this.cursor));
    return true;
  }

  nearest(/** @type {MouseEvent} */ { offsetX, offsetY }) {
    const far = [...this.places.x.keys()].map((i) => Math.hypot(this.pixel(i).x - offsetX, this.pixel(i).y - offsetY));
    const best = far.reduce((found, one, i) => (one < (far[found] ?? 24) ? i : found), -1);
    return best < 0 ? null : best;
  }

  /** Move the cursor and read out the numbers of its setting. */
  setCursor(/** @type {?number} */ index) {
    this.cursor = index;
    if (index !== null) {
      const { threshold, silence_duration_ms } = this.setting(index);
      const facts = this.grid.metrics
        .filter(({ name }) => this.metrics.includes(name))
        .map(({ name, label, unit }) => `${label} ${formatValue(this.grid.values[name][index], unit)}`);
      const setting = `threshold ${threshold.toFixed(2)} · silence duration ${silence_duration_ms} ms`;
      this.page.readOut(`${setting} · ${facts.join(" · ")} (${this.grid.n_turns} turns)`);
    }
    this.draw();
  }

  take(/** @type {?number} */ index) {
    if (index !== null) this.page.change(this.setting(index));
  }

  setting(/** @type {number} */ index) {
    const { thresholds, silences_ms } = this.grid;
    return { threshold: thresholds[Math.floor(index / silences_ms.length)], silence_duration_ms: silences_ms[index % silences_ms.length] };
  }

  at(/** @type {number} */ x, /** @type {number} */ y) {
    const [width, height] = [this.canvas.clientWidth - BOX.left - BOX.right, BOX.height - BOX.top - BOX.bottom];
    return { x: BOX.left + x * width, y: BOX.top + (1 - y) * height };
  }

  pixel(/** @type {number} */ index) { return this.at(this.places.x[index], this.places.y[index]); }

  paint(/** @type {Drawing} */ drawing) {
    const { g, color, width } = drawing;
    g.fillStyle = color("faint");
    for (const [text, share] of this.places.y_ticks) g.fillText(text, 8, this.at(0, share).y + 4);
    let free = 0;
    for (const [text, share] of this.places.x_ticks) {
      const x = this.at(share, 0).x - 16;
      if (x < free || x + 44 > width) continue;
      g.fillText(text, x, BOX.height - 6);
      free = x + 56;
    }
    this.paintSettings(drawing);
    Object.assign(g, { textAlign: "center", textBaseline: "middle", font: g.font.replace("11px", "14px") });
    for (const [sign, index] of Object.entries({ ...this.grid.marks, "●": this.position })) {
      const { x, y } = this.pixel(index);
      if (isFinite(x + y)) writeText(drawing, sign, x, y);
    }
    if (this.cursor === null) return;
    const { x, y } = this.pixel(this.cursor);
    for (const [name, lineWidth] of Object.entries({ back: 4, text: 2 })) {
      Object.assign(g, { strokeStyle: color(name), lineWidth });
      g.strokeRect(x - 7, y - 7, 14, 14);
    }
  }

  /** Draw each setting as a dot, and a line along those that no other beats. */
  paintSettings(/** @type {Drawing} */ { g, color }) {
    Object.assign(g, { fillStyle: color("text"), strokeStyle: color("accent"), globalAlpha: 0.4, lineWidth: 1.5 });
    this.places.x.forEach((_, i) => g.fillRect(this.pixel(i).x - 1.5, this.pixel(i).y - 1.5, 3, 3)); // NaN draws nothing
    g.globalAlpha = 1;
    g.beginPath();
    for (const i of this.places.stops) g.lineTo(this.pixel(i).x, this.pixel(i).y);
    g.stroke();
  }
}

/** Map whose settings are cells, coloured by the value of one metric: light is low, dark is high. */
export class HeatMap extends SettingMap {
  /** Values of the shown metric with their unit and range. */
  get shown() {
    const { unit = "", name = "" } = this.grid.metrics.find((one) => one.name === this.metrics[0]) ?? {};
    const values = this.grid.values[name] ?? new Float32Array();
    const finite = values.filter(isFinite);
    return { unit, values, low: Math.min(...finite), high: Math.max(...finite) };
  }

  paintSettings(/** @type {Drawing} */ { g, color }) {
    const { values, low, high } = this.shown;
    const [from, to] = [this.at(0, 1 / this.grid.thresholds.length), this.at(1 / this.grid.silences_ms.length, 0)];
    const [width, height] = [to.x - from.x, to.y - from.y];
    values.forEach((value, i) => {
      const [share, { x, y }] = [high > low ? (value - low) / (high - low) : 0, this.pixel(i)];
      g.fillStyle = isFinite(value) ? `hsl(${40 - 110 * share} ${85 - 25 * share}% ${88 - 74 * share}%)` : color("raised");
      g.fillRect(x - width / 2, y - height / 2, width + 0.6, height + 0.6);
    });
  }
}
