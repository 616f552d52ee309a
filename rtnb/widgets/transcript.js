/**
 * The conversation as it grows: rows to read and hear.
 *
 * @typedef {object} State
 * @property {string} channel reference to the page's channel
 * @property {string} stream_name name of its stream
 * @property {?number} selected_index the selected event
 * @property {boolean} can_transcribe whether a button can switch input transcription on
 *
 * Kernel to page: reset {}, entry {id, role, text, status, detail, note, index, start_ms, has_audio, heard_share,
 * heard_characters}. Page to kernel: play {start_ms, length_ms} → {held_from_ms} [PCM16 at 24 kHz], transcribe.
 */
import { ClipPlayer, add, button, clock, onChannel, onKey, put, save, watch } from "./shared.js";

/** @type {Record<string, string>} */
const NAMES = { user: "You", assistant: "Model", system: "System", tool: "Tool" };
export const PAGE_ENTRIES = 500; // the same number as in transcript.py
const NEAR_PX = 24;
const MOST_MS = 60_000; // of a turn that is played

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
  constructor(/** @type {Element} */ list, /** @type {() => void} */ onTranscribe) {
    this.root = add(list, "article", { tabIndex: -1 });
    this.when = add(this.root, "time");
    this.who = add(this.root, "b");
    const body = add(this.root, "div");
    this.text = add(body, "p", { dir: "auto" });
    this.heard = this.text.appendChild(document.createTextNode(""));
    this.lost = add(this.text, "s", { title: "Not heard (estimated by the share of the audio)" });
    this.state = add(body, "span", { className: "rtnb-entry-state" });
    this.on = button(body, "Transcribe me", onTranscribe, { title: "Switch input transcription on" });
    this.note = add(this.root, "span", { className: "rtnb-entry-note" });
    this.play = button(this.root, "▶", () => {}, { className: "rtnb-entry-play", tabIndex: -1, "aria-label": "Play" });
  }

  show(/** @type {any} */ entry, /** @type {boolean} */ canTranscribe) {
    const { role, status, text } = (this.entry = entry);
    put(this.root, { "data-role": role, "data-status": status });
    put(this.when, { textContent: clock(entry.start_ms) });
    put(this.who, { textContent: NAMES[role] ?? role });
    const at = entry.heard_share === null ? text.length : entry.heard_characters;
    put(this.text, { hidden: !text });
    put(this.heard, { data: text.slice(0, at) });
    put(this.lost, { textContent: text.slice(at), hidden: at >= text.length });
    put(this.state, { textContent: describe(entry) });
    put(this.on, { hidden: !canTranscribe || status !== "not transcribed" });
    put(this.note, { textContent: entry.note });
    put(this.play, { hidden: !entry.has_audio });
  }
}

/** The list of rows; it follows the newest one until the user scrolls up. */
class Rows {
  /** @type {Map<string, Row>} */
  rows = new Map();
  following = true;
  frame = 0;
  height = 0;

  /**
   * @param {HTMLElement} root
   * @param {import("./types").Model<State>} model
   * @param {AbortSignal} signal
   * @param {(entry: any) => void} onPlay
   * @param {() => void} onTranscribe
   */
  constructor(root, model, signal, onPlay, onTranscribe) {
    this.model = model;
    this.onPlay = onPlay;
    this.onTranscribe = onTranscribe;
    this.list = add(root, "div", { role: "log", tabIndex: 0, "aria-label": "Turns" });
    add(this.list, "p", { className: "rtnb-faint rtnb-empty", textContent: "Type a message, or start the microphone." });
    const older = `Showing the newest ${PAGE_ENTRIES} turns.`;
    this.older = add(this.list, "p", { className: "rtnb-faint", hidden: true, textContent: older });
    this.list.addEventListener("scroll", () => {
      const { scrollHeight, scrollTop, clientHeight } = this.list;
      // The browser scrolls a list that has grown or shrunk; only the user ends the following.
      if (scrollHeight - clientHeight === this.height) this.following = this.height - scrollTop < NEAR_PX;
    });
    this.list.addEventListener("click", (/** @type {MouseEvent} */ event) => this.onClick(/** @type {Element} */ (event.target)));
    const sizes = new ResizeObserver(() => this.settle()); // a smaller list, or one that is shown again, has lost its end
    sizes.observe(this.list);
    signal.addEventListener("abort", () => sizes.disconnect());
    onKey(this.list, (event) => this.onKey(event), signal);
  }

