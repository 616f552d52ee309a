/** Two maps of all settings: one metric over threshold and silence duration, and cut-off turns over delay. */
import { PaintedCanvas, writeText } from "./vad_view_canvas.js";
import { FRAME_MS, formatValue } from "./vad_view_model.js";

/**
 * @typedef {import("./vad_view_canvas.js").Drawing} Drawing
 * @typedef {import("./vad_view_model.js").Setting} Setting
 * @typedef {Pick<Setting, "threshold"|"silence_duration_ms">} Cell
 * @typedef {{metrics: {name: string, label: string, unit: string}[], thresholds: number[], silences_ms: number[], n_turns: number,
 *   front: number[], marks: {default: ?Cell, recommended: ?Cell}, values: Record<string, Float32Array>}} Grid
 *   values and front count settings row by row: threshold index × number of silences + silence index
 * @typedef {{setting: () => Setting, change: (setting: Partial<Setting>) => void, metric: () => string,
 *   readOut: (text: string) => void}} Page
 */

const BOX = { left: 44, right: 10, top: 8, bottom: 20, height: 190 };
/** @type {Grid} before the first recording */
const EMPTY = {
  metrics: [], thresholds: [], silences_ms: [], n_turns: 0, front: [], marks: { default: null, recommended: null },
  values: { cut_off_rate: new Float32Array(), delay_p90_ms: new Float32Array() },
};

/** Map whose points are settings: the pointer or the arrow keys move a cursor, a click or Enter takes its setting. */
class SettingMap extends PaintedCanvas {
  grid = EMPTY;
  /** @type {?number} index of a setting */
  cursor = null;

  constructor(/** @type {Element} */ parent, /** @type {string} */ name, /** @type {Page} */ page, /** @type {AbortSignal} */ signal) {
    super(parent, { height: BOX.height, label: `${name}. Arrow keys move the cursor, Enter takes its setting.` }, signal);
    this.page = page;
    this.canvas.onpointermove = (event) => this.setCursor(this.indexAt(event.offsetX, event.offsetY));
    this.canvas.onpointerleave = () => this.setCursor(null);
    this.canvas.onclick = (event) => this.take(this.indexAt(event.offsetX, event.offsetY));
  }

  show(/** @type {Grid} */ grid) {
    this.grid = grid;
    this.setCursor(null);
  }

  onPress = (/** @type {string} */ key) => {
    if (key === "Enter") this.take(this.cursor);
    else if (!key.startsWith("Arrow") || !this.grid.n_turns) return false;
    else this.setCursor(this.cursor === null ? this.nearest(this.page.setting()) : this.next(key, this.cursor));
    return true;
  };

  /** Move the cursor and read out the numbers of its setting. */
  setCursor(/** @type {?number} */ index) {
    this.cursor = index;
    if (index !== null) {
      const { metrics, values, n_turns } = this.grid;
      const facts = metrics
        .filter(({ name }) => this.names().includes(name))
        .map(({ name, label, unit }) => `${label} ${formatValue(values[name][index], unit)}`);
      const { threshold, silence_duration_ms } = this.cell(index);
      const setting = `threshold ${threshold.toFixed(2)} · silence duration ${silence_duration_ms} ms`;
      this.page.readOut(`${setting} · ${facts.join(" · ")} (${n_turns} turns)`);
    }
    this.draw();
  }

  take(/** @type {?number} */ index) {
    if (index !== null) this.page.change(this.cell(index));
  }

  /** @returns {Cell} */
  cell(/** @type {number} */ index) {
    const { thresholds, silences_ms } = this.grid;
    return { threshold: thresholds[Math.floor(index / silences_ms.length)], silence_duration_ms: silences_ms[index % silences_ms.length] };
  }

  nearest(/** @type {Cell} */ { threshold, silence_duration_ms }) {
    const at = (/** @type {number[]} */ axis, /** @type {number} */ value) =>
      axis.reduce((best, one, i) => (Math.abs(one - value) < Math.abs(axis[best] - value) ? i : best), 0);
    const whole_ms = FRAME_MS * Math.ceil(silence_duration_ms / FRAME_MS);
    return at(this.grid.thresholds, threshold) * this.grid.silences_ms.length + at(this.grid.silences_ms, whole_ms);
  }

  /** Index of the setting at a pixel; null where none is near. */
  indexAt(/** @type {number} */ x, /** @type {number} */ y) {
    const far = [...this.grid.values.cut_off_rate.keys()].map((i) => Math.hypot(this.place(i).x - x, this.place(i).y - y));
    const best = far.reduce((found, one, i) => (one < (far[found] ?? 24) ? i : found), -1);
    return best < 0 ? null : best;
  }

  /** Pixel of a share of the width and of the height. */
  pixel(/** @type {number} */ right, /** @type {number} */ up) {
    const [width, height] = [this.canvas.clientWidth - BOX.left - BOX.right, BOX.height - BOX.top - BOX.bottom];
    return { x: BOX.left + right * width, y: BOX.top + (1 - up) * height };
  }

