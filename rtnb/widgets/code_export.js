/** Settings as code, with a button that copies it. The code may hold texts of a service: `textContent` only. */
import { add, watch } from "./shared.js";

/** @typedef {{language: string, form: string, code: string}} State */

export const LANGUAGES = ["rtnb", "openai (Python)", "JavaScript", "curl"];

/** Python code is for a notebook or for a script. */
const TWO_FORMS = LANGUAGES.slice(0, 2);

/** @param {import("./types").RenderProps<State>} props */
function render({ model, el }) {
  el.className += " rtnb rtnb-code";
  const bar = add(el, "div", { className: "rtnb-code-bar" });
  /** @type {(name: "language" | "form", label: string, values: string[]) => HTMLSelectElement} */
  const choice = (name, label, values) => {
    const select = add(bar, "select", { "aria-label": label }, ...values.map((value) => new Option(value, value)));
    select.addEventListener("change", () => {
      model.set(name, select.value);
      model.save_changes();
    });
    return select;
  };
  const language = choice("language", "Language", LANGUAGES);
  const form = choice("form", "Form", ["notebook", "script"]);
  const copy = add(bar, "button", { type: "button", textContent: "Copy code" });
  const status = add(bar, "span", { role: "status" });
  const block = add(el, "pre", { tabIndex: 0, role: "region", "aria-label": "Code" });
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(block.textContent);
      status.textContent = "Copied";
    } catch {
      getSelection()?.selectAllChildren(block); // an insecure page may not write to the clipboard
      status.textContent = "Selected: press Ctrl+C";
    }
  });
  return watch(model, ["language", "form", "code"], () => {
    [language.value, form.value, form.hidden] = [model.get("language"), model.get("form"), !TWO_FORMS.includes(model.get("language"))];
    block.textContent = model.get("code");
    status.textContent = "";
  });
}

export default { render };
