// The pure part of waveform.js: the recording that its views show.

/**
 * @typedef {{start_ms: number, stop_ms: ?number, status: string, heard_ms: ?number, audio_ms: number}} Mark
 * @typedef {{g: CanvasRenderingContext2D, width: number, color: (name: string) => string, x: (ms: number) => number}} Paper
 */

/** Min/max bins in ever coarser levels: writing costs what is written, reading what is seen. */
export class Pyramid {
  levels = [new Int16Array(2048)]; // an entry of level k covers 4 ** k bins: two numbers, lowest and highest
  length = 0;
  peak = 0;

  write(/** @type {number} */ index, /** @type {Int16Array} */ bins) {
    let [from, to] = [index, index + bins.length / 2];
    this.length = Math.max(this.length, to);
    this.#level(0, to).set(bins, 2 * from);
    for (const value of bins) this.peak = Math.max(this.peak, Math.abs(value));
    for (let k = 1; 4 ** k < 4 * this.length; k++) {
      [from, to] = [from >> 2, ((to - 1) >> 2) + 1];
      const [below, level] = [this.#level(k - 1, 4 * to), this.#level(k, to)];
      for (let i = from; i < to; i++) [level[2 * i], level[2 * i + 1]] = extremes(below, 4 * i, 4 * i + 4);
    }
  }

  /** Level `k`, with room for so many entries; it doubles, so that a bin costs the same however many there are. */
  #level(/** @type {number} */ k, /** @type {number} */ entries) {
    const level = (this.levels[k] ??= new Int16Array(512));
    if (2 * entries <= level.length) return level;
    this.levels[k] = new Int16Array(Math.max(2 * entries, 2 * level.length));
    this.levels[k].set(level);
    return this.levels[k];
  }

  /**
   * Min/max pairs of columns.
   * @param {number} start first bin of the first column; may be a fraction, and negative
   * @param {number} width bins per column
   * @param {number} count
   */
  columns(start, width, count) {
    const k = Math.min(this.levels.length - 1, Math.max(0, Math.floor(Math.log(width) / Math.log(4))));
    const [level, size] = [this.levels[k], 4 ** k];
    const columns = new Int16Array(2 * count);
    for (let i = 0; i < count; i++) {
      const from = Math.max(0, Math.floor((start + i * width) / size));
      const to = Math.min(level.length / 2, Math.max(from + 1, Math.floor((start + (i + 1) * width) / size)));
      if (from < to && start + i * width >= 0) [columns[2 * i], columns[2 * i + 1]] = extremes(level, from, to);
    }
    return columns;
  }
}

function extremes(/** @type {Int16Array} */ pairs, /** @type {number} */ from, /** @type {number} */ to) {
  let [low, high] = [pairs[2 * from], pairs[2 * from + 1]];
  for (let i = from + 1; i < to; i++) {
    if (pairs[2 * i] < low) low = pairs[2 * i];
    if (pairs[2 * i + 1] > high) high = pairs[2 * i + 1];
  }
  return [low, high];
}

const MAX_MARKS = 9000; // the kernel keeps 3,000

/** Everything that the kernel sent; all views of a page show the same. */
export class Recording {
  lanes = { you: new Pyramid(), model: new Pyramid() };
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
    const excess = Math.max(0, this.marks.size - MAX_MARKS);
    if (excess) [...this.marks.keys()].slice(0, excess).forEach((key) => this.marks.delete(key));
    const now_ms = Math.max(this.now_ms, header.now_ms, this.cursor_ms ?? 0); // audio plays on after the newest event
    Object.assign(this, { now_ms, cursor: header.cursor, cursor_at: performance.now() });
  }

  get end_ms() {
    return Math.max(this.now_ms, this.lanes.you.length * this.bin_ms, this.lanes.model.length * this.bin_ms);
  }

  /** Position of the playback; it moves on between two reports. */
  get cursor_ms() {
    return this.cursor && Math.min(this.cursor[0] + performance.now() - this.cursor_at, this.cursor[1]);
  }
}

export const int16 = (/** @type {DataView} */ data) => new Int16Array(data.buffer, data.byteOffset, data.byteLength / 2);

/**
 * Zoom by `factor` around a moment that stays in its place.
 * @param {{start_ms: number, span_ms: number}} view
 */
export function zoomed({ start_ms, span_ms }, /** @type {number} */ at_ms, /** @type {number} */ factor, longest_ms = 60000) {
  const span = Math.min(Math.max(longest_ms, 500), Math.max(500, span_ms * factor));
  return { start_ms: Math.max(0, at_ms - ((at_ms - start_ms) * span) / span_ms), span_ms: span };
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

/** Fade audio of the model that was cut before it was played. */
export function paintUnheard(
  /** @type {Paper} */ { g, color, x },
  /** @type {Map<string, Mark>} */ marks,
  /** @type {number} */ top,
  /** @type {number} */ height,
) {
  Object.assign(g, { fillStyle: color("back"), globalAlpha: 0.65 });
  const items = [...marks].filter(([key]) => key[0] === "i").map(([, mark]) => mark);
  items.forEach(({ start_ms, heard_ms, audio_ms }, i) => {
    if (heard_ms === null) return;
    const [from, to] = [x(start_ms + heard_ms), x(Math.min(start_ms + audio_ms, items[i + 1]?.start_ms ?? Infinity))];
    if (to > from) g.fillRect(from, top, to - from + 1, height);
  });
  g.globalAlpha = 1;
}

/** Draw turns, and responses below them. */
export function paintBars(/** @type {Paper} */ { g, width, color, x }, /** @type {Recording} */ recording, /** @type {number} */ top) {
  for (const [key, { start_ms, stop_ms, status }] of recording.marks) {
    const [from, to] = [x(start_ms), x(stop_ms ?? recording.now_ms)];
    if (key[0] === "i" || to < 0 || from > width) continue;
    const whole = status === "completed" || status === "in_progress";
    g.fillStyle = color(key[0] === "s" ? "you" : whole ? "model" : "warn");
    g.fillRect(from, key[0] === "s" ? top : top + 11, Math.max(2, to - from), 7);
  }
}
