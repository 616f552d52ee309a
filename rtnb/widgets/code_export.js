/**
 * The running settings as code, with a button that copies it. The code may hold texts of a service: `textContent` only.
 *
 * @typedef {object} State
 * @property {string} language which program is shown
 * @property {string} code the program
 */

export const LANGUAGES = ["rtnb", "openai (Python)", "JavaScript", "curl"];

function render({ model, el }) {
  el.classList.add("rtnb", "rtnb-code");
  const bar = document.createElement("div");
  bar.className = "rtnb-code-bar";
  const choice = document.createElement("select");
  choice.setAttribute("aria-label", "Language of the code");
  for (const language of LANGUAGES) choice.add(new Option(language, language));
  const copy = document.createElement("button");
  copy.type = "button";
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  copy.textContent = "Copy";
  bar.append(choice, copy, said);
  const block = document.createElement("pre");
  block.tabIndex = 0;
  block.setAttribute("aria-label", "Code");
  el.append(bar, block);

  const show = () => {
    choice.value = model.get("language");
    block.textContent = model.get("code");
    said.textContent = "";
  };
  choice.addEventListener("change", () => {
    model.set("language", choice.value);
    model.save_changes();
  });
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(block.textContent);
      said.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(block); // an insecure page may not write to the clipboard
      said.textContent = "selected: press Ctrl+C";
    }
  });
  model.on("change:language", show);
  model.on("change:code", show);
  show();
  return () => {
    model.off("change:language", show);
    model.off("change:code", show);
  };
}

export default { render };
