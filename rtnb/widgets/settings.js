/**
 * Style of the knobs around it, and names of their sliders; in turn detection also its presets, a button each, pressed where
 * the knobs equal it.
 *
 * @typedef {object} State
 * @property {[string, string][]} presets pairs of name and meaning
 * @property {string} selected name of the pressed one
 */
import { add, put, toggleButton, watch } from "./shared.js";

/**
 * Name the sliders in the box that holds `el`, also those that come later: ipywidgets shows their label, but leaves the
 * handle without a name for screen readers.
 * @param {HTMLElement} el
 * @param {AbortSignal} signal ends it
 */
function nameSliders(el, signal) {
  const root = el.isConnected ? el.parentElement : null;
  if (!root) {
    if (!signal.aborted) requestAnimationFrame(() => nameSliders(el, signal));
    return;
  }
  const name = () => {
    for (const slider of root.querySelectorAll(".widget-slider")) {
      const handle = slider.querySelector("[role=slider]");
      if (handle) put(handle, { "aria-label": slider.querySelector(".widget-label")?.textContent });
    }
  };
  const observer = new MutationObserver(name);
  observer.observe(root, { childList: true, subtree: true });
  signal.addEventListener("abort", () => observer.disconnect());
  name();
}

/** @param {import("./types").RenderProps<State>} props */
function render({ model, el, signal }) {
  const presets = model.get("presets");
  put(el, { className: `${el.className} rtnb rtnb-turn-presets`, role: "group", "aria-label": "Presets of turn detection", hidden: !presets.length });
  const buttons = presets.map(([name, meaning]) => {
    const preset = toggleButton(el, "", () => model.send({ preset: name }));
    preset.append(add(null, "b", { textContent: name }), ` ${meaning}`);
    return preset;
  });
  nameSliders(el, signal);
  watch(model, ["selected"], () => {
    buttons.forEach((preset, i) => put(preset, { "aria-pressed": presets[i][0] === model.get("selected") }));
  }, signal);
}

export default { render };
