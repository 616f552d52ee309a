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
import { add, decodeFile, keepTyping, put, putAttribute, upload, watch } from "./shared.js";

const COLUMNS = ["Answer", "Generated", "Received", "Played", "Heard", ""];

/** The data to send and its rate: WAV files go as they are (the kernel reads more kinds than browsers do). */
export async function readSound(/** @type {Blob} */ file) {
  if ((await file.slice(0, 4).text()) === "RIFF") return { data: file, rate_hz: null };
  return { data: (await decodeFile(file)).buffer, rate_hz: 24000 };
}

/** The cells of a row of the table: milliseconds, or – where they are not known. */
export function heardCells(/** @type {any[]} */ [item, , generated, received, played, heard, cut]) {
  const ms = (/** @type {?number} */ value) => (value === null ? "–" : `${Math.round(value)} ms`);
  return [item, ms(generated), ms(received), ms(played), ms(heard), cut ? "cut" : ""];
}

/** The last turn: one line, and on a click its steps and the table of answers. */
function lastTurn(/** @type {Element} */ parent) {
  const fold = add(parent, "details", { className: "rtnb-last-turn", hidden: true });
  const summary = add(fold, "summary");
  const box = add(fold, "div", { className: "rtnb-popover" });
  const steps = add(box, "dl");
  const table = add(box, "table", { title: "Audio of each answer: made by the service, received, played, and heard by the user" });
  const row = (/** @type {string} */ tag, /** @type {string[]} */ cells) => add(null, "tr", {}, ...cells.map((textContent) => add(null, tag, { textContent, title: textContent })));
  add(table, "thead", {}, row("th", COLUMNS));
  const body = add(table, "tbody");
  fold.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && (fold.open = false));
  return {
    showHeard: (/** @type {any[][]} */ items) => body.replaceChildren(...items.map((item) => row("td", heardCells(item)))),
    showTurn: (/** @type {string} */ text, /** @type {[string, string, string][]} */ figures) => {
      put(fold, "hidden", !text);
      put(summary, "textContent", `Last turn: ${text} (details)`);
      steps.replaceChildren(
        ...figures.map(([name, value, title]) => add(null, "div", { title }, add(null, "dt", { textContent: name }), add(null, "dd", { textContent: value }))),
      );
    },
  };
}

/** The status line: one line at a fixed place; More shows a long text whole. */
function statusLine(/** @type {Element} */ parent) {
  const root = add(parent, "div", { className: "rtnb-status-line" });
  const line = add(root, "span", { role: "status" });
  const more = add(root, "button", { type: "button", textContent: "More", "aria-expanded": "false", hidden: true });
  const whole = add(root, "div", { className: "rtnb-popover", hidden: true });
  const open = (/** @type {boolean} */ isOpen) => {
    put(whole, "hidden", !isOpen);
    putAttribute(more, "aria-expanded", isOpen);
  };
  more.addEventListener("click", () => open(whole.hidden));
  const measure = () => {
    put(more, "hidden", line.scrollWidth <= line.clientWidth && !whole.textContent.includes("\n"));
    if (more.hidden) open(false);
  };
  new ResizeObserver(measure).observe(root); // ends with its element
  return (/** @type {string} */ text, /** @type {boolean} */ isProblem) => {
    putAttribute(line, "role", isProblem ? "alert" : "status");
    line.classList.toggle("rtnb-error", isProblem);
    put(line, "textContent", text);
    put(whole, "textContent", text);
    measure();
  };
}

/** @param {import("./types").RenderProps<State>} props */
async function render({ model, el, host }) {
  const { exports: channel } = await host.getWidget(model.get("channel"));
  const root = add(el, "div", { className: "rtnb rtnb-message-bar" });
  const form = add(root, "form", { className: "rtnb-message-form" });
  const text = add(form, "textarea", { rows: 1, placeholder: "Type a message (Enter to send)", dir: "auto", "aria-label": "Message" });
  add(form, "button", { type: "submit", className: "rtnb-primary", textContent: "Send" });
  const choose = add(form, "button", { type: "button", className: "rtnb-choose" });
  const stop = add(form, "button", { type: "button", textContent: "Interrupt", title: "Stop the answer" });
  const file = add(form, "input", { type: "file", accept: "audio/*,.wav", hidden: true, "aria-label": "Audio file" });
  const foot = add(root, "div", { className: "rtnb-foot" });
  const setStatus = statusLine(foot);
  const turn = lastTurn(foot);
  const stream = channel.openStream(model.get("stream_name"), (/** @type {string} */ kind, /** @type {any} */ { items }) => {
    if (kind === "heard") turn.showHeard(items);
  });
  /** @type {?AbortController} */
  let sending = null;
  let own = { text: "", isProblem: false }; // of this page: an upload under way, or one that failed

  const show = () => {
    if (own.text) setStatus(own.text, own.isProblem);
    else setStatus(model.get("status"), model.get("is_problem"));
    const busy = sending !== null || model.get("busy");
    put(choose, "textContent", busy ? "Cancel" : "Audio file…");
    put(choose, "title", busy ? "Stop sending the audio file" : "Send an audio file…");
    put(stop, "disabled", !model.get("can_interrupt"));
    turn.showTurn(model.get("last_turn"), model.get("figures"));
  };
  const setOwn = (words = "", isProblem = false) => {
    own = { text: words, isProblem };
    show();
  };

  form.addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!text.value.trim()) return text.focus();
    setOwn();
    if (stream.send("ask", { text: text.value }) === false) setOwn("Not sent: the connection to the kernel is full. Try again.", true);
    else text.value = "";
  });
  keepTyping(text);
  text.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  stop.addEventListener("click", () => stream.send("interrupt", {}));
  choose.addEventListener("click", () => {
    if (sending) sending.abort(new Error("cancelled"));
    else if (model.get("busy")) stream.send("cancel", {});
    else file.click();
  });
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    file.value = "";
    if (!chosen || sending) return;
    const { signal } = (sending = new AbortController());
    setOwn(`Reading ${chosen.name} …`);
    try {
      const { data, rate_hz } = await readSound(chosen);
      const onProgress = (/** @type {number} */ sent, /** @type {number} */ size) => setOwn(`Sending ${chosen.name}: ${Math.floor((100 * sent) / size)} %`);
      await upload(stream, "sound", data, { rate_hz }, { onProgress, signal });
      setOwn();
    } catch (error) {
      if (signal.aborted) setOwn(`${chosen.name} was not sent: cancelled.`);
      else setOwn(`${chosen.name} was not sent: ${/** @type {Error} */ (error).message}`, true);
    }
    sending = null;
    show();
  });
  const unwatch = watch(model, ["status", "is_problem", "busy", "can_interrupt", "last_turn", "figures"], show);
  return () => {
    unwatch();
    sending?.abort(new Error("the page closed it"));
    stream.close();
  };
}

export default { render };
