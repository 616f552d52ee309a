/** Canvas that is painted at most once per animation frame, also when its size changes, and that the keyboard reaches. */
import { add, drawing, onKey } from "./shared.js";

/** @typedef {{g: CanvasRenderingContext2D, width: number, color: (name: string) => string}} Drawing */

/**
 * Write a text with a halo, readable on any background.
 * @type {(drawing: Drawing, text: string, x: number, y: number) => void}
 */
export const writeText = ({ g, color }, text, x, y) => {
  Object.assign(g, { strokeStyle: color("back"), fillStyle: color("text"), lineWidth: 3, lineJoin: "round" });
  g.strokeText(text, x, y);
  g.fillText(text, x, y);
};

export class PaintedCanvas {
  frame = 0;

  /**
   * @param {Element} parent
   * @param {number} height CSS pixels
   * @param {string} label name and keys, for screen readers
   * @param {AbortSignal} signal ends it
   */
  constructor(parent, height, label, signal) {
    this.height = height;
    /** @type {HTMLCanvasElement} */
    this.canvas = add(parent, "canvas", { tabIndex: 0, role: "application", "aria-label": label, style: `height: ${height}px` });
    const sizes = new ResizeObserver(() => this.draw());
    sizes.observe(this.canvas);
    signal.addEventListener("abort", () => (sizes.disconnect(), cancelAnimationFrame(this.frame)));
    onKey(this.canvas, (event) => !event.ctrlKey && !event.metaKey && this.onPress(event.key), signal);
  }

  draw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (this.canvas.clientWidth) this.paint(drawing(this.canvas, this.height));
    });
  }

  /** @type {(drawing: Drawing) => void} draws everything */
  paint = () => {};

  /** @type {(key: string) => boolean} handles a key; true where it is used */
  onPress = () => false;
}
