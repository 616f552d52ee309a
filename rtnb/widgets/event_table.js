/**
 * The table of events without its surroundings: compact rows, one filter, folding or a tree, and some forty DOM rows
 * however many events there are. Not shown by itself: inspector.js takes `createTable` from its exports.
 *
 * @typedef {{}} State no traits
 */
const STRIDE = 11, ROW_PX = 22;
export const [FLAGS, TIME, TYPE, SIZE, BYTES, FORMAT, ITEM, RESPONSE, CALL, CONTENT, CAUSE] = Array(STRIDE).keys();
export const RECEIVED = 1, TROUBLE = 2, PIECE = 4;
/** Rows a page keeps (about 30 MB); the kernel keeps all. */
export const KEPT = 200_000;

/** Events as the page keeps them: `numbers` in rows of STRIDE, and one short text each. */
export class Rows {
  constructor(base = 0) {
    Object.assign(this, { base, count: 0, total: base, numbers: new Int32Array(STRIDE << 12), texts: [] });
    Object.assign(this, { types: [], ids: [""], perMs: [], byType: [], sent: 0, troubles: [] });
  }
  get next() { return this.base + this.count; }
  at(index, column) { return this.numbers[(index - this.base) * STRIDE + column]; }
  text(index) { return this.texts[index - this.base]; }
  type(index) { return this.types[this.at(index, TYPE)]; }
  /** Take in a frame; false where rows before it are missing. */
  add(header, numbers, words) {
    this.total = Math.max(this.total, header.total);
    const skip = this.next - header.start;
    if (skip < 0 || skip >= header.count) return skip >= 0;
    const from = this.count, more = numbers.subarray(skip * STRIDE, header.count * STRIDE);
    const need = from * STRIDE + more.length;
    if (need > this.numbers.length) {
      const grown = new Int32Array(Math.max(need, this.numbers.length * 2));
      grown.set(this.numbers);
      this.numbers = grown;
    }
    this.numbers.set(more, from * STRIDE);
    for (let i = skip; i < header.count; i++) this.texts.push(words.summaries[i]);
    Object.assign(this.types, words.types);
    Object.assign(this.ids, words.ids);
    this.perMs = words.formats;
    this.count += header.count - skip;
    this.tally(from);
    return true;
  }
  /** Forget the first `n` rows. */
  drop(n) {
    this.numbers.copyWithin(0, n * STRIDE, this.count * STRIDE);
    this.texts.splice(0, n);
    Object.assign(this, { base: this.base + n, count: this.count - n, byType: [], sent: 0, troubles: [] });
    this.tally(0);
  }
  tally(from) {
    for (let at = from * STRIDE, i = this.base + from; i < this.next; i++, at += STRIDE) {
      const flags = this.numbers[at], type = this.numbers[at + TYPE];
      this.byType[type] = (this.byType[type] ?? 0) + 1;
      if (!(flags & RECEIVED)) this.sent++;
      if (flags & TROUBLE) this.troubles.push(i);
    }
  }
}

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
/** A test of words: "*" stands for anything, a comma or space means "or", "!" in front means "not". */
export function pattern(text) {
  const one = (word) => {
    const body = word.split("*").map(escaped).join(".*");
    return new RegExp(word.includes("*") ? `^${body}$` : body, "i");
  };
  const words = text.split(/[\s,]+/).filter((word) => word.replace(/^!/, ""));
  const wanted = words.filter((word) => word[0] !== "!").map(one);
  const unwanted = words.filter((word) => word[0] === "!").map((word) => one(word.slice(1)));
  return (word) => (!wanted.length || wanted.some((w) => w.test(word))) && !unwanted.some((w) => w.test(word));
}

