/** The table of events: compact rows, one filter, runs of pieces folded, and some forty DOM rows however many events there are. */
import { add, put } from "./shared.js";

/** Columns of a row, as in _events.py. */
export const [FLAGS, TIME, TYPE, SIZE, BYTES, MS, ITEM, RESPONSE, CALL, CONTENT, CAUSE, TEXT] = Array(12).keys();
export const RECEIVED = 1, TROUBLE = 2, PIECE = 4;
/** Rows a page keeps (about 50 MB), as many as the kernel. */
export const KEPT = 200_000;
const ROW_PX = 22;

/** @typedef {any} Line the number of an event, or a run {kids: numbers of its pieces, first, last, and sums by column} */
/** Whether a line is a folded run; a run of one piece is shown as this piece. */
export const isRun = (/** @type {Line} */ line) => line?.kids?.length > 1;
export const firstOf = (/** @type {Line} */ line) => line?.first ?? line;
const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const whole = (/** @type {number} */ number) => grouped.format(number);
const seconds = (/** @type {number} */ tenths) => (tenths / 10_000).toFixed(3);
const directionOf = (/** @type {any[]} */ row) => (row[FLAGS] & RECEIVED ? "received" : "sent");

/**
 * Parse a filter: a comma means "or", "!" in front "not", "*" anything; without "*" a part of a text is enough.
 * The words "sent" and "received" choose a direction. Only the other terms are `searched` for by the kernel.
 */
export function parseFilter(/** @type {string} */ text) {
  const terms = text.split(",").map((term) => term.trim()).filter((term) => term.replace("!", ""));
  return terms.map((term) => {
    const no = term[0] === "!", body = no ? term.slice(1).trim() : term, wild = body.includes("*");
    const pattern = body.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&")).join(".*");
    const regex = new RegExp(wild ? `^${pattern}$` : pattern, "i"), columns = [TYPE, ITEM, RESPONSE, CALL, ...(wild ? [] : [TEXT])];
    const direction = ["sent", "received"].includes(body), searched = !no && !wild && !direction;
    const fits = (/** @type {any[]} */ row) => columns.some((column) => row[column] && regex.test(row[column]));
    return { no, body, searched, fits: direction ? (/** @type {any[]} */ row) => directionOf(row) === body : fits };
  });
}

