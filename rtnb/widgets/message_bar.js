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
 * @property {string} figures each step of the last turn, one to a line
 */
import { add, button, fileButton, onChannel, put, watch } from "./shared.js";

/** A line that opens a popover on a click. */
function folded(/** @type {Element} */ parent, /** @type {string} */ className) {
  const fold = add(parent, "details", { className });
  const [line, popover] = [add(fold, "summary"), add(fold, "div", { className: "rtnb-popover" })];
  fold.onkeydown = (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && (fold.open = false);
  return { fold, line, popover };
}

/** @param {import("./types").ViewProps<State>} props */
function render({ model, el, channel, signal }) {
  const stream = channel.openStream(model.get("stream_name"), () => {}, signal);
  const root = add(el, "div", { className: "rtnb rtnb-message-bar" });
  const form = add(root, "form", { className: "rtnb-message-form" });
  const text = add(form, "textarea", { rows: 1, placeholder: "Type a message (Enter to send)", dir: "auto", "aria-label": "Message" });
  add(form, "button", { type: "submit", className: "rtnb-primary", textContent: "Send" });
  const file = fileButton(form, stream, "sound", signal, (progress, failed) => setOwn(progress, failed));
  const cancel = button(form, "Cancel", () => stream.send("cancel", {}), { className: "rtnb-choose", title: "Stop sending the audio file" });
  const stop = button(form, "Interrupt", () => stream.send("interrupt", {}), { title: "Stop the answer" });
  const foot = add(root, "div", { className: "rtnb-foot" });
  const status = folded(foot, "rtnb-status-line");
  const turn = folded(foot, "rtnb-last-turn");
  const words = add(status.line, "span");
  put(status.line, { "aria-label": "Status" });
  let own = { text: "", isProblem: false }; // of this page: an upload under way, or one that failed

  const show = () => {
    const line = own.text ? own : { text: model.get("status"), isProblem: model.get("is_problem") };
    const role = line.isProblem ? "alert" : "status";
    put(words, { role, className: line.isProblem ? "rtnb-error" : "", textContent: line.text });
    put(status.popover, { textContent: line.text, hidden: !line.text });
    put(file.choose, { textContent: file.isSending() ? "Cancel" : "Audio file…", title: "Send an audio file…", className: "rtnb-choose", hidden: model.get("busy") });
    put(cancel, { hidden: !model.get("busy") });
    put(stop, { disabled: !model.get("can_interrupt") });
    put(turn.fold, { hidden: !model.get("last_turn") });
    put(turn.line, { textContent: `Last turn: ${model.get("last_turn")} (details)` });
    put(turn.popover, { textContent: model.get("figures") });
  };
  const setOwn = (line = "", isProblem = false) => {
    own = { text: line, isProblem };
    show();
  };

  form.onsubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!text.value.trim()) return text.focus();
    if (!stream.send("ask", { text: text.value })) return setOwn("Not sent: the connection to the kernel is full. Try again.", true);
    setOwn();
    text.value = "";
  };
  text.onkeydown = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  };
  watch(model, ["status", "is_problem", "busy", "can_interrupt", "last_turn", "figures"], show, signal);
}

export default onChannel(render);