  paint = (/** @type {Drawing} */ drawing) => {
    const { g, color } = drawing;
    const { marks, n_turns } = this.grid;
    this.paintSettings(drawing);
    Object.assign(g, { textAlign: "center", textBaseline: "middle", font: g.font.replace("11px", "14px") });
    /** @type {[string, ?Cell][]} */
    const signs = n_turns ? [["■", marks.default], ["◆", marks.recommended], ["●", this.page.setting()]] : [];
    for (const [sign, one] of signs) {
      const { x, y } = one ? this.place(this.nearest(one)) : { x: NaN, y: NaN };
      if (isFinite(x + y)) writeText(drawing, sign, x, y);
    }
    if (this.cursor === null) return;
    const { x, y } = this.place(this.cursor);
    for (const [name, lineWidth] of Object.entries({ back: 4, text: 2 })) {
      Object.assign(g, { strokeStyle: color(name), lineWidth });
      g.strokeRect(x - 7, y - 7, 14, 14);
    }
  };

  // A subclass has its own of the following.

  /** @type {(drawing: Drawing) => void} */
  paintSettings = () => {};
  /** @type {(index: number) => {x: number, y: number}} pixel of a setting; NaN where it has none */
  place = () => this.pixel(NaN, NaN);
  /** @type {(key: string, index: number) => number} setting that an arrow key leads to */
  next = (_key, index) => index;
  /** @type {() => string[]} metrics to read out */
  names = () => [this.page.metric()];
}

export class HeatMap extends SettingMap {
  place = (/** @type {number} */ index) => {
    const [T, S] = [this.grid.thresholds.length, this.grid.silences_ms.length];
    return this.pixel(((index % S) + 0.5) / S, (Math.floor(index / S) + 0.5) / T);
  };

  next = (/** @type {string} */ key, /** @type {number} */ index) => {
    const S = this.grid.silences_ms.length;
    const to = index + ({ ArrowLeft: -1, ArrowRight: 1, ArrowUp: S, ArrowDown: -S }[key] ?? 0);
    const isSameRow = Math.floor(to / S) === Math.floor(index / S);
    return to in this.values && (isSameRow || /Up|Down/.test(key)) ? to : index;
  };

  get values() {
    return this.grid.values[this.page.metric()] ?? this.grid.values.cut_off_rate;
  }

  /** Lowest and highest value of the shown metric. */
  get range() {
    const finite = this.values.filter(isFinite);
    return [Math.min(...finite), Math.max(...finite)];
  }

  paintSettings = (/** @type {Drawing} */ { g, color, width }) => {
    const { thresholds, silences_ms } = this.grid;
    const [low, high] = this.range;
    const [from, to] = [this.pixel(0, 1 / thresholds.length), this.pixel(1 / silences_ms.length, 0)];
    this.values.forEach((value, i) => {
      const share = high > low ? (value - low) / (high - low) : 0;
      const { x, y } = this.place(i);
      g.fillStyle = isFinite(value) ? `hsl(${40 - 110 * share} ${85 - 25 * share}% ${88 - 74 * share}%)` : color("raised");
      g.fillRect(x - (to.x - from.x) / 2, y - (to.y - from.y) / 2, to.x - from.x + 0.6, to.y - from.y + 0.6);
    });
    g.fillStyle = color("faint");
    thresholds.forEach((one, t) => t % 4 || g.fillText(one.toFixed(1), 18, this.place(t * silences_ms.length).y + 4));
    const every = Math.ceil(60 / (to.x - from.x));
    silences_ms.forEach((ms, s) => s % every || this.place(s).x + 46 > width || g.fillText(`${ms} ms`, this.place(s).x - 4, BOX.height - 6));
  };
}

export class TradeOffMap extends SettingMap {
  place = (/** @type {number} */ index) => {
    const { delay_p90_ms, cut_off_rate } = this.grid.values;
    const [most_ms, most] = this.most;
    return this.pixel(delay_p90_ms[index] / most_ms, cut_off_rate[index] / most);
  };

  next = (/** @type {string} */ key, /** @type {number} */ index) => {
    const { front } = this.grid;
    const at = front.indexOf(index) + (/Right|Down/.test(key) ? 1 : -1);
    return front[Math.min(front.length - 1, Math.max(0, at))] ?? index;
  };

  names = () => ["cut_off_rate", "delay_p90_ms"];

  get most() {
    const { delay_p90_ms, cut_off_rate } = this.grid.values;
    return [Math.max(500, ...delay_p90_ms.filter(isFinite)), Math.max(0.05, ...cut_off_rate.filter(isFinite))];
  }

  paintSettings = (/** @type {Drawing} */ { g, color, width }) => {
    const [most_ms, most] = this.most;
    g.fillStyle = color("faint");
    for (const share of [0, 0.5, 1]) g.fillText(`${Math.round(100 * share * most)} %`, 6, this.pixel(0, share).y + 4);
    const step_ms = most_ms > 2500 ? 1000 : 500;
    for (let ms = step_ms; this.pixel(ms / most_ms, 0).x + 22 < width; ms += step_ms) g.fillText(`${ms} ms`, this.pixel(ms / most_ms, 0).x - 16, BOX.height - 6);
    Object.assign(g, { fillStyle: color("text"), strokeStyle: color("accent"), globalAlpha: 0.4, lineWidth: 1.5 });
    const places = [...this.grid.values.cut_off_rate.keys()].map((i) => this.place(i));
    for (const { x, y } of places) g.fillRect(x - 1.5, y - 1.5, 3, 3); // NaN draws nothing
    g.globalAlpha = 1;
    g.beginPath();
    for (const i of this.grid.front) g.lineTo(places[i].x, places[i].y);
    g.stroke();
  };
}
