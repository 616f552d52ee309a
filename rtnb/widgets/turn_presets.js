/** Presets of turn detection: a button each, pressed where the knobs equal it. */
import { add, nameSliders, put, toggleButton, watch } from "./shared.js";

/** @typedef {{presets: [string, string][], selected: string}} State pairs of name and meaning; name of the pressed one */

/** @param {import("./types").RenderProps<State>} props */
function render({ model, el, signal }) {
  put(el, { className: `${el.className} rtnb rtnb-turn-presets`, role: "group", "aria-label": "Presets of turn detection" });
  /** @type {Record<string, HTMLElement>} */
  const buttons = {};
  for (const [name, meaning] of model.get("presets")) {
    buttons[name] = toggleButton(el, "", () => model.send({ preset: name }));
    buttons[name].append(add(null, "b", { textContent: name }), ` ${meaning}`);
  }
  nameSliders(el, signal);
  watch(model, ["selected"], () => {
    for (const [name, preset] of Object.entries(buttons)) put(preset, { "aria-pressed": name === model.get("selected") });
  }, signal);
}

export default { render };