/** What is shown of the rows, in order: `lines` holds row numbers and nodes, `depths` their indentation. */
export class View {
  constructor(rows) {
    Object.assign(this, { rows, direction: "", types: "", text: "", tree: false, fold: true });
    Object.assign(this, { toggled: new Set(), found: new Set() });
    this.rebuild();
  }
  /** Begin anew, after the filter or the mode has changed. */
  rebuild(upTo) {
    const fits = pattern(this.types), needle = this.text.trim() && new RegExp(escaped(this.text.trim()), "i");
    this.fitsType = remembered((type) => fits(this.rows.types[type]));
    this.typeHas = remembered((type) => needle.test(this.rows.types[type]));
    this.idHas = remembered((id) => needle.test(this.rows.ids[id]));
    Object.assign(this, { needle, seen: this.rows.base, shown: 0, root: { kids: [] }, lines: [], depths: [] });
    this.grow(upTo);
  }
  fits(i) {
    const { rows, needle } = this, at = (i - rows.base) * STRIDE, row = rows.numbers, type = row[at + TYPE];
    if (this.direction && (this.direction === "received") !== !!(row[at] & RECEIVED)) return false;
    if (!this.fitsType(type)) return false;
    if (!needle || needle.test(rows.texts[i - rows.base]) || this.typeHas(type) || this.found.has(i)) return true;
    return this.idHas(row[at + ITEM]) || this.idHas(row[at + RESPONSE]) || this.idHas(row[at + CALL]);
  }
  /** Take in the rows that have come, for some milliseconds; whether that was all (up to `upTo` while paused). */
  grow(upTo = this.rows.next, budget_ms = 12) {
    const end = performance.now() + budget_ms;
    for (; this.seen < upTo && (this.seen % 256 || performance.now() < end); this.seen++) {
      if (this.fits(this.seen)) this.place(this.seen);
    }
    if (this.moved) this.relay();
    return this.seen >= upTo;
  }
  place(i) {
    const { rows } = this, at = (i - rows.base) * STRIDE, row = rows.numbers, piece = row[at] & PIECE;
    const item = row[at + ITEM], response = row[at + RESPONSE], content = row[at + CONTENT], type = row[at + TYPE];
    let node = this.root;
    this.shown++;
    if (this.tree) {
      if (response) node = this.enter(node, "response", response, i);
      if (item) node = this.enter(node, "item", item, i);
      if (item && content) node = this.enter(node, "part", content, i);
    }
    if (node === this.root && !piece) node.run = new Map(); // a piece after this begins a new run
    if (piece && this.fold) node = this.enter(node, "run", (type * 1e6 + item) * 100 + content, i);
    node.kids.push(i);
    if (node === this.root) this.depths[this.lines.push(i) - 1] = 0; // the usual case: one line more, at the end
    else this.moved ||= node.kind !== "run" || node.count < 2 || this.isOpen(node);
    const bytes = piece ? row[at + BYTES] : 0, ms = bytes && bytes / (rows.perMs[row[at + FORMAT]] ?? 48);
    for (; node; node = node.parent) {
      node.last = i;
      node.count++;
      node.size += row[at + SIZE];
      node.bytes += bytes;
      node.ms += ms;
    }
  }
  enter(parent, kind, number, first) {
    const known = (parent[kind] ??= new Map());
    let node = known.get(number);
    if (!node) {
      const key = `${parent.key ?? ""}/${kind}${number}${kind === "run" && !parent.key ? `@${first}` : ""}`;
      node = { kind, key, first, last: first, kids: [], count: 0, size: 0, bytes: 0, ms: 0, parent };
      known.set(number, node);
      parent.kids.push(node);
    }
    return node;
  }
  isOpen(node) { return (node.kind !== "run") !== this.toggled.has(node.key); }
  toggle(node) {
    if (!this.toggled.delete(node.key)) this.toggled.add(node.key);
    this.relay();
  }
  relay() {
    Object.assign(this, { lines: [], depths: [], moved: false });
    this.lay(this.root, 0);
  }
  lay(node, depth) {
    for (const kid of node.kids) {
      const alone = kid.kind === "run" && kid.count === 1;
      this.lines.push(alone ? kid.first : kid);
      this.depths.push(depth);
      if (kid.kids && !alone && this.isOpen(kid)) this.lay(kid, depth + 1);
    }
  }
  /** The line of an event: itself, or the innermost shown node that holds it. */
  lineOf(index) {
    let best;
    for (const line of this.lines) {
      if (line === index) return line;
      if (line.kids && line.first <= index && index <= line.last && holds(line, index)) best = line;
    }
    return best;
  }
  /** Whether a row belongs to the selected one: "cause" (refused, or refused by it), "same" (item, call), "near". */
  relation(i, to) {
    const { rows } = this;
    if (rows.at(i, CAUSE) === to || rows.at(to, CAUSE) === i) return "cause";
    const same = (column) => rows.at(i, column) && rows.at(i, column) === rows.at(to, column);
    return same(ITEM) || same(CALL) ? "same" : same(RESPONSE) ? "near" : "";
  }
  /** The texts of a line's cells. */
  cells(line, zero) {
    const { rows } = this, node = typeof line === "object" ? line : null, i = node ? node.first : line;
    const gap = i > rows.base ? `+${seconds(rows.at(i, TIME) - rows.at(i - 1, TIME))}` : "";
    const bytes = node ? node.bytes : rows.at(i, BYTES), ms = node ? node.ms : bytes / (rows.perMs[rows.at(i, FORMAT)] ?? 48);
    const audio = bytes ? `${whole(bytes)} bytes, ${whole(ms)} ms of audio` : "";
    const arrow = rows.at(i, FLAGS) & RECEIVED ? "←" : "→";
    const row = [String(i), node && node.kind !== "run" ? "" : arrow, seconds(rows.at(i, TIME) - zero), gap];
    if (!node) return [...row, rows.type(i), whole(rows.at(i, SIZE)), [audio, rows.text(i)].filter(Boolean).join(" · ")];
    const id = rows.ids[rows.at(i, node.kind === "response" ? RESPONSE : ITEM)];
    const name = { run: () => rows.type(i), part: () => `part ${rows.at(i, CONTENT) - 1}` }[node.kind]?.();
    let text = "";
    for (const kid of node.kind === "run" ? node.kids : []) if ((text += rows.text(kid)).length > 150) break;
    const title = `${this.isOpen(node) ? "▾" : "▸"} ×${whole(node.count)} ${name ?? `${node.kind} ${id}`}`;
    return [...row, title, whole(node.size), [audio, text].filter(Boolean).join(" · ")];
  }
}
const holds = (node, index) => node.kids.some((kid) => kid === index || (kid.kids && holds(kid, index)));
const remembered = (test, known = []) => (key) => (known[key] ??= test(key));
const format = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const whole = (number) => format.format(number);
const seconds = (tenths) => (tenths / 10_000).toFixed(3);
const COLUMNS = ["#", "", "time (s)", "gap (s)", "type", "bytes", "summary"];
let tables = 0;

