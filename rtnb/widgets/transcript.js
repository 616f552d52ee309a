/**
 * Both sides of a conversation as it grows.
 *
 * @typedef {object} State
 * @property {string} channel reference to the page's stream
 * @property {string} stream_name name of its stream
 *
 * Kernel to page: reset {}, entry {id, role, text, status, detail, start_ms, heard_share, heard_characters}.
 * Page to kernel: export {format} → {text}.
 */

const NAMES = { user: "You", assistant: "Model", system: "System", tool: "Tool" };
const MARKS = { "in progress": "…", complete: "✓", interrupted: "✂", failed: "!", deleted: "×" };
const FILES = { txt: "text/plain", srt: "application/x-subrip", vtt: "text/vtt", json: "application/json" };

/** A moment: 0:07, 1:02:30. */
export function clock(ms) {
  const s = Math.floor(ms / 1000);
  const [h, m, rest] = [Math.floor(s / 3600), Math.floor(s / 60) % 60, String(s % 60).padStart(2, "0")];
  return h ? `${h}:${String(m).padStart(2, "0")}:${rest}` : `${m}:${rest}`;
}

/** An entry's status in words. */
export function describe({ status, detail, text }) {
  const words = detail && status === "in progress" ? [detail] : [status, detail];
  if (status === "complete" && !text.trim()) words.push("no words");
  return words.filter(Boolean).join(", ");
}

const STYLE = `
.rtnb-transcript { padding: 6px 8px; }
.rtnb-transcript .rtnb-tools { display: flex; flex-wrap: wrap; gap: 4px; align-items: center; margin-bottom: 6px; }
.rtnb-transcript .rtnb-tools [role=status] { flex: 1 1 100px; text-align: end; color: var(--rtnb-faint); }
.rtnb-transcript [role=log] { max-height: 360px; overflow-y: auto; display: flex; flex-direction: column; gap: 8px; overscroll-behavior: contain; }
.rtnb-transcript .rtnb-empty { color: var(--rtnb-faint); padding: 12px 4px; }
.rtnb-transcript article { border-inline-start: 3px solid var(--rtnb-border); padding: 0 0 0 10px; padding-inline: 10px 4px; max-width: 80ch; }
.rtnb-transcript article[data-role=user] { border-color: var(--rtnb-good); }
.rtnb-transcript article[data-role=assistant] { border-color: var(--rtnb-accent); }
.rtnb-transcript header { display: flex; flex-wrap: wrap; gap: 0 8px; align-items: baseline; font-size: var(--jp-ui-font-size0, 11px); color: var(--rtnb-faint); font-variant-numeric: tabular-nums; }
.rtnb-transcript header b { color: var(--rtnb-text); font-size: var(--jp-ui-font-size1, 13px); }
.rtnb-transcript article[data-status=interrupted] .rtnb-what { color: color-mix(in srgb, var(--rtnb-warn) 55%, var(--rtnb-text)); font-weight: 600; }
.rtnb-transcript article[data-status=failed] .rtnb-what { color: var(--rtnb-bad); }
.rtnb-transcript article p { margin: 1px 0 0; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext; }
.rtnb-transcript article[data-role=tool] p { font-family: var(--rtnb-mono); font-size: 12px; }
.rtnb-transcript article[data-status=deleted] p, .rtnb-transcript s { color: var(--rtnb-faint); text-decoration: line-through; text-decoration-thickness: 1px; }`;

const make = (parent, name, attributes = {}) => parent.appendChild(Object.assign(document.createElement(name), attributes));

/** One entry on the page; text goes in as text, whatever it says. */
export class Card {
  constructor(list, entry) {
    this.root = make(list, "article");
    const header = make(this.root, "header");
    this.who = make(header, "b");
    this.when = make(header, "time");
    this.what = make(header, "span", { className: "rtnb-what" });
    this.text = make(this.root, "p", { dir: "auto" });
    this.heard = this.text.appendChild(document.createTextNode(""));
    this.unheard = make(this.text, "s", { title: "not heard (about: by the share of the audio)" });
    this.show(entry);
  }

  show(entry) {
    Object.assign(this.root.dataset, { role: entry.role, status: entry.status });
    this.who.textContent = NAMES[entry.role] ?? entry.role;
    this.when.textContent = clock(entry.start_ms);
    this.what.textContent = `${MARKS[entry.status] ?? ""} ${describe(entry)}`;
    const at = entry.heard_share === null ? entry.text.length : entry.heard_characters;
    this.heard.data = entry.text.slice(0, at);
    this.unheard.textContent = entry.text.slice(at);
    this.unheard.hidden = at >= entry.text.length;
  }
}

/** Save a text as a file of the person who looks at the page. */
function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

async function render({ model, el, host, signal }) {
  const { exports: channel } = await host.getWidget(model.get("channel"));
  const root = make(el, "section", { className: "rtnb rtnb-transcript" });
  root.setAttribute("aria-label", "Transcript");
  make(root, "style", { textContent: STYLE });
  const tools = make(root, "div", { className: "rtnb-tools" });
  const list = make(root, "div", { tabIndex: 0 });
  list.setAttribute("role", "log");
  list.setAttribute("aria-label", "What was said");
  // JupyterLab takes arrow keys for itself, in the capture phase on the document: be earlier, so that they scroll.
  const own = (e) => e.target === list && e.key.startsWith("Arrow") && e.stopPropagation();
  window.addEventListener("keydown", own, { capture: true, signal });
  const cards = new Map();
  const nothing = make(list, "div", { className: "rtnb-empty", textContent: "Nothing was said yet." });

  const stream = channel.openStream(model.get("stream_name"), (kind, entry) => {
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 24;
    if (kind === "reset") {
      cards.forEach((card) => card.root.remove());
      cards.clear();
    } else if (kind === "entry") {
      if (cards.has(entry.id)) cards.get(entry.id).show(entry);
      else cards.set(entry.id, new Card(list, entry));
    }
    nothing.hidden = cards.size > 0;
    if (atEnd) list.scrollTop = list.scrollHeight; // who reads further up is left in peace
  });

  const act = (text, title, action) => {
    const button = make(tools, "button", { type: "button", textContent: text, title });
    button.addEventListener("click", async () => {
      try {
        status.textContent = await action();
      } catch (error) {
        status.textContent = `Not done: ${error.message}`;
      }
    });
  };
  const fetched = async (format) => (await stream.request("export", { format })).text;
  act("Copy", "Copy as text", async () => {
    await navigator.clipboard.writeText(await fetched("txt"));
    return "Copied";
  });
  for (const [format, type] of Object.entries(FILES)) {
    act(format === "txt" ? "Text" : format.toUpperCase(), `Save as transcript.${format}`, async () => {
      download(`transcript.${format}`, await fetched(format), type);
      return `Saved transcript.${format}`;
    });
  }
  const status = make(tools, "span");
  status.setAttribute("role", "status");
  return () => stream.close();
}

export default { render };
