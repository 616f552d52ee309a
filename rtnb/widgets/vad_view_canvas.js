/** Texts on the canvases of the VAD lab. */

/**
 * Write a text with a halo, readable on any background.
 * @type {(drawing: import("./shared.js").Drawing, text: string, x: number, y: number) => void}
 */
export const writeText = ({ g, color }, text, x, y) => {
  Object.assign(g, { strokeStyle: color("back"), fillStyle: color("text"), lineWidth: 3, lineJoin: "round" });
  g.strokeText(text, x, y);
  g.fillText(text, x, y);
};
