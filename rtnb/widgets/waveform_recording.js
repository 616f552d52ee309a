// The pure part of waveform.js: the recording that its views show.
import { int16 } from "./shared.js";

/**
 * @typedef {{start_ms: number, stop_ms: ?number, status: string, heard_ms: ?number, audio_ms: number}} Mark
 * @typedef {{g: CanvasRenderingContext2D, width: number, color: (name: string) => string, x: (ms: number) => number}} Paper
 */

/** Lowest and highest sample of each bin, growing. Two hours are 1.8 million bins, which are read in a few ms. */
export class Envelope {
  pairs = new Int16Array(2048);
  length = 0;
  peak = 0;

  write(/** @type {number} */ index, /** @type {Int16Array} */ bins) {
    const before = this.pairs;
    this.length = Math.max(this.length, index + bins.length / 2);
    if (2 * this.length > before.length) {
      this.pairs = new Int16Array(Math.max(2 * this.length, 2 * before.length)); // doubling: a constant cost per bin
      this.pairs.set(before);
    }
    this.pairs.set(bins, 2 * index);
    for (const value of bins) this.peak = Math.max(this.peak, Math.abs(value));
  }

  /**
   * Call `take` with each column and its lowest and highest sample.
   * @param {number} start first bin of the first column; may be a fraction, and negative
   * @param {number} width bins per column
   * @param {number} count
   * @param {(column: number, low: number, high: number) => void} take
   */
  columns(start, width, count, take) {
    for (let column = 0; column < count; column++) {
      const from = Math.floor(start + column * width);
      const to = Math.max(from + 1, Math.floor(start + (column + 1) * width));
      let [low, high] = [this.pairs[2 * from] ?? 0, this.pairs[2 * from + 1] ?? 0];
      for (let i = from + 1; i < Math.min(to, this.length); i++) {
        if (this.pairs[2 * i] < low) low = this.pairs[2 * i];
        if (this.pairs[2 * i + 1] > high) high = this.pairs[2 * i + 1];
      }
      take(column, low, high);
    }
  }
}

const MAX_MARKS = 9000; // the kernel keeps 3,000

/** Everything that the kernel sent. */
export class Recording {
  lanes = { you: new Envelope(), model: new Envelope() };
  /** @type {Map<string, Mark>} */
  marks = new Map();
  now_ms = 0;
  bin_ms = 2;
  /** @type {?[number, number]} */
  cursor = null;
  cursor_at = 0;

  /** @type {import("./types").OnMessage} */
  take(kind, header, buffers) {
    if (kind === "reset") Object.assign(this, new Recording(), header);
    if (kind === "bins") this.lanes[/** @type {"you" | "model"} */ (header.lane)].write(header.index, int16(buffers[0]));
    if (kind !== "marks") return;
    for (const [key, mark] of Object.entries(header.marks)) this.marks.set(key, mark);
    for (const key of this.marks.keys()) if (this.marks.size > MAX_MARKS) this.marks.delete(key); else break;
    const now_ms = Math.max(this.now_ms, header.now_ms, this.cursor_ms ?? 0); // audio plays on after the newest event
    Object.assign(this, { now_ms, cursor: header.cursor, cursor_at: performance.now() });
  }

  get end_ms() { return Math.max(this.now_ms, this.lanes.you.length * this.bin_ms, this.lanes.model.length * this.bin_ms); }

  /** Position of the playback; it moves on between two reports. */
  get cursor_ms() { return this.cursor && Math.min(this.cursor[0] + performance.now() - this.cursor_at, this.cursor[1]); }
}

/** Describe a moment. */
export function moment(/** @type {Recording} */ { marks, now_ms }, /** @type {number} */ ms) {
  const words = [];
  for (const [key, { start_ms, stop_ms, status, heard_ms, audio_ms }] of marks) {
    const stop = key[0] === "i" ? start_ms + audio_ms : (stop_ms ?? now_ms + 1);
    if (ms < start_ms || ms >= stop) continue;
    if (key[0] === "s") words.push("you speak");
    if (key[0] === "r") words.push(`response ${status.replace("_", " ")}`);
    if (key[0] === "i") words.push(heard_ms !== null && ms >= start_ms + heard_ms ? "not heard" : "the model speaks");
  }
  return words.join(" · ");
}

/**
 * Draw turns, responses below them, and a veil over audio of the model that was cut before it was played.
 * @param {Paper} paper
 * @param {Recording} recording
 * @param {{lane: number, room: number, bars: number}} place top and height of the model's lane, top of the bars, in px
 */
export function paintMarks({ g, width, color, x }, { marks, now_ms }, { lane, room, bars }) {
  const paint = (/** @type {string} */ name, /** @type {number} */ from_ms, /** @type {number} */ to_ms, top = bars, height = 7) => {
    const [from, to] = [x(from_ms), x(to_ms)];
    if (to < 0 || from > width) return; // as most marks of a long session
    Object.assign(g, { fillStyle: color(name) }).fillRect(from, top, Math.max(2, to - from + 1), height);
  };
  let next_ms = Infinity; // start of the item after it: what was cut makes room for that
  for (const [key, { start_ms, stop_ms, status, heard_ms, audio_ms }] of [...marks].reverse()) {
    const cut = status !== "completed" && status !== "in_progress";
    if (key[0] === "s") paint("you", start_ms, stop_ms ?? now_ms);
    if (key[0] === "r") paint(cut ? "warn" : "model", start_ms, stop_ms ?? now_ms, bars + 11);
    if (key[0] !== "i") continue;
    const until_ms = Math.min(start_ms + audio_ms, next_ms);
    if (heard_ms !== null && start_ms + heard_ms < until_ms) paint("veil", start_ms + heard_ms, until_ms, lane, room);
    next_ms = start_ms;
  }
}
