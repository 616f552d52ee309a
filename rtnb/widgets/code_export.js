/** Settings as code, with a button that copies it. The code may hold texts of a service: `textContent` only. */
import { add, button, put, save, watch } from "./shared.js";

/** @typedef {{language: string, form: string, code: string}} State */

export const LANGUAGES = ["rtnb", "openai (Python)", "JavaScript", "curl"];

/** Python code is for a notebook or for a script. */
const TWO_FORMS = LANGUAGES.slice(0, 2);

/** @param {import("./types").RenderProps<State>} props */
function render({ model, el, signal }) {
  el.className += " rtnb rtnb-code";
  const bar = add(el, "div", { className: "rtnb-code-bar" });
  /** @type {(name: "language" | "form", label: string, values: string[]) => HTMLSelectElement} */
  const choice = (name, label, values) => {
    const onchange = (/** @type {any} */ { target }) => save(model, { [name]: target.value });
    return add(bar, "select", { "aria-label": label, onchange }, ...values.map((value) => new Option(value, value)));
  };
  const language = choice("language", "Language", LANGUAGES);
  const form = choice("form", "Form", ["notebook", "script"]);
  button(bar, "Copy code", async () => {
    try {
      await navigator.clipboard.writeText(block.textContent);
      status.textContent = "Copied";
    } catch {
      getSelection()?.selectAllChildren(block); // an insecure page may not write to the clipboard
      status.textContent = "Selected: press Ctrl+C";
    }
  });
  const status = add(bar, "span", { role: "status" });
  const block = add(el, "pre", { tabIndex: 0, role: "region", "aria-label": "Code" });
  watch(model, ["language", "form", "code"], () => {
    put(language, { value: model.get("language") });
    put(form, { value: model.get("form"), hidden: !TWO_FORMS.includes(model.get("language")) });
    block.textContent = model.get("code");
    status.textContent = "";
  }, signal);
}

export default { render };
