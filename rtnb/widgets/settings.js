/** Style of the knobs around it, and names of their sliders; it shows nothing itself. */
import { nameSliders } from "./shared.js";

/** @param {import("./types").RenderProps} props */
function render({ el, signal }) {
  el.hidden = true;
  nameSliders(el, signal);
}

export default { render };
