/** The table of events: compact rows, one filter, folding or a tree, and some forty DOM rows however many events there are. */
import { add, put, putAttribute } from "./shared.js";

/** Columns of a row, as in _event_rows.py. */
export const [FLAGS, TIME, TYPE, SIZE, BYTES, MS, ITEM, RESPONSE, CALL, CONTENT, CAUSE, TEXT] = Array(12).keys();
export const RECEIVED = 1, TROUBLE = 2, PIECE = 4;
/** Rows a page keeps (about 50 MB), as many as the kernel. */
export const KEPT = 200_000;
const ROW_PX = 22;

/** @typedef {any} Line a number of a row, or a node {kind, key, first, last, kids, count, size, bytes, ms, parent} */
export const firstOf = (/** @type {Line} */ line) => line?.first ?? line;
const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const whole = (/** @type {number} */ number) => grouped.format(number);
const seconds = (/** @type {number} */ tenths) => (tenths / 10_000).toFixed(3);

/** Parse a filter: a comma means "or", "!" in front "not", "*" anything; without "*" a part of a text is enough. */
export function parseFilter(/** @type {string} */ text) {
  const terms = text.split(",").map((term) => term.trim()).filter((term) => term.replace("!", ""));
  return terms.map((term) => {
    const no = term[0] === "!", body = no ? term.slice(1).trim() : term, columns = [TYPE, ITEM, RESPONSE, CALL];
    const pattern = body.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&")).join(".*");
    const wild = body.includes("*"), regex = new RegExp(wild ? `^${pattern}$` : pattern, "i");
    if (!wild) columns.push(TEXT);
    return { no, body, wild, fits: (/** @type {any[]} */ row) => columns.some((column) => row[column] && regex.test(row[column])) };
  });
}

