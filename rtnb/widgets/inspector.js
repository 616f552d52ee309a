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
import { add, download, put, toggleButton, watch } from "./shared.js";

const MOST_PENDING = 500; // messages that wait for a frame
const FILTER_HELP = "A part of type, id or text, “sent” or “received”; * stands for anything, a comma for “or”, ! for “not” ( / )";

class Inspector extends EventTable {
  /** @param {import("./types").Model<State>} model @param {Element} el @param {import("./types").Channel} channel */
  constructor(model, el, channel) {
    const root = add(el, "div", { className: "rtnb rtnb-ev", "data-lm-suppress-shortcuts": "true" }), ended = new AbortController();
    const bar = add(root, "div", { className: "rtnb-ev-bar", role: "toolbar", "aria-label": "Events" });
    const body = add(root, "div", { className: "rtnb-ev-body" });
    super(body, ended.signal);
    this.model = model;
    this.channel = channel;
    this.root = root;
    this.ended = ended;
    this.pane = new EventPane(body, this);
    this.source = this.total = this.growing = this.searched = 0;
    this.waiting = this.searching = false;
    this.noted = "";
    /** @type {[any, DataView][]} */ this.pending = [];

    this.filter = add(bar, "input", { type: "search", placeholder: "Filter, e.g. *.delta", "aria-label": "Filter", title: FILTER_HELP, spellcheck: false });
    this.filter.oninput = () => this.refilter({ filter: this.filter.value });
    this.errors = toggleButton(bar, { title: "Show errors only (e: next error)" }, (errors) => this.refilter({ errors }));
    this.folding = toggleButton(bar, { textContent: "Fold", title: "Show pieces of one part as one row" }, (fold) => this.refilter({ fold }));
    this.following = toggleButton(bar, { textContent: "Follow", title: "Keep the newest event in view (f)" }, () => this.onKey("f"));
    this.pause = toggleButton(bar, { textContent: "Pause", title: "Freeze the table; events are still recorded (Space)" }, () => this.onKey(" "));
    const foot = add(root, "div", { className: "rtnb-ev-bar rtnb-ev-foot" });
    this.status = add(foot, "span", { className: "rtnb-ev-status rtnb-faint" });
    this.save = add(foot, "button", { type: "button", textContent: "Export", title: "Save all events as JSON Lines", onclick: () => this.export() });
    this.send = add(foot, "button", { type: "button", textContent: "Send event…", onclick: () => this.attempt(() => this.pane.compose()) });
    root.addEventListener("keydown", (/** @type {any} */ { key, target }) => {
      if (key === "Escape" || (key === "Enter" && target === this.filter)) this.grid.focus();
    });
    this.stream = channel.openStream(model.get("stream_name"), (kind, header, [buffer]) => kind === "rows" && this.onRows(header, buffer));
    this.ask();
  }
  close() {
    this.ended.abort();
    cancelAnimationFrame(this.growing);
    cancelAnimationFrame(this.frame);
    this.stream.close();
    this.pane.close();
  }
  request(/** @type {string} */ kind, /** @type {object} */ header, options = {}) { return this.stream.request(kind, header, options); }
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
    if (key === " ") {
      Object.assign(this, { paused: !this.paused });
      if (!this.paused) this.ask();
    } else if (key === "f") Object.assign(this, { follow: !this.follow });
    else if (key === "/") this.filter.focus();
    else if (key === "e") this.nextError();
    else if (key === "c") this.copy();
    else if (key === "Escape") this.select(null);
    else if (key === "ArrowLeft" || key === "ArrowRight" || key === "Enter") this.refilter({ fold: key === "ArrowLeft" });
    else return false;
    this.paint();
    return true;
  }
  nextError() {
    const { troubles } = this.view, after = this.selected?.last ?? this.selected ?? -1;
    const next = [...troubles.filter((i) => i > after), ...troubles].find((i) => this.goTo(i));
    if (next === undefined) this.note(new Error(troubles.length ? "no error fits the filter" : "no errors"));
  }
  copy() {
    const index = firstOf(this.selected);
    return index !== null && this.attempt(async () => {
      await navigator.clipboard.writeText((await this.request("text", { index })).text);
      this.note(null, `event ${index} copied as JSON`);
    });
  }
  async export() {
    /** @type {string[]} */ const chunks = [];
    this.save.disabled = true;
    await this.attempt(async () => {
      for (let start = 0, more = true; more;) {
        const reply = await this.request("export", { start }, { timeout_ms: 30_000 });
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
    if (this.pending.length >= MOST_PENDING) this.pending = []; // a hidden page paints no frame; the gap is asked for later
    this.pending.push([header, buffer]);
    this.grow();
  }
  take(/** @type {any} */ header, /** @type {DataView} */ buffer) {
    if (header.source !== this.source || header.base > this.view.next) this.reset(header);
    this.total = header.total;
    this.waiting = header.waiting;
    if (!this.paused && !this.view.add(header.start, JSON.parse(new TextDecoder().decode(buffer)))) this.ask();
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
      const end = performance.now() + 10;
      while (this.pending.length && performance.now() < end) this.take(...this.pending.splice(0, 1)[0]);
      if (this.view.rows.length > KEPT * 1.125) this.rebuild(() => this.view.keep(KEPT));
      if (!this.view.grow() || this.pending.length) this.grow();
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
      const { hits, next } = await this.request("search", { terms: texts, start: Math.max(this.searched, view.base) });
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
    if (this.holdsSelected()) return;
    this.model.set("selected_index", firstOf(this.selected));
    this.model.save_changes();
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
    const { view, paused } = this, cut = this.channel.status().kind === "none", errors = view.troubles.length;
    const facts = [`${whole(view.shown)}${view.seen < view.next || this.pending.length ? "…" : ""} of ${whole(view.next - view.base)} events`,
      view.base && `${whole(view.base)} older events are not shown`, paused && `paused, ${whole(this.total - view.next)} new`,
      cut && "No connection to the kernel. Showing the events received so far", this.noted];
    const empty = cut ? "Waiting for the kernel" : this.waiting ? "Waiting for a session" : "No events yet";
    put(this.status, "textContent", view.next ? facts.filter(Boolean).join(" · ") : empty);
    put(this.errors, "textContent", `Errors ${whole(errors)}`);
    this.errors.toggleAttribute("data-trouble", errors > 0);
    const { errors: only, fold } = view.settings, toggles = [this.errors, this.folding, this.following, this.pause];
    [only, fold, this.follow, paused].forEach((on, k) => put(toggles[k], "ariaPressed", `${on}`));
  }
}

/** @param {import("./types").RenderProps<State>} props */
async function render({ model, el, host }) {
  const { exports: channel } = await host.getWidget(model.get("channel"));
  const inspector = new Inspector(model, el, channel), still = `[data-rtnb-static="${model.get("static_id")}"]`;
  add(el, "style", { textContent: `${still}, .jp-OutputArea-child:has(${still}) { display: none }` });
  const ends = [
    watch(model, ["height_px"], () => inspector.root.style.setProperty("--rtnb-ev-height", `${model.get("height_px")}px`)),
    watch(model, ["can_send"], () => put(inspector.send, "hidden", !model.get("can_send"))),
    watch(model, ["selected_index"], () => inspector.showSelected()),
    watch(model, ["marks"], inspector.paint),
    channel.onStatus(inspector.paint),
  ];
  return () => [...ends, () => inspector.close()].forEach((end) => end());
}

export default { render };
