/** The pane beside the table: one event with its meaning, its JSON and audio to play; or a form that sends a new event. */
import { ClipPlayer, add, button } from "./shared.js";
import { CAUSE, FLAGS, RECEIVED, TEXT, TIME, TYPE, firstOf, isRun, whole } from "./event_table.js";

const HELP = "Select an event to see its meaning and its JSON. Keys: ↑ ↓ PageUp PageDown Home End move, → unfolds, "
  + "← folds, / filters, f follows, c copies, Esc comes back.";
const paragraph = (/** @type {string} */ text, className = "") => add(null, "p", { textContent: text, className });

export class EventPane {
  /** @param {Element} parent @param {any} table an EventTable that also has `stream`, `note` and `copy` @param {AbortSignal} signal */
  constructor(parent, table, signal) {
    this.table = table;
    this.signal = signal;
    this.el = add(parent, "div", { className: "rtnb-ev-side", role: "region", "aria-label": "Event details", tabIndex: 0 });
    /** @type {?ClipPlayer} */ this.player = null;
    this.show(null);
  }
  /** Replace the content: a title with buttons, and what follows. */
  fill(/** @type {string} */ name, /** @type {any[]} */ buttons, /** @type {any[]} */ ...content) {
    const close = button(null, "×", () => { this.table.select(null); this.table.grid.focus(); }, { "aria-label": "Close details" });
    const title = add(null, "div", { className: "rtnb-ev-title" }, add(null, "strong", { textContent: name }), ...buttons, close);
    this.el.replaceChildren(title, ...content);
    this.el.toggleAttribute("data-open", true);
  }
  /** Show a line; null shows the help. */
  show(/** @type {import("./event_table").Line} */ line) {
    const { table } = this, { view } = table;
    this.el.toggleAttribute("data-open", false);
    this.el.replaceChildren(paragraph(HELP, "rtnb-faint"));
    if (line === null) return;
    const [, at, gap, , name, size] = view.cells(line), { last = line } = line, first = firstOf(line);
    const ms = (view.get(last)[TIME] - view.get(first)[TIME]) / 10;
    const facts = paragraph(isRun(line) ? `${name.split(" ")[0].slice(1)} events, #${first} to #${last}, within ${whole(ms)} ms.`
      : `#${first} · ${at} s · ${gap} s after the event before · ${size} bytes`, "rtnb-faint");
    this.fill(name, [], facts);
    table.attempt(async () => {
      const { meaning, parts } = await table.stream.request("event", { first, last });
      if (table.selected !== line) return;
      const json = add(null, "pre", {}, ...parts.map((/** @type {any} */ part) => part.number === undefined ? part
        : button(null, `${whole(part.bytes)} bytes, ${whole(part.ms)} ms ▶`, () => this.play({ first, last, number: part.number }), { title: "Play or stop" })));
      const copy = isRun(line) ? [] : [button(null, "Copy JSON", () => table.copy())];
      this.fill(name, copy, paragraph(meaning), ...this.causes(first), facts, json);
    });
  }
  /** The errors that refused this event, and the event that this error refused. */
  causes(/** @type {number} */ index) {
    const { view } = this.table, cause = view.get(index)[CAUSE];
    const line = (/** @type {string} */ text, /** @type {number} */ to, /** @type {number} */ column) => add(null, "p", { className: "rtnb-error" }, text,
      button(null, `#${to}`, () => this.table.goTo(to) || this.table.note(new Error(`event ${to} does not fit the filter`))),
      ` ${view.get(to)[column]}`);
    const errors = view.troubles.filter((/** @type {number} */ error) => view.get(error)[CAUSE] === index);
    const refused = errors.map((/** @type {number} */ error) => line("Refused by ", error, TEXT));
    return cause < view.base ? refused : [line("Caused by ", cause, TYPE), ...refused];
  }
  /** Play audio, or stop it where it plays. */
  play(/** @type {object} */ from) {
    const player = (this.player ??= new ClipPlayer(this.signal));
    const request = () => this.table.stream.request("audio", from, { timeout_ms: 15_000 });
    this.table.attempt(() => player.toggle(JSON.stringify(from), request));
  }
  /** Show the form that sends an event; it begins with the selected one if that was sent. */
  async compose() {
    const { table } = this, { selected, view } = table, again = typeof selected === "number" && !(view.get(firstOf(selected))[FLAGS] & RECEIVED);
    const text = again ? (await table.stream.request("text", { index: selected })).text : '{\n  "type": "response.create"\n}';
    const body = add(null, "textarea", { "aria-label": "Event as JSON", spellcheck: false, value: text });
    const status = add(null, "p", { role: "status" }), send = add(null, "button", { type: "submit", textContent: "Send" });
    let anyway = false;
    const check = async (/** @type {string} */ kind) => {
      const reply = table.stream.request(kind, { text: body.value, anyway: anyway && kind === "send" }, { timeout_ms: 10_000 });
      const { problem, possible, sent } = await reply.catch((/** @type {Error} */ error) => ({ problem: error.message }));
      status.textContent = sent ? "Sent." : problem || "The service would accept this event now.";
      status.className = problem ? "rtnb-error" : "rtnb-faint";
      anyway = Boolean(problem && possible);
      send.textContent = anyway ? "Send anyway" : "Send";
      send.disabled = Boolean(problem) && !possible;
    };
    body.oninput = () => check("check");
    const form = add(null, "form", {}, body, status, send);
    form.onsubmit = (/** @type {Event} */ event) => { event.preventDefault(); check("send"); };
    this.fill("Send an event", [], form);
    body.focus();
    check("check");
  }
}
