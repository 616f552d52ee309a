/**
 * A text box, audio files, Interrupt, one status line, and the figures of the last turn.
 *
 * @typedef {object} State
 * @property {string} channel reference to the page's channel
 * @property {string} stream_name name of its stream
 * @property {string} status the status line
 * @property {boolean} is_problem whether it tells a problem
 * @property {boolean} busy whether an audio file is being sent
 * @property {boolean} can_interrupt whether an answer is made or played
 * @property {string} last_turn latency of the last turn in one line
 * @property {[string, string, string][]} figures name, value and explanation of each step
 */
import { add, button, fileButton, keepTyping, onChannel, put, watch } from "./shared.js";

/** A line that opens a popover on a click. */
function folded(/** @type {Element} */ parent, /** @type {string} */ className) {
  const fold = add(parent, "details", { className });
  const [line, popover] = [add(fold, "summary"), add(fold, "div", { className: "rtnb-popover" })];
  fold.onkeydown = (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && (fold.open = false);
  return { fold, line, popover };
}

/** The last turn: one line, and on a click its steps. @returns {(text: string, figures: [string, string, string][]) => void} */
function lastTurn(/** @type {Element} */ parent) {
  const { fold, line, popover } = folded(parent, "rtnb-last-turn");
  const steps = add(popover, "table");
  return (text, figures) => {
    put(fold, { hidden: !text });
    put(line, { textContent: `Last turn: ${text} (details)` });
    const row = (/** @type {string} */ tag, /** @type {0 | 1} */ part) =>
      add(null, "tr", {}, ...figures.map((figure) => add(null, tag, { textContent: figure[part], title: figure[2] })));
    steps.replaceChildren(row("th", 0), row("td", 1));
  };
}

/** The status line: one line at a fixed place; a click shows a long text whole. */
function statusLine(/** @type {Element} */ parent) {
  const { line, popover } = folded(parent, "rtnb-status-line");
  const status = add(line, "span");
  put(line, { "aria-label": "Status" });
  return (/** @type {string} */ text, /** @type {boolean} */ isProblem) => {
    put(status, { role: isProblem ? "alert" : "status", className: isProblem ? "rtnb-error" : "", textContent: text });
    put(popover, { textContent: text, hidden: !text });
  };
}

/** @param {import("./types").ViewProps<State>} props */
function render({ model, el, channel, signal }) {
  const stream = channel.openStream(model.get("stream_name"), () => {}, signal);
  const root = add(el, "div", { className: "rtnb rtnb-message-bar" });
  const form = add(root, "form", { className: "rtnb-message-form" });
  const text = add(form, "textarea", { rows: 1, placeholder: "Type a message (Enter to send)", dir: "auto", "aria-label": "Message" });
  add(form, "button", { type: "submit", className: "rtnb-primary", textContent: "Send" });
  const file = fileButton(form, stream, "sound", signal, (words, failed) => setOwn(words, failed));
  const cancel = button(form, "Cancel", () => stream.send("cancel", {}), { className: "rtnb-choose", title: "Stop sending the audio file" });
  const stop = button(form, "Interrupt", () => stream.send("interrupt", {}), { title: "Stop the answer" });
  const foot = add(root, "div", { className: "rtnb-foot" });
  const setStatus = statusLine(foot);
  const setTurn = lastTurn(foot);
  let own = { text: "", isProblem: false }; // of this page: an upload under way, or one that failed

  const show = () => {
    if (own.text) setStatus(own.text, own.isProblem);
    else setStatus(model.get("status"), model.get("is_problem"));
    put(file.choose, { textContent: file.isSending() ? "Cancel" : "Audio file…", title: "Send an audio file…", className: "rtnb-choose", hidden: model.get("busy") });
    put(cancel, { hidden: !model.get("busy") });
    put(stop, { disabled: !model.get("can_interrupt") });
    setTurn(model.get("last_turn"), model.get("figures"));
  };
  const setOwn = (words = "", isProblem = false) => {
    own = { text: words, isProblem };
    show();
  };

  form.onsubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!text.value.trim()) return text.focus();
    if (!stream.send("ask", { text: text.value })) return setOwn("Not sent: the connection to the kernel is full. Try again.", true);
    setOwn();
    text.value = "";
  };
  keepTyping(text);
  text.onkeydown = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  };
  watch(model, ["status", "is_problem", "busy", "can_interrupt", "last_turn", "figures"], show, signal);
}

export default onChannel(render);