  reset() {
    for (const row of this.rows.values()) row.root.remove();
    this.rows.clear();
    this.following = true;
    put(this.older, { hidden: true });
  }

  show(/** @type {any} */ entry) {
    let row = this.rows.get(entry.item_id);
    const first = this.rows.values().next().value;
    if (!row && this.rows.size >= PAGE_ENTRIES && entry.index < first?.entry.index) return; // it has left the page
    if (!row) this.rows.set(entry.item_id, (row = new Row(this.list, this.onTranscribe)));
    row.show(entry, this.model.get("can_transcribe"));
    if (this.rows.size > PAGE_ENTRIES && first) {
      first.root.remove();
      this.rows.delete(first.entry.item_id);
      put(this.older, { hidden: false });
    }
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
    for (const row of this.rows.values()) put(row.root, { "aria-current": row === selected });
    selected?.root.scrollIntoView({ block: "nearest" });
  }

  select(/** @type {Row | undefined} */ row) {
    if (!row) return;
    row.root.focus({ preventScroll: true });
    save(this.model, { selected_index: row.entry.index });
  }

  onClick(/** @type {Element} */ target) {
    const row = [...this.rows.values()].find(({ root }) => root.contains(target));
    if (target === row?.play) this.onPlay(row?.entry);
    else if (target !== row?.on && getSelection()?.isCollapsed) this.select(row);
  }

  onKey(/** @type {KeyboardEvent} */ { key, target }) {
    const rows = [...this.rows.values()];
    const at = rows.indexOf(/** @type {Row} */ (this.selected));
    const to = { ArrowUp: at < 0 ? -1 : Math.max(0, at - 1), ArrowDown: Math.min(at + 1, rows.length - 1), Home: 0, End: -1 }[key];
    if (target instanceof HTMLButtonElement || !(to !== undefined || key === "Enter" || key === " ")) return false;
    if (to === undefined) this.onPlay(rows[at]?.entry);
    else this.select(rows.at(to));
    return true;
  }
}

/** @param {import("./types").ViewProps<State>} props */
function render({ model, el, channel, signal }) {
  const root = add(el, "section", { className: "rtnb rtnb-transcript", "aria-label": "Conversation" });
  const head = add(root, "header", {}, add(null, "b", { textContent: "Conversation" }));
  const status = add(head, "span", { role: "status", className: "rtnb-faint" });
  /** @type {?ClipPlayer} */
  let player = null;
  const onChange = () => rows.rows.forEach(({ entry, play }) =>
    put(play, { textContent: player?.clip && entry.item_id === player.id ? "■" : "▶" }));
  const onPlay = (/** @type {any} */ entry) => {
    if (!entry?.has_audio) return;
    player ??= new ClipPlayer(signal, onChange);
    const length_ms = Math.min(MOST_MS, entry.stop_ms - entry.start_ms);
    const request = () => stream.request("play", { start_ms: entry.start_ms, length_ms });
    player.toggle(entry.item_id, request).catch(({ message }) => put(status, { textContent: message }));
  };
  const rows = new Rows(root, model, signal, onPlay, () => stream.send("transcribe", {}));
  const stream = channel.openStream(model.get("stream_name"), (kind, header) => {
    if (kind === "reset") rows.reset();
    else rows.show(header);
  }, signal);
  watch(model, ["selected_index", "can_transcribe"], () => rows.mark(), signal);
}

export default onChannel(render);
