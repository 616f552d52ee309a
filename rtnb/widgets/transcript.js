/**
 * The conversation as it grows: rows to read, hear, copy and save.
 *
 * @typedef {object} State
 * @property {string} channel reference to the page's channel
 * @property {string} stream_name name of its stream
 * @property {?number} selected_index the selected event
 * @property {boolean} can_transcribe whether a button can switch input transcription on
 *
 * Kernel to page: reset {}, entry {id, role, text, status, detail, note, index, start_ms, has_audio, heard_share,
 * heard_characters}, clip {view} [PCM16 at 24 kHz]. Page to kernel: export {format} → {text}, play {view, id}, transcribe.
 */
import { ClipPlayer, add, clock, download, onKey, put, putAttribute, watch } from "./shared.js";

/** @type {Record<string, string>} */
const NAMES = { user: "You", assistant: "Model", system: "System", tool: "Tool" };
/** @type {Record<string, string>} */
const FILES = { txt: "text/plain", srt: "application/x-subrip", vtt: "text/vtt", json: "application/json" };
export const PAGE_ENTRIES = 500; // the same number as in transcript.py
const NEAR_PX = 24;

/** What stands below the text of an entry; empty where there is nothing to say. */
export function describe(/** @type {any} */ { status, detail, text }) {
  if (status === "in progress") return text || !detail ? "" : `(${detail} …)`;
  if (status === "interrupted") return `✂ interrupted ${detail}`.trim();
  if (status === "failed") return `Transcription failed: ${detail}`;
  if (status === "deleted") return detail ? `deleted: ${detail}` : "deleted";
  return detail || (text.trim() ? "" : "(no words)");
}

/** One entry; text of the service goes in as text, whatever it contains. */
class Row {
  constructor(/** @type {Element} */ list, /** @type {any} */ entry, /** @type {() => void} */ onTranscribe) {
    this.root = add(list, "article", { tabIndex: -1 });
    this.when = add(this.root, "time");
    this.who = add(this.root, "b");
    const body = add(this.root, "div");
    this.text = add(body, "p", { dir: "auto" });
    this.heard = this.text.appendChild(document.createTextNode(""));
    this.lost = add(this.text, "s", { title: "Not heard (estimated by the share of the audio)" });
    this.state = add(body, "span", { className: "rtnb-entry-state" });
    this.on = add(body, "button", { type: "button", textContent: "Transcribe me", title: "Switch input transcription on" });
    this.on.addEventListener("click", onTranscribe);
    this.note = add(this.root, "span", { className: "rtnb-entry-note" });
    this.play = add(this.root, "button", { type: "button", className: "rtnb-entry-play", textContent: "▶", tabIndex: -1, "aria-label": "Play" });
    this.show(entry, false);
  }

  show(/** @type {any} */ entry, /** @type {boolean} */ canTranscribe) {
    this.entry = entry;
    putAttribute(this.root, "data-role", entry.role);
    putAttribute(this.root, "data-status", entry.status);
    put(this.when, "textContent", clock(entry.start_ms));
    put(this.who, "textContent", NAMES[entry.role] ?? entry.role);
    const at = entry.heard_share === null ? entry.text.length : entry.heard_characters;
    put(this.heard, "data", entry.text.slice(0, at));
    put(this.lost, "textContent", entry.text.slice(at));
    put(this.lost, "hidden", at >= entry.text.length);
    put(this.text, "hidden", !entry.text);
    put(this.state, "textContent", describe(entry));
    put(this.on, "hidden", !canTranscribe || entry.status !== "not transcribed");
    put(this.note, "textContent", entry.note);
    put(this.play, "hidden", !entry.has_audio);
  }
}

/** The list of rows; it follows the newest one until the user scrolls up. */
class Rows {
  /**
   * @param {HTMLElement} root
   * @param {import("./types").Model<State>} model
   * @param {(entry: any) => void} onPlay
   * @param {() => void} onTranscribe
   */
  constructor(root, model, onPlay, onTranscribe) {
    this.model = model;
    this.onPlay = onPlay;
    this.onTranscribe = onTranscribe;
    this.list = add(root, "div", { role: "log", tabIndex: 0, "aria-label": "Turns" });
    this.empty = add(this.list, "p", { className: "rtnb-faint", textContent: "Type a message, or start the microphone." });
    this.older = add(this.list, "p", { className: "rtnb-faint", hidden: true });
    this.older.textContent = `Showing the newest ${PAGE_ENTRIES} turns. Save writes the newest 5,000.`;
    /** @type {Map<string, Row>} */
    this.rows = new Map();
    this.following = true;
    this.frame = this.height = 0;
    this.list.addEventListener("scroll", () => {
      const { scrollHeight, scrollTop, clientHeight } = this.list;
      // A list that has grown or shrunk scrolls by itself: only the user ends the following.
      if (scrollHeight - clientHeight === this.height) this.following = this.height - scrollTop < NEAR_PX;
    });
    this.list.addEventListener("click", (/** @type {MouseEvent} */ event) => this.onClick(/** @type {Element} */ (event.target)));
    this.sizes = new ResizeObserver(() => this.settle()); // a smaller list, or one that is shown again, has lost its end
    this.sizes.observe(this.list);
  }

