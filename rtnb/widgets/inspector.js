/**
 * The inspector of events: toolbar, table (event_table.js) and a pane that tells one event in full (event_pane.js).
 *
 * @typedef {object} State
 * @property {string} channel    reference to the page's channel
 * @property {string} stream_name name of its stream
 * @property {string} table      the widget whose exports make the table
 * @property {string} pane       the widget whose exports make the pane
 * @property {string} static_id  marks the copy for notebooks without a kernel, hidden while this is alive
 * @property {boolean} can_send  whether events can be sent
 * @property {number} height_px  of the table
 * @property {?number} selected_index  the chosen event, both ways
 *
 * On the stream: "rows" comes (numbers and words, see _event_rows.py); "from" {start} goes, to be sent all rows from
 * there. Requests: "event" {index}, "run" {first, last}, "audio" {first, last, number}, "text" {index},
 * "search" {text, start}, "export" {start}, "templates", "check" {text}, "send" {text}: see inspector.py.
 */
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

async function render({ model, el, host }) {
  const wanted = ["channel", "table", "pane"].map((name) => host.getWidget(model.get(name)));
  const [channel, parts, { createPane }] = (await Promise.all(wanted)).map((widget) => widget.exports);
  const { whole, Rows, KEPT, TIME } = parts, gone = new AbortController(), { signal } = gone;
  let windowed = false, asked = -1, searching = false, searched = 0, growing = 0, stopped = 0, noted = "";

  // --- controls
  const button = (text, title, act) => make("button", { type: "button", textContent: text, title, onclick: act });
  const input = (label, width, title, type = "search") => {
    const made = make("input", { placeholder: label, "aria-label": label, title, spellcheck: false, type });
    made.style.width = width;
    return made;
  };
  const choice = (label, ...options) => make("select", { "aria-label": label, title: label },
    ...options.map(([value, text]) => make("option", { value, textContent: text })));
  const pause = button("Pause", "Freeze the view; events go on being kept (Space)", () => setPaused(!table.paused));
  const follow = button("Follow", "Keep the newest event in view (f)", () => table.setFollow(!table.follow));
  const direction = choice("Direction", ["", "Both ways"], ["sent", "Sent"], ["received", "Received"]);
  const names = make("datalist", { id: `${model.get("stream_name")}-types` });
  const types = input("Type, e.g. *.delta", "11em", "Types to show: * stands for anything, a comma means or, ! in front means not");
  types.setAttribute("list", names.id);
  const text = input("Find text or id", "10em", "In all that an event says, or its ids ( / )");
  const mode = choice("Arrangement", ["fold", "Folded"], ["all", "Every event"], ["tree", "Tree"]);
  const jump = input("Go to time", "7.5em", "Seconds or m:ss, then Enter", "text");
  const errors = button("0 errors", "Go to the next error (e)", () => nextTrouble());
  const earlier = button("", "Load events this page no longer keeps", () => setWindow(Math.max(0, view().rows.base - KEPT / 2), true));
  const latest = button("Latest", "Leave the earlier events", () => setWindow(Math.max(0, view().rows.total - KEPT / 2), false));
  const save = button("Export", "Save all events as JSON Lines", () => exported());
  const compose = button("Send…", "Write an event, have it checked, and send it", () => pane.compose());
  compose.hidden = !model.get("can_send");
  const bar = make("div", { className: "rtnb-ev-bar", role: "toolbar", "aria-label": "Events" },
    pause, follow, direction, types, names, text, mode, jump, errors, earlier, latest, save, compose);
  const status = make("div", { className: "rtnb-ev-status rtnb-faint" });
  const table = parts.createTable({ signal, make, on: (what, value) => heard[what]?.(value) });
  const view = () => table.view;
  const request = (...said) => stream.request(...said);
  const pane = createPane({ table, make, whole, button, choice, request, note, copy, TIME });
  const heard = {
    chosen: (one) => {
      pane.show(one);
      if (holdsSelected(one)) return;
      model.set("selected_index", one?.first ?? one);
      model.save_changes();
    },
    follow: (on) => follow.setAttribute("aria-pressed", on),
    painted: () => say(),
    key: (key) => {
      const act = { " ": () => setPaused(!table.paused), "/": () => text.focus(), e: nextTrouble, f: () => table.setFollow(!table.follow), t: setZero, c: copy }[key];
      act?.();
      return Boolean(act);
    },
  };
  const root = make("div", { className: "rtnb rtnb-ev" }, bar, make("div", { className: "rtnb-ev-body" }, table.el, pane.el), status);
  root.setAttribute("data-lm-suppress-shortcuts", "true");
  root.style.setProperty("--rtnb-ev-height", `${model.get("height_px")}px`);
  const still = `[data-rtnb-static="${model.get("static_id")}"]`;
  el.append(make("style", { textContent: `${still}, .jp-OutputArea-child:has(${still}) { display: none }` }), root);

  // --- rows come
  const stream = channel.openStream(model.get("stream_name"), (kind, header, buffers) => {
    const { rows } = view();
    if (kind !== "rows") return;
    rows.total = Math.max(rows.total, header.total);
    if (rows.count >= (windowed ? KEPT : 2 * KEPT)) return void table.paint();
    const [numbers, words] = buffers.map((b) => (ArrayBuffer.isView(b) ? b : new DataView(b)));
    const ints = new Int32Array(numbers.buffer, numbers.byteOffset, numbers.byteLength / 4);
    if (!rows.add(header, ints, JSON.parse(new TextDecoder().decode(words)))) { if (asked !== rows.next) ask(); }
    else if (!table.paused) grow();
    table.paint();
  });
  const ask = () => stream.send("from", { start: (asked = view().rows.next) });
  const grow = () => {
    growing ||= requestAnimationFrame(() => {
      growing = 0;
      const { rows } = view();
      if (!windowed && !table.paused && rows.count > KEPT * 1.25) { rows.drop(rows.count - KEPT); rebuild(); }
      if (!view().grow(upTo())) grow();
      else if (view().needle) search();
      table.paint();
    });
  };
  const upTo = () => (table.paused ? stopped : undefined);
  const unwatch = channel.onStatus(() => table.paint());
  function setWindow(base, on) {
    windowed = on;
    table.view.rows = new Rows(base);
    table.setFollow(!on);
    rebuild();
    ask();
  }
  function rebuild() {
    const about = table.chosen?.first ?? table.chosen;
    view().rebuild(upTo());
    table.chosen = about === null ? null : view().lineOf(about) ?? null;
    grow();
  }

  // --- the selection is shared
  const holdsSelected = (one) => {
    const index = model.get("selected_index"), first = one?.first ?? one;
    return index !== null && first !== null && first <= index && index <= (one?.last ?? one);
  };
  const selected = () => {
    const index = model.get("selected_index");
    if (index !== null && !holdsSelected(table.chosen)) table.goTo(index);
  };
  model.on("change:selected_index", selected);

  // --- what the controls do
  function setPaused(on) {
    table.paused = on;
    stopped = view().seen;
    pause.textContent = on ? "Resume" : "Pause";
    pause.setAttribute("aria-pressed", on);
    if (on) return table.paint();
    if (view().rows.total > view().rows.next) ask();
    grow();
  }
  function filter() {
    Object.assign(view(), { direction: direction.value, types: types.value, text: text.value });
    Object.assign(view(), { tree: mode.value === "tree", fold: mode.value !== "all", found: new Set() });
    searched = 0;
    rebuild();
    search();
  }
  /** Ask the kernel for events whose full text matches, where the short text here does not. */
  async function search() {
    const wanted = text.value.trim();
    if (searching || !wanted) return;
    searching = true;
    try {
      while (wanted === text.value.trim() && searched < view().rows.next) {
        const { hits, next } = await stream.request("search", { text: wanted, start: Math.max(searched, view().rows.base) });
        if (wanted !== text.value.trim()) break;
        const fresh = hits.filter((i) => i < view().rows.next && !view().fits(i));
        fresh.forEach((i) => view().found.add(i));
        if (fresh.length) rebuild();
        searched = Math.max(next, searched + 1);
      }
    } catch (error) {
      note(error);
    } finally {
      searching = false;
    }
    if (wanted !== text.value.trim()) search();
  }
  function nextTrouble() {
    const { troubles } = view().rows, after = table.chosen?.last ?? table.chosen ?? -1;
    const next = [...troubles.filter((i) => i > after), ...troubles].find((i) => table.goTo(i));
    if (next === undefined) note(new Error(troubles.length ? "no error fits the filter" : "no errors"));
    table.el.focus();
  }
  function setZero() {
    table.zero = table.zero || table.chosen === null ? 0 : view().rows.at(table.chosen?.first ?? table.chosen, TIME);
    table.paint();
  }
  function goToTime() {
    if (growing) return void requestAnimationFrame(goToTime); // the lines are still being laid
    const at = clock(jump.value) * 10_000 + table.zero, { lines, rows } = view();
    if (Number.isNaN(at)) return note(new Error("a time is seconds, or m:ss"));
    let low = 0, high = lines.length - 1;
    const time = (k) => rows.at(lines[k].first ?? lines[k], TIME);
    while (low < high) { const mid = (low + high) >> 1; if (time(mid) < at) low = mid + 1; else high = mid; }
    if (lines.length) table.select(lines[low]);
  }
  async function copy() {
    if (typeof table.chosen !== "number") return;
    try {
      await navigator.clipboard.writeText((await stream.request("text", { index: table.chosen })).text);
      note(null, `event ${table.chosen} copied as JSON`);
    } catch (error) { note(error); }
  }
  async function exported() {
    const chunks = [];
    save.disabled = true;
    try {
      for (let start = 0, more = true; more;) {
        const answer = await stream.request("export", { start }, { timeout_ms: 30_000 });
        chunks.push(answer.text);
        [start, more] = [answer.next, answer.more];
        note(null, `exporting: ${whole(start)} events`);
      }
      const url = URL.createObjectURL(new Blob(chunks, { type: "application/jsonl" }));
      make("a", { href: url, download: "events.jsonl" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) { note(error); }
    save.disabled = false;
  }
  // --- what is told
  function note(error, message = "") {
    noted = error ? `${error.message}` : message;
    status.classList.toggle("rtnb-error", Boolean(error));
    say();
  }
  function say() {
    const { rows, shown, seen } = view(), { kind } = channel.status(), busy = seen < (upTo() ?? rows.next);
    const waiting = table.paused && rows.total > seen ? `paused: ${whole(rows.total - seen)} new` : table.paused ? "paused" : "";
    const facts = [`${whole(shown)}${busy ? "…" : ""} of ${whole(rows.total)} events`, waiting, windowed ? "earlier events: not live" : "",
      kind === "none" ? "the kernel does not answer: this is what had come" : "", noted];
    const words = rows.total ? facts.filter(Boolean).join(" · ") : kind === "none" ? "waiting for the kernel" : "no events yet";
    if (status.textContent !== words) status.textContent = words;
    const { length } = rows.troubles;
    errors.textContent = `${whole(length)} error${length === 1 ? "" : "s"}`;
    errors.toggleAttribute("data-trouble", length > 0);
    earlier.hidden = !rows.base;
    earlier.textContent = `${whole(rows.base)} earlier`;
    latest.hidden = !windowed;
    if (document.activeElement === direction) return;
    [rows.count, rows.sent, rows.count - rows.sent].forEach((n, i) => {
      direction.options[i].textContent = `${["Both ways", "Sent", "Received"][i]} (${whole(n)})`;
    });
  }

  for (const control of [direction, mode]) control.addEventListener("change", filter);
  for (const control of [types, text]) control.addEventListener("input", filter);
  types.addEventListener("focus", () => {
    const { rows } = view(), known = rows.types.map((type, k) => [type, rows.byType[k]]).filter(([, n]) => n);
    names.replaceChildren(...known.sort((a, b) => b[1] - a[1]).map(([type, n]) => make("option", { value: type, label: `${type} (${whole(n)})` })));
  });
  root.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target === jump) goToTime();
    if (event.key === "Escape" || (event.key === "Enter" && [types, text, jump].includes(event.target))) table.el.focus();
  });
  follow.setAttribute("aria-pressed", "true");
  pause.setAttribute("aria-pressed", "false");
  pane.show(null);
  ask();
  table.paint();
  return () => { gone.abort(); unwatch(); stream.close(); pane.close(); model.off("change:selected_index", selected); };
}

export default { render };