/** Rows of the newest events (`base` is the number of the first), and the lines that show them. */
export class View {
  constructor(base = 0, settings = { filter: "", errors: false, fold: true }) {
    this.base = base;
    this.settings = settings;
    /** @type {any[][]} */ this.rows = [];
    /** @type {number[]} */ this.troubles = [];
    /** @type {Set<number>} events that the kernel's search found */ this.found = new Set();
    this.terms = parseFilter(settings.filter);
    this.seen = this.shown = 0;
    this.rebuild();
  }
  get next() { return this.base + this.rows.length; }
  get(/** @type {number} */ index) { return this.rows[index - this.base]; }
  /** Take the rows of a message; false where rows before them are missing. */
  add(/** @type {number} */ start, /** @type {any[][]} */ rows) {
    if (start > this.next) return false;
    for (const row of rows.slice(this.next - start)) {
      if (row[FLAGS] & TROUBLE) this.troubles.push(this.next);
      this.rows.push(row);
    }
    return true;
  }
  /** Forget all but the newest rows. */
  keep(/** @type {number} */ count) {
    this.base += this.rows.splice(0, this.rows.length - count).length;
    this.troubles = this.troubles.filter((index) => index >= this.base);
    this.rebuild();
  }
  /** Begin the lines anew, after the filter has changed. */
  rebuild() {
    this.terms = parseFilter(this.settings.filter);
    this.seen = this.base;
    this.shown = 0;
    /** @type {Map<string, Line>} */ this.runs = new Map(); // that may go on
    /** @type {Line[]} */ this.lines = [];
  }
  fits(/** @type {number} */ i) {
    const row = this.get(i), wanted = this.terms.filter((term) => !term.no);
    if (this.settings.errors && !(row[FLAGS] & TROUBLE)) return false;
    if (this.terms.some((term) => term.no && term.fits(row))) return false;
    return !wanted.length || wanted.some((term) => term.fits(row)) || this.found.has(i);
  }
  /** Take new rows, for some milliseconds; whether those were all. */
  grow(budget_ms = 12) {
    const end = performance.now() + budget_ms;
    for (; this.seen < this.next && (this.seen % 256 || performance.now() < end); this.seen++) {
      if (this.fits(this.seen)) this.place(this.seen);
    }
    return this.seen === this.next;
  }
  place(/** @type {number} */ i) {
    const row = this.get(i), key = `${row[TYPE]} ${row[ITEM]} ${row[CONTENT]}`, run = this.runs.get(key);
    this.shown++;
    if (run) {
      run.kids.push(i);
      run.last = i;
      for (const column of [SIZE, BYTES, MS]) run[column] += row[column];
    } else if (row[FLAGS] & PIECE && this.settings.fold) {
      const begun = { kids: [i], first: i, last: i, [SIZE]: row[SIZE], [BYTES]: row[BYTES], [MS]: row[MS] };
      this.runs.set(key, begun);
      this.lines.push(begun);
    } else {
      this.runs.clear(); // a piece after this begins a new run
      this.lines.push(i);
    }
  }
  /** The line of an event: itself, or the run that holds it. */
  lineOf(/** @type {number} */ index) { return this.lines.find((line) => line === index || line.kids?.includes(index)); }
  /** The texts of a line's cells. */
  cells(/** @type {Line} */ line) {
    const i = firstOf(line), row = this.get(i), run = isRun(line), { [SIZE]: size, [BYTES]: bytes, [MS]: tenths } = run ? line : row;
    const gap = i > this.base ? `+${seconds(row[TIME] - this.get(i - 1)[TIME])}` : "";
    const name = run ? `×${whole(line.kids.length)} ${row[TYPE]}` : row[TYPE];
    /** @type {number[]} */ const kids = run ? line.kids.slice(0, 100) : [i];
    const text = kids.map((kid) => this.get(kid)[TEXT]).join("").slice(0, 200);
    const audio = bytes ? `${whole(bytes)} bytes, ${whole(tenths / 10)} ms of audio` : "";
    const arrow = row[FLAGS] & RECEIVED ? "←" : "→";
    return [`${i}`, seconds(row[TIME]), gap, arrow, name, whole(size), [audio, text].filter(Boolean).join(" · ")];
  }
}

/** A browser resets the scroll position of an element that moves to another place, without an event: this one reports it. */
class Scroller extends HTMLElement {
  connectedCallback() { this.dispatchEvent(new Event("connected")); }
}
if (!customElements.get("rtnb-scroller")) customElements.define("rtnb-scroller", Scroller);

const COLUMNS = ["#", "time (s)", "gap (s)", "↔", "type", "bytes", "summary"], NUMERIC = [0, 1, 2, 5];
let tables = 0;

/** The grid: paints the lines in view, follows the newest, and reacts to mouse and keyboard. */
export class EventTable {
  constructor(/** @type {Element} */ parent, /** @type {AbortSignal} */ signal) {
    this.view = new View();
    this.follow = true;
    /** @type {Line} */ this.selected = null;
    this.frame = this.top = 0;
    this.digits = [4, 7, 7, 0, 0, 5, 0]; // of the numeric columns; they only grow, so that nothing jumps
    /** @type {any[]} */ this.pool = [];
    this.uid = `rtnb-events-${++tables}`;
    this.grid = add(parent, "rtnb-scroller", { className: "rtnb-ev-grid", tabIndex: 0, role: "grid", "aria-label": "Events" });
    const head = add(this.grid, "div", { className: "rtnb-ev-row rtnb-ev-head", role: "row", "aria-rowindex": 1 });
    for (const name of COLUMNS) add(head, "span", { role: "columnheader", textContent: name, "aria-label": name.replace("↔", "direction") });
    this.space = add(this.grid, "div", { className: "rtnb-ev-space", role: "rowgroup" });
    this.paint = () => { this.frame ||= requestAnimationFrame(() => this.painted()); };
    this.listen(signal);
  }
  onSelected() {}
  onPainted() {}
  /** @param {string} key @returns {boolean} whether it is used */
  onKey(key) { return key === ""; }

