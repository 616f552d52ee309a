/** Presets of turn detection: a button each, pressed where the knobs equal it. */
import { add, putAttribute, toggleButton, watch } from "./shared.js";

/** @typedef {{presets: [string, string][], selected: string}} State pairs of name and meaning; name of the pressed one */

/** @param {import("./types").RenderProps<State>} props */
function render({ model, el }) {
  el.className += " rtnb rtnb-turn-presets";
  el.role = "group";
  el.ariaLabel = "Presets of turn detection";
  /** @type {Record<string, HTMLElement>} */
  const buttons = {};
  for (const [name, meaning] of model.get("presets")) {
    buttons[name] = toggleButton(el, {}, () => model.send({ preset: name }));
    add(buttons[name], "b", { textContent: name });
    buttons[name].append(` ${meaning}`);
  }
  return watch(model, ["selected"], () => {
    for (const [name, button] of Object.entries(buttons)) putAttribute(button, "aria-pressed", name === model.get("selected"));
  });
}

export default { render };
