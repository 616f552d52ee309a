/**
 * The event inspector: toolbar, table (event_table.js) and details of one event (event_pane.js).
 *
 * @typedef {object} State
 * @property {string} channel      reference to the page's channel
 * @property {string} stream_name  name of its stream
 * @property {string} static_id    marks the copy for readers without a kernel, hidden while this is on the page
 * @property {boolean} can_send    whether events can be sent
 * @property {number} height_px    of the whole inspector
 * @property {?number} selected_index  the selected event, both ways
 * @property {Record<string, string>} marks  findings by the number of their first event
 *
 * The messages on the stream are described in inspector.py.
 */
import { EventPane } from "./event_pane.js";
import { EventTable, KEPT, View, firstOf, whole } from "./event_table.js";
import { add, button, download, onChannel, put, save, toggleButton, watch } from "./shared.js";

const FILTER_HELP = "A part of type, id or text, “sent” or “received”; * stands for anything, a comma for “or”, ! for “not” ( / )";

class Inspector extends EventTable {
  /** @param {import("./types").ViewProps<State>} props */
  constructor({ model, el, channel, signal }) {
    const root = add(el, "div", { className: "rtnb rtnb-ev", "data-lm-suppress-shortcuts": "true" });
    const bar = add(root, "div", { className: "rtnb-ev-bar", role: "toolbar", "aria-label": "Events" });
    const body = add(root, "div", { className: "rtnb-ev-body" });
    super(body, signal);
    this.model = model;
    this.channel = channel;
    this.pane = new EventPane(body, this, signal);
    this.source = this.growing = this.searched = 0;
    this.waiting = this.searching = false;
    this.noted = "";

    this.filter = add(bar, "input", { type: "search", placeholder: "Filter, e.g. *.delta", "aria-label": "Filter", title: FILTER_HELP, spellcheck: false });
    this.filter.oninput = () => this.refilter({ filter: this.filter.value });
    this.errors = toggleButton(bar, "Errors", (errors) => this.refilter({ errors }), { title: "Show errors only" });
    this.folding = toggleButton(bar, "Fold", (fold) => this.refilter({ fold }), { title: "Show pieces of one part as one row" });
    this.following = toggleButton(bar, "Follow", () => this.onKey("f"), { title: "Keep the newest event in view; without it the table stands still (f)" });
    const foot = add(root, "div", { className: "rtnb-ev-bar rtnb-ev-foot" });
    this.status = add(foot, "span", { className: "rtnb-ev-status rtnb-faint" });
    this.save = button(foot, "Export", () => this.export(), { title: "Save all events as JSON Lines" });
    this.send = button(foot, "Send event…", () => this.attempt(() => this.pane.compose()));
    const leave = (/** @type {any} */ { key, target }) => {
      if (key === "Escape" || (key === "Enter" && target === this.filter)) this.grid.focus();
    };
    root.addEventListener("keydown", leave, { capture: true }); // a field keeps its keys
    this.stream = channel.openStream(model.get("stream_name"), (_, header, [buffer]) => this.onRows(header, buffer), signal);
    this.ask();
    signal.addEventListener("abort", () => {
      cancelAnimationFrame(this.growing);
      cancelAnimationFrame(this.frame);
    });
    channel.addEventListener("status", this.paint, { signal });
    watch(model, ["height_px"], () => root.style.setProperty("--rtnb-ev-height", `${model.get("height_px")}px`), signal);
    watch(model, ["can_send"], () => put(this.send, { hidden: !model.get("can_send") }), signal);
    watch(model, ["selected_index"], () => this.showSelected(), signal);
    watch(model, ["marks"], this.paint, signal);
    const still = `[data-rtnb-static="${model.get("static_id")}"]`;
    add(el, "style", { textContent: `${still}, .jp-OutputArea-child:has(${still}) { display: none }` });
  }
  /** Do something that may fail; the status shows the reason. */
  async attempt(/** @type {() => Promise<any>} */ act) {
    try {
      await act();
    } catch (error) { this.note(error); }
  }
  paintRow(/** @type {any} */ dom, /** @type {number} */ at) {
    super.paintRow(dom, at);
    const mark = this.model.get("marks")?.[dom.dataset.index];
    dom.title = mark ?? "";
    dom.toggleAttribute("data-finding", mark !== undefined);
  }

