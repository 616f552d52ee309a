/**
 * Two instructions side by side, the grid of their runs, and blind listening. Texts of people, models and services
 * are shown with textContent only.
 *
 * @typedef {{case: string, variant: string, repeat: number, error: string, grades: Record<string, boolean | number | null>}} Cell
 * @typedef {object} State
 * @property {string[]} names of the two variants
 * @property {string[]} texts
 * @property {[kind: "same" | "removed" | "added", words: string][]} changes
 * @property {[id: string, text: string][]} cases
 * @property {string[]} chosen
 * @property {number} repeats
 * @property {number} budget_usd
 * @property {string[]} graders
 * @property {string} grader
 * @property {"ready" | "running"} state
 * @property {string} status
 * @property {string} problem
 * @property {Cell[]} cells
 * @property {{case?: string, variant?: string, repeat?: number, lines?: string[]}} opened
 * @property {boolean} has_result
 * @property {{waiting?: number, n?: number, preference?: string}} pair
 * @property {string} code
 *
 * @typedef {import("./types").Model<State>} Lab
 */
import { add, button, download, put, save, watch } from "./shared.js";

const TAGS = { same: "span", removed: "del", added: "ins" };

/** Format a grade for a small cell. */
function formatGrade(/** @type {boolean | number | null | undefined} */ grade) {
  if (typeof grade === "boolean") return grade ? "✓" : "✗";
  return typeof grade === "number" ? String(Number(grade.toPrecision(3))) : "–";
}

function drawPrompts(/** @type {Lab} */ model, /** @type {Element} */ root, /** @type {AbortSignal} */ signal) {
  const box = add(root, "div", { className: "rtnb-prompts" });
  const fields = [0, 1].map((side) => {
    const label = add(box, "label");
    const name = add(label, "span");
    const field = add(label, "textarea", { spellcheck: false });
    field.oninput = () => save(model, { texts: model.get("texts").map((text, i) => (i === side ? field.value : text)) });
    return { name, field };
  });
  const changes = add(box, "div", { className: "rtnb-changes", role: "group", "aria-label": "Changes" });
  watch(model, ["names", "texts", "changes", "state"], () => {
    fields.forEach(({ name, field }, side) => {
      put(name, { textContent: `Instructions ${model.get("names")[side]}` });
      put(field, { value: model.get("texts")[side], disabled: model.get("state") === "running" });
    });
    const same = model.get("changes").every(([kind]) => kind === "same");
    const parts = model.get("changes").map(([kind, words]) => add(null, TAGS[kind], { textContent: words }));
    changes.replaceChildren(...(same ? ["Both instructions are the same."] : ["Changes: ", ...parts]));
  }, signal);
}

function drawControls(/** @type {Lab} */ model, /** @type {Element} */ root, /** @type {AbortSignal} */ signal) {
  const row = add(root, "div", { className: "rtnb-row" });
  const run = button(row, "", () => model.send({ kind: model.get("state") === "running" ? "stop" : "run" }), { className: "rtnb-run" });
  const numbers = /** @type {const} */ ([["repeats", "Repeats", 1, 1], ["budget_usd", "Budget (US$)", 0, 0.1]]).map(([name, text, min, step]) => {
    const field = add(add(row, "label", { textContent: text }), "input", { type: "number", min, step });
    field.onchange = () => field.validity.valid && field.value && save(model, { [name]: Number(field.value) });
    return { name, field };
  });
  const status = add(row, "span", { role: "status" });
  const problem = add(root, "div", { className: "rtnb-message rtnb-error", role: "alert" });
  watch(model, ["state", "repeats", "budget_usd", "status", "problem", "chosen"], () => {
    const running = model.get("state") === "running";
    put(run, { textContent: running ? "Stop" : "Run", disabled: !running && !model.get("chosen").length });
    for (const { name, field } of numbers) put(field, { value: String(model.get(name)), disabled: running });
    put(status, { textContent: model.get("status") || `${2 * model.get("chosen").length * model.get("repeats")} runs` });
    put(problem, { textContent: model.get("problem"), hidden: !model.get("problem") });
  }, signal);
}