/** Rows of the newest events (`base` is the number of the first), and the lines that show them: row numbers and nodes. */
export class View {
  constructor(base = 0) {
    this.base = base;
    /** @type {any[][]} */ this.rows = [];
    /** @type {number[]} */ this.troubles = [];
    this.filter = this.direction = "";
    this.errors = this.tree = false;
    this.fold = true;
    this.toggled = new Set();
    this.found = new Set();
    this.terms = parseFilter("");
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
  /** Begin the lines anew, after the filter or the mode has changed. */
  rebuild() {
    this.terms = parseFilter(this.filter);
    this.seen = this.base;
    this.shown = 0;
    this.root = /** @type {Line} */ ({ kids: [] });
    this.relay();
  }
  fits(/** @type {number} */ i) {
    const row = this.get(i), wanted = this.terms.filter((term) => !term.no);
    if (this.errors && !(row[FLAGS] & TROUBLE)) return false;
    if (this.direction && (this.direction === "received") !== !!(row[FLAGS] & RECEIVED)) return false;
    if (this.terms.some((term) => term.no && term.fits(row))) return false;
    return !wanted.length || wanted.some((term) => term.fits(row)) || this.found.has(i);
  }
  /** Take new rows, for some milliseconds; whether those were all. */
  grow(budget_ms = 12) {
    const end = performance.now() + budget_ms;
    for (; this.seen < this.next && (this.seen % 256 || performance.now() < end); this.seen++) {
      if (this.fits(this.seen)) this.place(this.seen);
    }
    if (this.moved) this.relay();
    return this.seen === this.next;
  }
  place(/** @type {number} */ i) {
    const row = this.get(i), piece = row[FLAGS] & PIECE, path = this.tree ? [["response", row[RESPONSE]], ["item", row[ITEM]]] : [];
    if (this.tree && row[ITEM]) path.push(["part", row[CONTENT]]);
    if (piece && this.fold) path.push(["run", `${row[TYPE]} ${row[ITEM]} ${row[CONTENT]}`]);
    let node = this.root;
    for (const [kind, id] of path) if (id) node = this.enter(node, kind, id, i);
    if (node === this.root && !piece) node.run = new Map(); // a piece after this begins a new run
    node.kids.push(i);
    this.shown++;
    if (node === this.root) this.depths[this.lines.push(i) - 1] = 0; // the usual case: one line more, at the end
    else this.moved ||= node.kind !== "run" || node.count < 2 || this.isOpen(node);
    for (; node.parent; node = node.parent) {
      node.last = i;
      [BYTES, MS, SIZE].forEach((column) => { node[column] += row[column]; });
      node.count++;
    }
  }
  enter(/** @type {Line} */ parent, /** @type {string} */ kind, /** @type {string} */ id, /** @type {number} */ first) {
    const known = (parent[kind] ??= new Map()), key = `${parent.key ?? ""}/${kind} ${id}${kind === "run" && !parent.key ? `@${first}` : ""}`;
    if (!known.has(id)) {
      known.set(id, { kind, key, first, last: first, kids: [], count: 0, [SIZE]: 0, [BYTES]: 0, [MS]: 0, parent });
      parent.kids.push(known.get(id));
    }
    return known.get(id);
  }
  isOpen(/** @type {Line} */ node) { return (node.kind !== "run") !== this.toggled.has(node.key); }
  toggle(/** @type {Line} */ node) {
    if (!this.toggled.delete(node.key)) this.toggled.add(node.key);
    this.relay();
  }
  relay() {
    this.moved = false;
    /** @type {Line[]} */ this.lines = [];
    /** @type {number[]} */ this.depths = [];
    const lay = (/** @type {Line} */ node, /** @type {number} */ depth) => {
      for (const kid of node.kids) {
        const alone = kid.kind === "run" && kid.count === 1;
        this.depths[this.lines.push(alone ? kid.first : kid) - 1] = depth;
        if (kid.kids && !alone && this.isOpen(kid)) lay(kid, depth + 1);
      }
    };
    lay(this.root, 0);
  }
  /** The line of an event: itself, or the innermost shown node that holds it. */
  lineOf(/** @type {number} */ index) {
    const holds = (/** @type {Line} */ node) => node.kids.some((/** @type {Line} */ kid) => kid === index || (kid.kids && holds(kid)));
    if (this.lines.includes(index)) return index;
    return this.lines.findLast((line) => line.kids && line.first <= index && index <= line.last && holds(line));
  }
  /** Whether a row belongs to the selected one: "cause" (refused, or refused by it), "same" (item, call), "near". */
  relation(/** @type {number} */ i, /** @type {number} */ to) {
    const row = this.get(i), other = this.get(to) ?? [];
    const same = (/** @type {number} */ column) => row[column] && row[column] === other[column];
    if (row[CAUSE] === to || other[CAUSE] === i) return "cause";
    return same(ITEM) || same(CALL) ? "same" : same(RESPONSE) ? "near" : "";
  }
  /** The texts of a line's cells. */
  cells(/** @type {Line} */ line) {
    const node = line.kids && line, i = firstOf(line), row = this.get(i), sums = node || row;
    const gap = i > this.base ? `+${seconds(row[TIME] - this.get(i - 1)[TIME])}` : "", [bytes, ms] = [sums[BYTES], sums[MS] / 10];
    const arrow = node && node.kind !== "run" ? "" : row[FLAGS] & RECEIVED ? "←" : "→";
    let name = row[TYPE], text = node ? "" : row[TEXT];
    if (node) {
      for (const kid of node.kind === "run" ? node.kids : []) if ((text += this.get(kid)[TEXT]).length > 150) break;
      if (node.kind === "part") name = `part ${row[CONTENT] - 1}`;
      else if (node.kind !== "run") name = `${node.kind} ${row[node.kind === "response" ? RESPONSE : ITEM]}`;
      name = `${this.isOpen(node) ? "▾" : "▸"} ×${whole(node.count)} ${name}`;
    }
    const audio = bytes ? `${whole(bytes)} bytes, ${whole(ms)} ms of audio` : "";
    return [`${i}`, seconds(row[TIME]), gap, arrow, name, whole(sums[SIZE]), [audio, text].filter(Boolean).join(" · ")];
  }
}

/** A browser resets the scroll position of an element that moves to another place, without an event: this one reports it. */
class Scroller extends HTMLElement {
  connectedCallback() { this.dispatchEvent(new Event("connected")); }
}
if (!customElements.get("rtnb-scroller")) customElements.define("rtnb-scroller", Scroller);

const COLUMNS = ["#", "time (s)", "gap (s)", "", "type", "bytes", "summary"], NUMERIC = [0, 1, 2, 5], DIGITS = [4, 7, 7, 0, 0, 5, 0];
let tables = 0;

/** The grid: paints the lines in view, follows the newest, and reacts to mouse and keyboard. */
export class EventTable {
  constructor(/** @type {Element} */ parent, /** @type {AbortSignal} */ signal) {
    this.view = new View();
    this.paused = false;
    this.follow = true;
    /** @type {Line} */ this.selected = null;
    this.frame = this.top = 0;
    this.digits = [...DIGITS]; // of the numeric columns; they only grow, so that nothing jumps
    /** @type {any[]} */ this.pool = [];
    this.uid = `rtnb-events-${++tables}`;
    this.grid = add(parent, "rtnb-scroller", { className: "rtnb-ev-grid", tabIndex: 0, "aria-label": "Events" });
    const head = add(this.grid, "div", { className: "rtnb-ev-row rtnb-ev-head", role: "row", "aria-rowindex": 1 });
    for (const name of COLUMNS) add(head, "span", { role: "columnheader", textContent: name, "aria-label": name || "direction" });
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
      if (line?.kids && target.matches(":nth-child(5)")) this.view.toggle(line);
      if (line !== undefined) this.select(line);
    });
    on("scroll", () => {
      if (grid.scrollTop < Math.min(this.top, grid.scrollHeight - grid.clientHeight - 2)) this.follow = false;
      this.top = grid.scrollTop;
      this.paint();
    });
    on("connected", () => {
      grid.scrollTop = this.top;
      this.paint();
    });
    on("keydown", (event) => {
      if (!event.ctrlKey && !event.metaKey && !event.altKey && (this.moveBy(event.key) || this.onKey(event.key))) event.preventDefault();
    });
    const resized = new ResizeObserver(this.paint);
    resized.observe(grid);
    signal.addEventListener("abort", () => resized.disconnect());
  }
  /** Act on a key that moves the selection or folds; whether it did. */
  moveBy(/** @type {string} */ key) {
    const { view } = this, { lines, depths } = view, at = lines.indexOf(this.selected), line = lines[at], last = lines.length - 1;
    const page = Math.floor(this.grid.clientHeight / ROW_PX) - 2, open = line?.kids && view.isOpen(line);
    const up = depths.slice(0, Math.max(at, 0)).findLastIndex((depth) => depth < depths[at]);
    const to = /** @type {Record<string, number>} */ ({ ArrowDown: at + 1, ArrowUp: at < 0 ? last : at - 1, ArrowLeft: up,
      PageDown: at + page, PageUp: at - page, Home: 0, End: last })[key];
    if (line?.kids && (key === "Enter" || (key === "ArrowRight" && !open) || (key === "ArrowLeft" && open))) view.toggle(line);
    else if (last >= 0 && to !== undefined && (key !== "ArrowLeft" || up >= 0)) {
      this.select(lines[Math.min(Math.max(to, 0), last)], key === "End");
    } else return false;
    this.paint();
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
    const { grid, view: { lines, fold, tree } } = this;
    put(this.space.style, "height", `${lines.length * ROW_PX}px`);
    if (this.follow && !this.paused) grid.scrollTop = grid.scrollHeight;
    this.top = grid.scrollTop;
    const first = Math.floor(this.top / ROW_PX), fit = Math.ceil(grid.clientHeight / ROW_PX) + 1;
    grid.removeAttribute("aria-activedescendant");
    for (let k = 0; k < Math.max(fit, this.pool.length); k++) {
      const dom = (this.pool[k] ??= add(this.space, "div", { className: "rtnb-ev-row", id: `${this.uid}-${k}`, role: "row" },
        ...COLUMNS.map(() => add(null, "span", { role: "gridcell" }))));
      dom.line = k < fit ? lines[first + k] : undefined;
      put(dom, "hidden", dom.line === undefined);
      if (!dom.hidden) this.paintRow(dom, first + k);
    }
    for (const c of NUMERIC) grid.style.setProperty(`--w${c}`, `${this.digits[c] + 0.6}ch`);
    putAttribute(grid, "role", fold || tree ? "treegrid" : "grid");
    putAttribute(grid, "aria-rowcount", lines.length + 1);
    this.onPainted();
  }
  paintRow(/** @type {any} */ dom, /** @type {number} */ at) {
    const { view, selected } = this, { line } = dom, i = firstOf(line), flags = view.get(i)[FLAGS], chosen = line === selected;
    const direction = flags & RECEIVED ? "received" : "sent", depth = view.depths[at];
    put(dom.style, "transform", `translateY(${at * ROW_PX}px)`);
    putAttribute(dom, "data-index", i);
    putAttribute(dom, "data-kind", line.kids && line.kind !== "run" ? "node" : flags & TROUBLE ? "trouble" : direction);
    putAttribute(dom, "data-relation", selected === null || chosen ? "" : view.relation(i, firstOf(selected)));
    putAttribute(dom, "aria-rowindex", at + 2);
    put(dom, "ariaSelected", `${chosen}`);
    put(dom, "ariaLevel", view.fold || view.tree ? `${depth + 1}` : null);
    put(dom, "ariaExpanded", line.kids ? `${view.isOpen(line)}` : null);
    if (chosen) this.grid.setAttribute("aria-activedescendant", dom.id);
    view.cells(line).forEach((text, c) => {
      put(dom.children[c], "textContent", text);
      this.digits[c] = Math.max(this.digits[c], text.length);
    });
    put(dom.children[3], "ariaLabel", direction);
    put(dom.children[4].style, "paddingInlineStart", `${depth * 14}px`);
  }
}
