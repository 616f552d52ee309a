// The pure part of waveform.js.

/** @typedef {{start_ms: number, stop_ms: ?number, status: string, heard_ms: ?number, audio_ms: number}} Mark */

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

/**
 * Zoom by `factor` around a moment that stays in its place.
 * @param {{start_ms: number, span_ms: number}} view
 */
export function zoomed({ start_ms, span_ms }, /** @type {number} */ at_ms, /** @type {number} */ factor, longest_ms = 60000) {
  const span = Math.min(Math.max(longest_ms, 500), Math.max(500, span_ms * factor));
  return { start_ms: Math.max(0, at_ms - ((at_ms - start_ms) * span) / span_ms), span_ms: span };
}

/** A moment in words. */
export function moment(/** @type {Map<string, Mark>} */ marks, /** @type {number} */ ms) {
  const words = [];
  for (const [key, { start_ms, stop_ms, status, heard_ms, audio_ms }] of marks) {
    const stop = key[0] === "i" ? start_ms + audio_ms : (stop_ms ?? Infinity);
    if (ms < start_ms || ms >= stop) continue;
    if (key[0] === "s") words.push("you speak");
    if (key[0] === "r") words.push(`response ${status.replace("_", " ")}`);
    if (key[0] === "i") words.push(heard_ms !== null && ms >= start_ms + heard_ms ? "not heard" : "the model speaks");
  }
  return words.join(" · ");
}