function drawGrid(/** @type {Lab} */ model, /** @type {Element} */ root, /** @type {AbortSignal} */ signal) {
  const section = add(root, "section");
  const bar = add(section, "label", { className: "rtnb-row", textContent: "Grade shown" });
  const grader = add(bar, "select", { onchange: () => save(model, { grader: grader.value }) });
  const table = add(section, "table", { className: "rtnb-runs" });
  const reasons = add(section, "div", { className: "rtnb-message", role: "status" });
  const choose = (/** @type {string} */ id, /** @type {boolean} */ on) => {
    const ids = model.get("cases").map(([one]) => one);
    save(model, { chosen: ids.filter((one) => (one === id ? on : model.get("chosen").includes(one))) });
  };
  const cell = (/** @type {Element} */ row, /** @type {string} */ id, /** @type {string} */ variant, /** @type {number} */ repeat) => {
    const run = model.get("cells").find((one) => one.case === id && one.variant === variant && one.repeat === repeat);
    const data = add(row, "td");
    if (!run) return put(data, { textContent: "" });
    const text = run.error ? "failed" : formatGrade(run.grades[model.get("grader")]);
    const opened = model.get("opened");
    const pressed = opened.case === id && opened.variant === variant && opened.repeat === repeat;
    const props = { "aria-pressed": pressed, "aria-label": `Case ${id}, ${variant}, repeat ${repeat + 1}: ${text}` };
    button(data, text, () => model.send({ kind: "open", case: id, variant, repeat }), { ...props, disabled: model.get("state") === "running" });
  };
  watch(model, ["names", "cases", "chosen", "repeats", "graders", "grader", "cells", "opened", "state"], () => {
    grader.replaceChildren(...model.get("graders").map((name) => new Option(name, name)));
    grader.value = model.get("grader");
    const repeats = Array.from({ length: model.get("repeats") }, (_, i) => i);
    const head = add(null, "tr", {}, add(null, "th", { scope: "col", textContent: "Case" }));
    for (const name of model.get("names")) add(head, "th", { scope: "colgroup", colSpan: repeats.length, textContent: name });
    const rows = model.get("cases").map(([id, text]) => {
      const row = add(null, "tr");
      const label = add(add(row, "th", { scope: "row", title: text }), "label");
      const box = add(label, "input", { type: "checkbox", checked: model.get("chosen").includes(id), disabled: model.get("state") === "running" });
      box.onchange = () => choose(id, box.checked);
      label.append(text);
      for (const name of model.get("names")) for (const repeat of repeats) cell(row, id, name, repeat);
      return row;
    });
    table.replaceChildren(head, ...rows);
    const { lines } = model.get("opened");
    put(reasons, { textContent: lines?.join("\n") ?? "", hidden: !lines?.length });
  }, signal);
}

function drawListening(/** @type {Lab} */ model, /** @type {Element} */ root, /** @type {AbortSignal} */ signal) {
  const section = add(root, "section");
  add(section, "h4", { textContent: "Which answer is better? Listen without knowing which is which" });
  const row = add(section, "div", { className: "rtnb-row" });
  const player = add(section, "audio", { controls: true, hidden: true });
  const plays = ["Play first", "Play second"].map((text, side) => button(row, text, () => model.send({ kind: "sound", side })));
  const votes = [["First is better", "first"], ["Second is better", "second"], ["No difference", "neither"]].map(([text, better]) =>
    button(row, text, () => model.send({ kind: "vote", better })));
  const outcome = add(section, "div", { role: "status" });
  let address = "";
  const clear = () => {
    player.pause();
    player.hidden = true;
    URL.revokeObjectURL(address);
  };
  const onMessage = (/** @type {any} */ { kind, side, html }, /** @type {DataView[]} */ [sound]) => {
    if (kind === "page") download("experiment.html", html, "text/html");
    if (kind !== "sound") return;
    clear();
    address = URL.createObjectURL(new Blob([/** @type {any} */ (sound)], { type: "audio/wav" }));
    put(player, { src: address, hidden: false, "aria-label": plays[side].textContent });
    player.play();
  };
  model.on("msg:custom", onMessage);
  signal.addEventListener("abort", () => model.off("msg:custom", onMessage));
  signal.addEventListener("abort", clear);
  watch(model, ["pair"], () => {
    const { waiting, n, preference } = model.get("pair");
    clear();
    section.hidden = n === undefined;
    for (const one of [...plays, ...votes]) one.disabled = !waiting;
    put(outcome, { textContent: `${waiting ? `Pair ${(n ?? 0) - waiting + 1} of ${n}` : "All pairs are done"}. ${preference}` });
  }, signal);
}

function drawCode(/** @type {Lab} */ model, /** @type {Element} */ root, /** @type {AbortSignal} */ signal) {
  const page = button(root, "Save as a page", () => model.send({ kind: "page" }));
  const details = add(root, "details", {}, add(null, "summary", { textContent: "Code" }));
  const code = add(details, "pre", { tabIndex: 0, role: "region", "aria-label": "Code" });
  watch(model, ["code", "has_result"], () => {
    put(page, { hidden: !model.get("has_result") });
    put(code, { textContent: model.get("code") });
  }, signal);
}

/** @param {import("./types").RenderProps<State>} props */
function render({ model, el, signal }) {
  const root = add(el, "div", { className: "rtnb rtnb-prompt-lab" });
  const isForm = model.get("texts") !== undefined; // the other part has neither prompts nor grid
  for (const draw of isForm ? [drawPrompts, drawControls, drawGrid] : [drawListening, drawCode]) draw(model, root, signal);
}

export default { render };
