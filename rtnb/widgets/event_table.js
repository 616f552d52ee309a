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
    Object.assign(this, { needle, seen: this.rows.base, shown: 0, stretch: 0, root: { kids: [], open: true } });
    this.nodes = new Map();
    this.grow(upTo);
  }
  fits(i) {
    const { rows } = this;
    if (this.direction && (this.direction === "received") !== !!(rows.at(i, FLAGS) & RECEIVED)) return false;
    if (!this.fitsType(rows.at(i, TYPE))) return false;
    if (!this.needle || this.needle.test(rows.text(i)) || this.typeHas(rows.at(i, TYPE)) || this.found.has(i)) return true;
    return this.idHas(rows.at(i, ITEM)) || this.idHas(rows.at(i, RESPONSE)) || this.idHas(rows.at(i, CALL));
  }
  /** Take in the rows that have come (up to `upTo` while paused). */
  grow(upTo = this.rows.next) {
    for (; this.seen < upTo; this.seen++) if (this.fits(this.seen)) this.place(this.seen);
    this.lines = [];
    this.depths = [];
    this.lay(this.root, 0);
  }
  place(i) {
    const { rows } = this, piece = rows.at(i, FLAGS) & PIECE;
    const item = rows.at(i, ITEM), response = rows.at(i, RESPONSE), content = rows.at(i, CONTENT), path = [this.root];
    const enter = (kind, key) => path.push(this.node(path.at(-1), kind, key, i));
    this.shown++;
    if (this.tree) {
      if (response) enter("response", `r${response}`);
      if (item) enter("item", `i${item}`);
      if (item && content) enter("part", `p${item}:${content}`);
    }
    if (path.length === 1 && !piece) this.stretch++;
    if (piece && this.fold) enter("run", `${path.length > 1 ? "" : this.stretch}:${rows.at(i, TYPE)}:${item}:${content}`);
    path.at(-1).kids.push(i);
    const perMs = rows.perMs[rows.at(i, FORMAT)] ?? 48, bytes = rows.at(i, BYTES);
    for (const node of path) {
      node.last = i;
      node.count++;
      node.size += rows.at(i, SIZE);
      if (piece) node.bytes += bytes;
      if (piece) node.ms += bytes / perMs;
    }
  }
  node(parent, kind, key, first) {
    let node = this.nodes.get(key);
    if (!node) {
      node = { kind, key, first, last: first, kids: [], count: 0, size: 0, bytes: 0, ms: 0, parent };
      this.nodes.set(key, node);
      parent.kids.push(node);
    }
    return node;
  }
  isOpen(node) { return (node.kind !== "run") !== this.toggled.has(node.key); }
  toggle(node) {
    if (!this.toggled.delete(node.key)) this.toggled.add(node.key);
    this.grow(this.seen);
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
    const title = `${this.isOpen(node) ? "▾" : "▸"} ${name ?? `${node.kind} ${id}`}`;
    return [...row, `${title} ×${whole(node.count)}`, whole(node.size), [audio, text].filter(Boolean).join(" · ")];
  }
}
const holds = (node, index) => node.kids.some((kid) => kid === index || (kid.kids && holds(kid, index)));
const remembered = (test, known = []) => (key) => (known[key] ??= test(key));
export const whole = (number) => Math.round(number).toLocaleString("en");
const seconds = (tenths) => (tenths / 10_000).toFixed(3);
/** "1:02.5" or "62.5" as seconds; NaN where it is neither. */
export const clock = (text) => text.split(":").reduce((sum, part) => sum * 60 + (part.trim() ? Number(part) : NaN), 0);

/** An element; `role` and `aria-…` become attributes. */
export function make(tag, props = {}, ...kids) {
  const { role, ...rest } = props, el = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(rest)) if (name.startsWith("aria-")) el.setAttribute(name, value);
  if (role) el.setAttribute("role", role);
  el.append(...kids);
  return el;
}

const COLUMNS = ["#", "", "time (s)", "gap (s)", "type", "bytes", "summary"];
let tables = 0;

/**
 * The grid: paints what is in view, follows the newest, and is driven by mouse and keyboard.
 * @param {{on: (what: string, value?: any) => void, signal: AbortSignal}} to  told of "chosen", "follow", "key", "painted"
 */
export function createTable({ on, signal }) {
  const uid = `rtnb-events-${++tables}`, pool = [];
  const head = make("div", { className: "rtnb-ev-row rtnb-ev-head", role: "row" },
    ...COLUMNS.map((name) => make("span", { role: "columnheader", textContent: name, "aria-label": name || "direction" })));
  const space = make("div", { className: "rtnb-ev-space", role: "rowgroup" });
  const grid = make("div", { className: "rtnb-ev-grid", tabIndex: 0, role: "grid", "aria-label": "Events" }, head, space);
  const table = { el: grid, view: new View(new Rows()), paused: false, follow: true, chosen: null, zero: 0 };
  let frame = 0;
  table.paint = () => { frame ||= requestAnimationFrame(painted); };
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
  /** Select the line of an event, or the folded run it is in; false where it is not shown. */
  table.goTo = (index) => {
    const line = table.view.lineOf(index);
    table.select(line);
    return line !== undefined;
  };

  function painted() {
    frame = 0;
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
      dom.style.transform = `translateY(${at * ROW_PX}px)`;
      dom.line = line;
      dom.dataset.index = i;
      dom.dataset.kind = node && node.kind !== "run" ? "node" : flags & TROUBLE ? "trouble" : flags & RECEIVED ? "received" : "sent";
      dom.dataset.relation = about === null || line === chosen ? "" : view.relation(i, about);
      dom.setAttribute("aria-selected", String(line === chosen));
      dom.setAttribute("aria-rowindex", at + 2);
      if (node) dom.setAttribute("aria-expanded", String(view.isOpen(node)));
      else dom.removeAttribute("aria-expanded");
      if (line === chosen) grid.setAttribute("aria-activedescendant", dom.id);
      const cells = view.cells(line, zero);
      for (let c = 0; c < cells.length; c++) if (dom.children[c].textContent !== cells[c]) dom.children[c].textContent = cells[c];
      dom.children[4].style.paddingInlineStart = `${view.depths[at] * 14}px`;
    }
    grid.setAttribute("aria-rowcount", lines.length + 1);
    on("painted");
  }
  const newRow = (k) => make("div", { className: "rtnb-ev-row", id: `${uid}-${k}`, role: "row" },
    ...COLUMNS.map(() => make("span", { role: "gridcell" })));
  const toggle = (node) => { table.view.toggle(node); table.paint(); };
  const listen = (name, act) => grid.addEventListener(name, act, { signal, passive: name === "scroll" || name === "wheel" });
  listen("click", ({ target }) => {
    const line = target.closest(".rtnb-ev-row")?.line;
    if (line?.kids && target.matches(":nth-child(5)")) toggle(line);
    table.select(line);
  });
  listen("wheel", ({ deltaY }) => { if (deltaY < 0) table.setFollow(false); });
  listen("scroll", () => table.paint());
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
  const watch = new ResizeObserver(() => table.paint());
  watch.observe(grid);
  signal.addEventListener("abort", () => watch.disconnect());
  return table;
}

export default { initialize: () => ({ createTable, make, Rows, View, clock, whole, KEPT, TIME, FLAGS, RECEIVED, CAUSE }) };