  // --- keys and buttons
  onKey(/** @type {string} */ key) {
    if (key === "f") Object.assign(this, { follow: !this.follow });
    else if (key === "/") this.filter.focus();
    else if (key === "c") this.copy();
    else if (key === "Escape") this.select(null);
    else if (key === "ArrowLeft" || key === "ArrowRight" || key === "Enter") this.refilter({ fold: key === "ArrowLeft" });
    else return false;
    this.paint();
    return true;
  }
  copy() {
    const index = firstOf(this.selected);
    return index !== null && this.attempt(async () => {
      await navigator.clipboard.writeText((await this.stream.request("text", { index })).text);
      this.note(null, `event ${index} copied as JSON`);
    });
  }
  async export() {
    /** @type {string[]} */ const chunks = [];
    this.save.disabled = true;
    await this.attempt(async () => {
      for (let start = 0, more = true; more;) {
        const reply = await this.stream.request("export", { start }, { timeout_ms: 30_000 });
        chunks.push(reply.text);
        [start, more] = [reply.next, reply.more];
        this.note(null, `${whole(start)} events exported`);
      }
      download("events.jsonl", chunks.join(""), "application/jsonl");
    });
    this.save.disabled = false;
  }

  // --- rows
  ask() { this.stream.send("from", { start: this.view.next }); }
  onRows(/** @type {any} */ header, /** @type {DataView} */ buffer) {
    if (header.source !== this.source || header.base > this.view.next) this.reset(header);
    this.waiting = header.waiting;
    if (!this.view.add(header.start, JSON.parse(new TextDecoder().decode(buffer)))) this.ask();
    this.grow();
  }
  /** Begin the table anew: for another source, or behind a gap. */
  reset(/** @type {any} */ header) {
    if (this.selected !== null) this.select(null);
    Object.assign(this, { source: header.source, view: new View(header.base, this.view.settings), follow: true, searched: 0 });
  }
  /** Take in rows, some milliseconds per frame. */
  grow() {
    this.growing ||= requestAnimationFrame(() => {
      this.growing = 0;
      if (this.view.rows.length > KEPT * 1.125) this.rebuild(() => this.view.keep(KEPT));
      if (!this.view.grow()) this.grow();
      else this.search();
      this.showSelected();
      this.paint();
    });
  }
  rebuild(change = () => this.view.rebuild()) {
    const about = firstOf(this.selected);
    change();
    this.view.grow();
    if (about !== null) this.selected = this.view.lineOf(about) ?? null;
    this.grow();
  }
  refilter(/** @type {Partial<View["settings"]>} */ change) {
    Object.assign(this.view.settings, change);
    this.view.found.clear();
    this.searched = 0;
    this.rebuild();
    if (this.selected !== null) this.select(this.selected);
  }
  /** Ask the kernel for events whose full text matches, where the short text here does not. */
  async search() {
    const { view } = this, { terms, found } = view, texts = terms.filter(({ searched }) => searched).map(({ body }) => body);
    if (this.searching || !texts.length || this.searched >= view.next) return;
    this.searching = true;
    await this.attempt(async () => {
      const { hits, next } = await this.stream.request("search", { terms: texts, start: Math.max(this.searched, view.base) });
      if (view === this.view && `${view.terms.map(({ body }) => body)}` === `${terms.map(({ body }) => body)}`) {
        const added = hits.filter((/** @type {number} */ i) => !view.fits(i));
        added.forEach((/** @type {number} */ i) => found.add(i));
        this.searched = next;
        if (added.length) this.rebuild();
      }
      this.grow(); // which searches on
    });
    this.searching = false;
  }

  // --- the selection, and the status
  holdsSelected() {
    const index = this.model.get("selected_index"), line = this.selected;
    return line === null ? index === null : index !== null && firstOf(line) <= index && index <= (line.last ?? line);
  }
  onSelected() {
    this.pane.show(this.selected);
    if (!this.holdsSelected()) save(this.model, { selected_index: firstOf(this.selected) });
  }
  showSelected() {
    const index = this.model.get("selected_index");
    if (this.holdsSelected()) return;
    if (index === null) this.select(null);
    else this.goTo(index);
  }
  note(/** @type {any} */ error, text = "") {
    this.noted = error ? error.message : text;
    this.status.classList.toggle("rtnb-error", Boolean(error));
    this.paint();
  }
  onPainted() {
    const { view } = this, cut = this.channel.kind === "none", errors = view.troubles.length;
    const facts = [`${whole(view.shown)}${view.seen < view.next ? "…" : ""} of ${whole(view.next - view.base)} events`,
      view.base && `${whole(view.base)} older events are not shown`,
      cut && "No connection to the kernel. Showing the events received so far", this.noted];
    const empty = cut ? "Waiting for the kernel" : this.waiting ? "Waiting for a session" : "No events yet";
    put(this.status, { textContent: view.next ? facts.filter(Boolean).join(" · ") : empty });
    put(this.errors, { textContent: `Errors ${whole(errors)}`, "data-trouble": errors > 0, "aria-pressed": view.settings.errors });
    put(this.folding, { "aria-pressed": view.settings.fold });
    put(this.following, { "aria-pressed": this.follow });
  }
}

export default onChannel((/** @type {import("./types").ViewProps<State>} */ props) => void new Inspector(props));
