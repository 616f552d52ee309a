/**
 * The pane that tells one event in full: what it means, its JSON with audio to play, its fields; or sends a new one.
 * Not shown by itself: inspector.js takes `createPane` from its exports.
 *
 * @typedef {{}} State no traits
 */
const HELP = "Choose an event to see what it means and all it says. Keys: ↑ ↓ PageUp PageDown Home End move, Enter or → "
  + "unfolds, ← folds, / finds, e next error, Space pauses, f follows, t counts time from here, c copies, Esc comes back.";
const CONTROLS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** JSON text in which nothing turns the order of what follows. */
export const quoted = (text) => JSON.stringify(text).replace(CONTROLS, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
/** The same for plain text. */
export const plain = (text) => text.replace(CONTROLS, "\ufffd");

/** A JSON value as nodes; `marked` replaces or follows what stands at a path. */
export function jsonNodes(value, marked, make, path = [], indent = "\n") {
  const mark = marked(path), own = mark?.instead;
  if (own) return [own];
  const after = mark?.after ? [mark.after] : [];
  if (value === null || typeof value !== "object") return [typeof value === "string" ? quoted(value) : String(value), ...after];
  const list = Array.isArray(value), keys = Object.keys(value), deeper = `${indent}  `;
  if (!keys.length) return [list ? "[]" : "{}"];
  const nodes = [list ? "[" : "{"];
  keys.forEach((key, i) => {
    nodes.push(i ? `,${deeper}` : deeper);
    if (!list) nodes.push(make("span", { className: "rtnb-ev-key", textContent: quoted(key) }), ": ");
    nodes.push(...jsonNodes(value[key], marked, make, [...path, list ? i : key], deeper));
  });
  return [...nodes, indent, list ? "]" : "}"];
}

/** The pane; it asks with `request` and shows what the table has chosen. */
export function createPane({ table, make, whole, button, choice, request, note, copy, TIME }) {
  const side = make("div", { className: "rtnb-ev-side", role: "region", "aria-label": "One event", tabIndex: -1 });
  const link = (text, act) => make("button", { type: "button", className: "rtnb-ev-link", textContent: text, onclick: act });
  let sound = null, sounding = null;

  async function play(from) {
    const at = JSON.stringify(from), stop = sounding === at && sound && !sound.ended;
    sound?.pause();
    [sound, sounding] = [null, null];
    if (stop) return;
    try {
      const { wav } = await request("audio", from, { timeout_ms: 15_000 });
      [sound, sounding] = [new Audio(`data:audio/wav;base64,${wav}`), at];
      await sound.play();
    } catch (error) { note(error); }
  }

  const jumpTo = (index) => link(`#${index}`, () => table.goTo(index) || note(new Error(`event ${index} does not fit the filter`)));
  const listen = (from, { bytes, ms }) => button(`${whole(bytes)} bytes, ${whole(ms)} ms ▶`, "Play or stop", () => play(from));
  const title = (name, ...buttons) => make("div", { className: "rtnb-ev-title" }, make("strong", { textContent: plain(name) }), ...buttons);
  async function show(one) {
    if (one === null) return side.replaceChildren(make("p", { className: "rtnb-faint", textContent: HELP }));
    const run = one.kids ? { first: one.first, last: one.last } : null;
    if (run && one.kind !== "run") return side.replaceChildren(title(table.view.cells(one, table.zero)[4]), facts(one));
    try {
      const told = await request(run ? "run" : "event", run ?? { index: one });
      if (table.chosen !== one) return;
      const meaning = make("p", { textContent: plain(told.meaning) });
      if (run) return side.replaceChildren(title(told.type), meaning, facts(one), make("p", { textContent: plain(told.text) }), fields(told));
      const [, , at, gap, , size] = table.view.cells(one, table.zero), clock = new Date(told.wall_time * 1000).toLocaleTimeString();
      const time = make("p", { className: "rtnb-faint", textContent: `#${one} · ${at} s · ${gap} s after the one before · ${size} bytes · ${clock}` });
      const causes = told.errors.map(({ index, text: why }) => make("p", { className: "rtnb-error" }, "Refused by ", jumpTo(index), ` ${why}`));
      if (told.cause) causes.push(make("p", { className: "rtnb-error" }, "Caused by ", jumpTo(told.cause.index), ` ${plain(told.cause.type)}`));
      const marks = new Map(told.audio.map((a) => [JSON.stringify(a.path), { instead: listen({ first: one, last: one, number: a.number }, a) }]));
      const more = (n) => make("em", { className: "rtnb-faint", textContent: ` … ${whole(n)} characters, all of them with Copy` });
      for (const cut of told.cuts) marks.set(JSON.stringify(cut.path), { after: more(cut.length) });
      const json = make("pre", { tabIndex: 0 }, ...jsonNodes(told.json, (path) => marks.get(JSON.stringify(path)), make));
      side.replaceChildren(title(told.type, button("Copy", "Copy as JSON (c)", copy)), meaning, ...causes, time, json, fields(told));
    } catch (error) { note(error); }
  }
  function facts(node) {
    const from = { first: node.first, last: node.last, number: 0 };
    const took = ((table.view.rows.at(node.last, TIME) - table.view.rows.at(node.first, TIME)) / 10).toFixed(0);
    const said = `${whole(node.count)} events, #${node.first} to #${node.last}, within ${whole(took)} ms. `;
    return make("p", {}, said, ...(node.kind === "run" && node.bytes ? [listen(from, node)] : []));
  }
  function fields(told) {
    const rows = told.fields.map((field) => make("tr", {}, ...[field.name, `${field.kind}${field.needed ? "" : ", optional"}`, field.what]
      .map((cell) => make("td", { textContent: cell }))));
    return make("details", { open: true, hidden: !rows.length }, make("summary", { textContent: "Its fields" }), make("table", {}, ...rows));
  }

  // --- sending
  async function composed() {
    const { templates } = await request("templates", {});
    const kinds = Object.keys(templates), pick = choice("Begin with", ...kinds.map((kind) => [kind, kind]));
    const body = make("textarea", { "aria-label": "Event as JSON", spellcheck: false });
    const verdict = make("p", { role: "status" }), send = make("button", { type: "submit", textContent: "Send" });
    let timer = 0, anyway = false;
    const judge = async (kind) => {
      const { problem, possible, sent } = await request(kind, { text: body.value, anyway }, { timeout_ms: 10_000 }).catch((e) => ({ problem: e.message }));
      verdict.textContent = sent ? "Sent." : problem || "A service would accept this now.";
      verdict.className = problem ? "rtnb-error" : "rtnb-faint";
      anyway = Boolean(problem && possible);
      send.textContent = anyway ? "Send all the same" : "Send";
      send.disabled = Boolean(problem) && !possible;
    };
    body.oninput = () => { clearTimeout(timer); timer = setTimeout(() => judge("check"), 250); };
    pick.value = "response.create";
    pick.onchange = () => { body.value = templates[pick.value]; judge("check"); };
    const form = make("form", {}, pick, body, verdict, send);
    form.onsubmit = (event) => { event.preventDefault(); judge("send"); };
    side.replaceChildren(title("Send an event", button("Close", "Back to the chosen event", () => show(table.chosen))), form);
    pick.onchange();
    body.focus();
  }

  return { el: side, show, compose: composed, close: () => sound?.pause() };
}

export default { initialize: () => ({ createPane }) };