  listen(/** @type {AbortSignal} */ signal) {
    const { grid } = this;
    const on = (/** @type {string} */ name, /** @type {(event: any) => void} */ act) => grid.addEventListener(name, act, { signal });
    on("click", ({ target }) => {
      const line = target.closest(".rtnb-ev-row")?.line;
      if (line !== undefined) this.select(line);
      if (isRun(line) && target.matches(":nth-child(5)")) this.onKey("Enter");
    });
    on("scroll", () => {
      if (grid.scrollTop < Math.min(this.top, grid.scrollHeight - grid.clientHeight - 2)) this.follow = false;
      this.top = grid.scrollTop;
      this.paint();
    });
    on("connected", () => { grid.scrollTop = this.top; });
    on("keydown", (event) => {
      if (!event.ctrlKey && !event.metaKey && !event.altKey && (this.moveBy(event.key) || this.onKey(event.key))) event.preventDefault();
    });
    const resized = new ResizeObserver(this.paint);
    resized.observe(grid);
    signal.addEventListener("abort", () => resized.disconnect());
  }
  /** Act on a key that moves the selection; whether it did. */
  moveBy(/** @type {string} */ key) {
    const { lines } = this.view, at = lines.indexOf(this.selected), last = lines.length - 1;
    const page = Math.floor(this.grid.clientHeight / ROW_PX) - 2;
    const to = /** @type {Record<string, number>} */ ({ ArrowDown: at + 1, ArrowUp: at < 0 ? last : at - 1,
      PageDown: at + page, PageUp: at - page, Home: 0, End: last })[key];
    if (to === undefined || last < 0) return false;
    this.select(lines[Math.min(Math.max(to, 0), last)], key === "End");
    return true;
  }
  /** Select a line (null for none) and bring it into view. */
  select(/** @type {Line} */ line, follow = this.follow && this.view.lines.at(-1) === line) {
    const { grid } = this, top = this.view.lines.indexOf(line) * ROW_PX, room = grid.clientHeight - 2 * ROW_PX;
    this.selected = line;
    if (line !== null) {
      this.follow = follow;
      this.space.style.height = `${this.view.lines.length * ROW_PX}px`;
      grid.scrollTop = Math.min(Math.max(grid.scrollTop, top - room), top);
    }
    this.paint();
    this.onSelected();
  }
  /** Select the line that shows an event; false where none does. */
  goTo(/** @type {number} */ index) {
    const line = this.view.lineOf(index);
    if (line !== undefined) this.select(line);
    return line !== undefined;
  }
  painted() {
    this.frame = 0;
    const { grid, view: { lines } } = this;
    put(this.space.style, { height: `${lines.length * ROW_PX}px` });
    if (this.follow) grid.scrollTop = grid.scrollHeight;
    this.top = grid.scrollTop;
    const first = Math.floor(this.top / ROW_PX), fit = Math.ceil(grid.clientHeight / ROW_PX) + 1;
    grid.removeAttribute("aria-activedescendant");
    for (let k = 0; k < Math.max(fit, this.pool.length); k++) {
      const dom = (this.pool[k] ??= add(this.space, "div", { className: "rtnb-ev-row", id: `${this.uid}-${k}`, role: "row" },
        ...COLUMNS.map(() => add(null, "span", { role: "gridcell" }))));
      dom.line = k < fit ? lines[first + k] : undefined;
      put(dom, { hidden: dom.line === undefined });
      if (!dom.hidden) this.paintRow(dom, first + k);
    }
    for (const c of NUMERIC) grid.style.setProperty(`--w${c}`, `${this.digits[c] + 0.6}ch`);
    put(grid, { "aria-rowcount": lines.length + 1 });
    this.onPainted();
  }
  paintRow(/** @type {any} */ dom, /** @type {number} */ at) {
    const { view, selected } = this, { line } = dom, i = firstOf(line), row = view.get(i), chosen = line === selected;
    const kind = row[FLAGS] & TROUBLE ? "trouble" : directionOf(row);
    put(dom.style, { transform: `translateY(${at * ROW_PX}px)` });
    put(dom, { "data-index": i, "data-kind": kind, "aria-rowindex": at + 2, "aria-selected": chosen });
    if (chosen) this.grid.setAttribute("aria-activedescendant", dom.id);
    view.cells(line).forEach((text, c) => {
      put(dom.children[c], { textContent: text });
      this.digits[c] = Math.max(this.digits[c], text.length);
    });
    put(dom.children[3], { "aria-label": directionOf(row) });
  }
}
