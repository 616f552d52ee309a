/** The pane beside the table: one event with its meaning, its JSON and audio to play; or a form that sends a new event. */
import { add } from "./shared.js";
import { BYTES, CAUSE, FLAGS, MS, RECEIVED, TEXT, TIME, TYPE, firstOf, whole } from "./event_table.js";

const HELP = "Select an event to see its meaning and its JSON. Keys: ↑ ↓ PageUp PageDown Home End move, Enter or → unfolds, "
  + "← folds, / filters, e goes to the next error, Space pauses, f follows, c copies, Esc comes back.";
const paragraph = (/** @type {string} */ text, className = "") => add(null, "p", { textContent: text, className });
const button = (/** @type {string} */ text, /** @type {() => void} */ onclick, props = {}) =>
  add(null, "button", { type: "button", textContent: text, onclick, ...props });

export class EventPane {
  /** @param {Element} parent @param {any} table an EventTable that also has `request`, `note` and `copy` */
  constructor(parent, table) {
    this.table = table;
    this.el = add(parent, "div", { className: "rtnb-ev-side", role: "region", "aria-label": "Event details", tabIndex: 0 });
    /** @type {any} */ this.sound = null;
    this.timer = 0;
    this.show(null);
  }
  close() {
    clearTimeout(this.timer);
    this.sound?.pause();
  }
  /** Replace the content: a title with buttons, and what follows. */
  fill(/** @type {string} */ name, /** @type {any[]} */ buttons, /** @type {any[]} */ ...content) {
    const close = button("×", () => { this.table.select(null); this.table.grid.focus(); }, { "aria-label": "Close details" });
    const title = add(null, "div", { className: "rtnb-ev-title" }, add(null, "strong", { textContent: name }), ...buttons, close);
    this.el.replaceChildren(title, ...content);
    this.el.toggleAttribute("data-open", true);
  }
  async show(/** @type {import("./event_table").Line} */ line) {
    const { table } = this, { view } = table;
    this.el.toggleAttribute("data-open", false);
    this.el.replaceChildren(paragraph(HELP, "rtnb-faint"));
    if (line === null) return;
    const { kids, first, last, kind } = line, [, at, gap, , title, size] = view.cells(line), name = kids ? title.slice(2) : title;
    const facts = kids ? this.facts(line) : paragraph(`#${line} · ${at} s · ${gap} s after the event before · ${size} bytes`, "rtnb-faint");
    this.fill(name, [], facts);
    if (kids && kind !== "run") return;
    try {
      const reply = await (kids ? table.request("run", { first, last }) : table.request("event", { index: line }));
      if (table.selected !== line) return;
      if (kids) return this.fill(name, [], paragraph(reply.meaning), facts, paragraph(reply.text));
      const json = add(null, "pre", {}, ...reply.parts.flatMap((/** @type {any} */ part) => this.part(line, part)));
      this.fill(name, [button("Copy JSON", () => table.copy())], paragraph(reply.meaning), ...this.causes(line), facts, json);
    } catch (error) { table.note(error); }
  }
  /** A part of the JSON as nodes: its text with coloured keys, or a button that plays its audio. */
  part(/** @type {number} */ index, /** @type {any} */ part) {
    if (typeof part !== "string") return [this.player({ first: index, last: index, number: part.number }, part.bytes, part.ms)];
    const pieces = part.split(/^( *"(?:[^"\\]|\\.)*")(?=: )/m);
    return pieces.map((text, k) => (k % 2 ? add(null, "span", { className: "rtnb-ev-key", textContent: text }) : text));
  }
  player(/** @type {object} */ from, /** @type {number} */ bytes, /** @type {number} */ ms) {
    return button(`${whole(bytes)} bytes, ${whole(ms)} ms ▶`, () => this.play(from), { title: "Play or stop" });
  }
  /** The errors that refused this event, and the event that this error refused. */
  causes(/** @type {number} */ index) {
    const { view } = this.table, cause = view.get(index)[CAUSE];
    const line = (/** @type {string} */ text, /** @type {number} */ to, /** @type {number} */ column) => add(null, "p", { className: "rtnb-error" }, text,
      button(`#${to}`, () => this.table.goTo(to) || this.table.note(new Error(`event ${to} does not fit the filter`)), { className: "rtnb-ev-link" }),
      ` ${view.get(to)[column]}`);
    const errors = view.troubles.filter((/** @type {number} */ error) => view.get(error)[CAUSE] === index);
    const refused = errors.map((/** @type {number} */ error) => line("Refused by ", error, TEXT));
    return cause < view.base ? refused : [line("Caused by ", cause, TYPE), ...refused];
  }
  facts(/** @type {import("./event_table").Line} */ node) {
    const { first, last, kind, count } = node, { view } = this.table, ms = (view.get(last)[TIME] - view.get(first)[TIME]) / 10;
    const player = kind === "run" && node[BYTES] ? [this.player({ first, last, number: 0 }, node[BYTES], node[MS] / 10)] : [];
    return add(null, "p", {}, `${whole(count)} events, #${first} to #${last}, within ${whole(ms)} ms. `, ...player);
  }
  async play(/** @type {object} */ from) {
    const id = JSON.stringify(from), stop = this.sound?.dataset.id === id && !this.sound.ended;
    this.sound?.pause();
    this.sound = null;
    if (stop) return;
    try {
      const { wav } = await this.table.request("audio", from, { timeout_ms: 15_000 });
      this.sound = new Audio(`data:audio/wav;base64,${wav}`);
      this.sound.dataset.id = id;
      await this.sound.play();
    } catch (error) { this.table.note(error); }
  }
  /** Show the form that sends an event; it begins with the selected one if that was sent. */
  async compose() {
    const { table } = this, { selected, view } = table, again = typeof selected === "number" && !(view.get(firstOf(selected))[FLAGS] & RECEIVED);
    const text = again ? (await table.request("text", { index: selected })).text : '{\n  "type": "response.create"\n}';
    const body = add(null, "textarea", { "aria-label": "Event as JSON", spellcheck: false, value: text });
    const status = add(null, "p", { role: "status" }), send = add(null, "button", { type: "submit", textContent: "Send" });
    let anyway = false;
    const check = async (/** @type {string} */ kind) => {
      const reply = table.request(kind, { text: body.value, anyway: anyway && kind === "send" }, { timeout_ms: 10_000 });
      const { problem, possible, sent } = await reply.catch((/** @type {Error} */ error) => ({ problem: error.message }));
      status.textContent = sent ? "Sent." : problem || "The service would accept this event now.";
      status.className = problem ? "rtnb-error" : "rtnb-faint";
      anyway = Boolean(problem && possible);
      send.textContent = anyway ? "Send anyway" : "Send";
      send.disabled = Boolean(problem) && !possible;
    };
    body.oninput = () => { clearTimeout(this.timer); this.timer = setTimeout(() => check("check"), 250); };
    const form = add(null, "form", {}, body, status, send);
    form.onsubmit = (/** @type {Event} */ event) => { event.preventDefault(); check("send"); };
    this.fill("Send an event", [], form);
    body.focus();
    check("check");
  }
}