/** The grid: paints what is in view, follows the newest, and is driven by mouse and keyboard. */
export function createTable({ on, signal, make }) {
  const uid = `rtnb-events-${++tables}`, pool = [];
  const head = make("div", { className: "rtnb-ev-row rtnb-ev-head", role: "row" },
    ...COLUMNS.map((name) => make("span", { role: "columnheader", textContent: name, "aria-label": name || "direction" })));
  const space = make("div", { className: "rtnb-ev-space", role: "rowgroup" });
  const grid = make("div", { className: "rtnb-ev-grid", tabIndex: 0, role: "grid", "aria-label": "Events" }, head, space);
  const table = { el: grid, view: new View(new Rows()), paused: false, follow: true, chosen: null, zero: 0 };
  table.paint = () => { table.frame ||= requestAnimationFrame(painted); };
  table.select = (line) => {
    if (line === undefined) return;
    const at = table.view.lines.indexOf((table.chosen = line));
    const top = at * ROW_PX, room = grid.clientHeight - 2 * ROW_PX;
    if (top < grid.scrollTop) grid.scrollTop = top;
    else if (top > grid.scrollTop + room) grid.scrollTop = top - room;
    if (at < table.view.lines.length - 1) table.setFollow(false);
    table.paint();
    on("chosen", line);
  };
  table.setFollow = (follow) => {
    if (follow !== table.follow) on("follow", (table.follow = follow));
    table.paint();
  };
  /** Select the line that shows an event; false where none does. */
  table.goTo = (index, line = table.view.lineOf(index)) => {
    table.select(line);
    return line !== undefined;
  };

  function painted() {
    table.frame = 0;
    const { view, chosen, zero } = table, { lines, rows } = view, about = chosen?.first ?? chosen;
    space.style.height = `${lines.length * ROW_PX}px`;
    if (table.follow && !table.paused) grid.scrollTop = grid.scrollHeight;
    const first = Math.max(0, Math.floor(grid.scrollTop / ROW_PX)), fit = Math.ceil(grid.clientHeight / ROW_PX) + 1;
    grid.removeAttribute("aria-activedescendant");
    for (let k = 0; k < Math.max(fit, pool.length); k++) {
      const at = first + k, line = lines[at], dom = (pool[k] ??= space.appendChild(newRow(k)));
      dom.hidden = k >= fit || line === undefined;
      if (dom.hidden) continue;
      const node = line.kids ? line : null, i = node ? node.first : line, flags = rows.at(i, FLAGS);
      const kind = node && node.kind !== "run" ? "node" : flags & TROUBLE ? "trouble" : flags & RECEIVED ? "received" : "sent";
      dom.line = line;
      set(dom, "style", `transform: translateY(${at * ROW_PX}px)`);
      set(dom, "data-index", i);
      set(dom, "data-kind", kind);
      set(dom, "data-relation", about === null || line === chosen ? "" : view.relation(i, about));
      set(dom, "aria-selected", String(line === chosen));
      set(dom, "aria-rowindex", at + 2);
      set(dom, "aria-expanded", node && String(view.isOpen(node)));
      if (line === chosen) grid.setAttribute("aria-activedescendant", dom.id);
      const cells = view.cells(line, zero);
      for (let c = 0; c < cells.length; c++) set(dom.children[c].firstChild, "data", cells[c]);
      set(dom.children[4], "style", view.depths[at] ? `padding-inline-start: ${view.depths[at] * 14}px` : null);
    }
    grid.setAttribute("aria-rowcount", lines.length + 1);
    on("painted");
  }
  const set = (dom, name, value) => {
    if ((dom.said ??= {})[name] === value) return;
    dom.said[name] = value;
    if (name === "data") dom.data = value;
    else if (value === null) dom.removeAttribute(name);
    else dom.setAttribute(name, value);
  };
  const newRow = (k) => make("div", { className: "rtnb-ev-row", id: `${uid}-${k}`, role: "row" },
    ...COLUMNS.map(() => make("span", { role: "gridcell" }, "")));
  const toggle = (node) => table.paint(table.view.toggle(node));
  const listen = (name, act) => grid.addEventListener(name, act, { signal, passive: name === "scroll" || name === "wheel" });
  listen("click", ({ target }) => {
    const line = target.closest(".rtnb-ev-row")?.line;
    if (line?.kids && target.matches(":nth-child(5)")) toggle(line);
    table.select(line);
  });
  listen("wheel", ({ deltaY }) => { if (deltaY < 0) table.setFollow(false); });
  listen("scroll", table.paint);
  listen("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { lines } = table.view, at = lines.indexOf(table.chosen), page = Math.floor(grid.clientHeight / ROW_PX) - 2;
    const line = lines[at], go = (to) => table.select(lines[Math.min(Math.max(to, 0), lines.length - 1)]);
    const keys = {
      ArrowDown: () => go(at + 1), ArrowUp: () => go(at < 0 ? lines.length - 1 : at - 1),
      PageDown: () => go(at + page), PageUp: () => go(at - page), Home: () => go(0),
      End: () => { go(lines.length - 1); table.setFollow(true); },
      Enter: () => line?.kids && toggle(line),
      ArrowRight: () => line?.kids && !table.view.isOpen(line) && toggle(line),
      ArrowLeft: () => {
        if (line?.kids && table.view.isOpen(line)) return toggle(line);
        for (let up = at - 1; up >= 0; up--) if (table.view.depths[up] < table.view.depths[at]) return go(up);
      },
    };
    if (keys[event.key]) keys[event.key]();
    else if (!on("key", event.key)) return;
    event.preventDefault();
  });
  const watch = new ResizeObserver(table.paint);
  watch.observe(grid);
  signal.addEventListener("abort", () => watch.disconnect());
  return table;
}

export default { initialize: () => ({ createTable, Rows, View, whole, KEPT, TIME }) };