  reset() {
    for (const row of this.rows.values()) row.root.remove();
    this.rows.clear();
    this.following = true;
    put(this.older, "hidden", true);
    put(this.empty, "hidden", false);
  }

  show(/** @type {any} */ entry) {
    let row = this.rows.get(entry.id);
    const first = this.rows.values().next().value;
    if (!row && this.rows.size >= PAGE_ENTRIES && entry.index < first?.entry.index) return; // it has left the page
    if (!row) this.rows.set(entry.id, (row = new Row(this.list, entry, this.onTranscribe)));
    row.show(entry, this.model.get("can_transcribe"));
    if (this.rows.size > PAGE_ENTRIES && first) {
      first.root.remove();
      this.rows.delete(first.entry.id);
      put(this.older, "hidden", false);
    }
    put(this.empty, "hidden", true);
    this.settle();
  }

  settle() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.height = this.list.scrollHeight - this.list.clientHeight;
      if (this.following) this.list.scrollTop = this.height;
    });
  }

  /** The row that began last at or before the selected event. */
  get selected() {
    const index = this.model.get("selected_index");
    return index === null ? undefined : [...this.rows.values()].findLast((row) => row.entry.index <= index);
  }

  mark() {
    const selected = this.selected;
    for (const row of this.rows.values()) putAttribute(row.root, "aria-current", row === selected);
    selected?.root.scrollIntoView({ block: "nearest" });
  }

  select(/** @type {Row | undefined} */ row) {
    if (!row) return;
    row.root.focus({ preventScroll: true });
    this.model.set("selected_index", row.entry.index);
    this.model.save_changes();
  }

  onClick(/** @type {Element} */ target) {
    const row = [...this.rows.values()].find(({ root }) => root.contains(target));
    if (target === row?.play) this.onPlay(row?.entry);
    else if (target !== row?.on && getSelection()?.isCollapsed) this.select(row);
  }

  onKey(/** @type {KeyboardEvent} */ { key, target }) {
    const rows = [...this.rows.values()];
    const at = rows.indexOf(/** @type {Row} */ (this.selected));
    if (target instanceof HTMLButtonElement) return false;
    if (key === "Enter" || key === " ") this.onPlay(rows[at]?.entry);
    else if (key === "ArrowUp") this.select(rows.at(at < 0 ? -1 : Math.max(0, at - 1)));
    else if (key === "ArrowDown") this.select(rows[Math.min(at + 1, rows.length - 1)]);
    else if (key === "Home") this.select(rows[0]);
    else if (key === "End") this.select(rows.at(-1));
    else return false;
    return true;
  }
}

let views = 0;

/** @param {import("./types").RenderProps<State>} props */
async function render({ model, el, host, signal }) {
  const { exports: channel } = await host.getWidget(model.get("channel"));
  const view = `${channel.pageId}-${views++}`;
  const root = add(el, "section", { className: "rtnb rtnb-transcript", "aria-label": "Conversation" });
  const head = add(root, "header", {}, add(null, "b", { textContent: "Conversation" }));
  const status = add(head, "span", { role: "status", className: "rtnb-faint" });
  /** @type {?ClipPlayer} */
  let player = null;
  let chosen = ""; // the entry that was played last
  const onChange = () => {
    for (const { entry, play } of rows.rows.values()) put(play, "textContent", player?.clip && entry.id === chosen ? "■" : "▶");
  };
  const play = (/** @type {any} */ entry) => {
    if (!entry?.has_audio) return;
    player ??= new ClipPlayer(onChange);
    const again = player.clip && chosen === entry.id;
    player.stop();
    if (!again) stream.send("play", { view, id: (chosen = entry.id) });
  };
  const rows = new Rows(root, model, play, () => stream.send("transcribe", {}));
  const stream = channel.openStream(model.get("stream_name"), (/** @type {string} */ kind, /** @type {any} */ header, /** @type {DataView[]} */ [pcm]) => {
    if (kind === "reset") rows.reset();
    else if (kind === "entry") rows.show(header);
    else if (kind === "clip" && header.view === view) player?.play(new Int16Array(pcm.buffer, pcm.byteOffset, pcm.byteLength / 2));
  });
  onKey(rows.list, (event) => rows.onKey(event), signal);

  const act = (/** @type {string} */ text, /** @type {() => Promise<string>} */ action) => {
    add(head, "button", { type: "button", textContent: text }).addEventListener("click", async () => {
      status.textContent = await action().catch((error) => `${text} failed: ${error.message}`);
    });
  };
  const fetched = async (/** @type {string} */ format) => (await stream.request("export", { format })).text;
  act("Copy", async () => (await navigator.clipboard.writeText(await fetched("txt")), "Copied"));
  const format = add(head, "select", { "aria-label": "File format" });
  for (const value of Object.keys(FILES)) add(format, "option", { value, textContent: value === "txt" ? "Text" : value.toUpperCase() });
  act("Save", async () => {
    const name = `transcript.${format.value}`;
    download(name, await fetched(format.value), FILES[format.value]);
    return `Saved ${name}`;
  });
  const unwatch = watch(model, ["selected_index", "can_transcribe"], () => rows.mark());
  return () => {
    unwatch();
    rows.sizes.disconnect();
    player?.close();
    stream.close();
  };
}

export default { render };
