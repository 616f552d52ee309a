/**
 * Overlaps of the VAD lab: the share of clips that start a turn over the threshold, one line per kind. The pointer or the arrow keys
 * set the threshold that applies while the assistant speaks.
 *
 * @typedef {{kind: string, n: number, n_groups: number, rates: number[], low: ?number[], high: ?number[]}} Curve
 *   shares from 0 to 1, one per threshold; no interval where it is not shown
 * @typedef {{thresholds: number[], curves: Curve[], speaking_threshold: number, listening_threshold: number}} State
 */
import { PaintedCanvas, add, put, watch } from "./shared.js";
import { writeText } from "./vad_view_maps.js";

const PLOT = { left: 44, right: 120, top: 10, bottom: 20, height: 200 };
const WANTED = ["interruption", "turn"]; // solid lines: these should start a turn

class OverlapPlot extends PaintedCanvas {
  constructor(/** @type {Element} */ parent, /** @type {import("./types").RenderProps<State>} */ { model, signal }) {
    super(parent, PLOT.height, "Clips that start a turn, over the threshold. Arrow keys set the threshold while the assistant speaks.", signal);
    this.model = model;
    this.canvas.onpointerdown = this.canvas.onpointermove = ({ buttons, offsetX }) => {
      if (buttons) this.take((offsetX - PLOT.left) / (this.canvas.clientWidth - PLOT.left - PLOT.right));
    };
  }

  take(/** @type {number} */ threshold) {
    this.model.set("speaking_threshold", Number(Math.min(1, Math.max(0, threshold)).toFixed(2)));
    this.model.save_changes();
  }

  onPress = (/** @type {string} */ key) => {
    const step = { ArrowLeft: -0.01, ArrowDown: -0.01, ArrowRight: 0.01, ArrowUp: 0.01 }[key];
    if (step) this.take(this.model.get("speaking_threshold") + step);
    return Boolean(step);
  };

  paint = (/** @type {import("./shared.js").Drawing} */ drawing) => {
    const { g, width, color } = drawing;
    const thresholds = this.model.get("thresholds");
    const x = (/** @type {number} */ threshold) => PLOT.left + threshold * (width - PLOT.left - PLOT.right);
    const y = (/** @type {number} */ share) => PLOT.top + (1 - share) * (PLOT.height - PLOT.top - PLOT.bottom);
    g.fillStyle = color("faint");
    for (const share of [0, 0.5, 1]) g.fillText(`${100 * share} %`, 6, y(share) + 4);
    for (const threshold of [0, 0.25, 0.5, 0.75, 1]) g.fillText(String(threshold), x(threshold) - 6, PLOT.height - 5);
    const ends = this.model.get("curves").map(({ kind, rates, low, high }, i) => {
      Object.assign(g, { strokeStyle: color(i % 2 ? "text" : "accent"), fillStyle: color("accent"), lineWidth: 1.5, globalAlpha: 0.12 });
      if (low && high) this.trace(g, [...thresholds, ...thresholds.toReversed()].map(x), [...low, ...high.toReversed()].map(y)), g.fill();
      g.globalAlpha = 1;
      g.setLineDash(WANTED.includes(kind) ? [] : [2 + 2 * i, 3]);
      this.trace(g, thresholds.map(x), rates.map(y)), g.stroke();
      return { kind, at: y(rates.at(-1) ?? 0) };
    });
    g.setLineDash([]);
    let free = 0; // names at the right end, none over another
    for (const { kind, at } of ends.sort((a, b) => a.at - b.at)) {
      free = Math.max(free + 13, at + 4);
      writeText(drawing, kind, width - PLOT.right + 6, Math.min(free, PLOT.height - 4));
    }
    for (const [name, sign] of /** @type {const} */ ([["listening_threshold", "○"], ["speaking_threshold", "●"]])) {
      g.fillStyle = color("text");
      g.fillRect(x(this.model.get(name)) - 0.5, PLOT.top, 1, PLOT.height - PLOT.top - PLOT.bottom);
      writeText(drawing, sign, x(this.model.get(name)) - 4, PLOT.top + 2);
    }
  };

  trace(/** @type {CanvasRenderingContext2D} */ g, /** @type {number[]} */ xs, /** @type {number[]} */ ys) {
    g.beginPath();
    xs.forEach((x, i) => g.lineTo(x, ys[i]));
  }
}

/** @param {import("./types").RenderProps<State>} props */
function render(props) {
  const { model, el, signal } = props;
  const root = add(el, "div", { className: "rtnb rtnb-vad" });
  add(root, "div", { textContent: "Overlaps: clips that start a turn" });
  const plot = new OverlapPlot(root, props);
  add(root, "div", { className: "rtnb-faint", textContent: "○ while the assistant listens   ● while it speaks   solid: should start a turn   dashed: should not" });
  const readout = add(root, "output");
  const show = () => {
    const [thresholds, at] = [model.get("thresholds"), model.get("speaking_threshold")];
    const index = thresholds.reduce((best, one, i) => (Math.abs(one - at) < Math.abs(thresholds[best] - at) ? i : best), 0);
    const parts = model.get("curves").map(({ kind, n, n_groups, rates, low, high }) => {
      const ends = low && high ? `${Math.round(100 * low[index])} to ${Math.round(100 * high[index])} %` : "interval not shown";
      return `${kind} ${Math.round(100 * rates[index])} % (${ends}; n = ${n}, ${n_groups} groups)`;
    });
    put(readout, { textContent: `Threshold ${at.toFixed(2)}: ${parts.join(" · ")}` });
    plot.draw();
  };
  watch(model, ["thresholds", "curves", "speaking_threshold", "listening_threshold"], show, signal);
}

export default { render };
