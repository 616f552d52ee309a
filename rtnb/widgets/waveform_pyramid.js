// The pure part of waveform.js; the widget's module is both, one after the other.

/** Min/max bins in ever coarser levels: writing costs what is written, reading what is seen. */
export class Pyramid {
  constructor() {
    this.levels = [new Int16Array(2048)]; // one entry of level k covers 4 ** k bins
    this.length = 0;
    this.peak = 0;
  }

  write(index, bins) {
    let [from, to] = [index, index + bins.length / 2];
    this.length = Math.max(this.length, to);
    this.room(0, to).set(bins, 2 * from);
    for (const value of bins) this.peak = Math.max(this.peak, Math.abs(value));
    for (let k = 1; 4 ** k < 4 * this.length; k++) {
      [from, to] = [from >> 2, ((to - 1) >> 2) + 1];
      const [below, level] = [this.room(k - 1, 4 * to), this.room(k, to)];
      for (let i = from; i < to; i++) [level[2 * i], level[2 * i + 1]] = extremes(below, 4 * i, 4 * i + 4);
    }
  }

  room(k, entries) {
    const level = this.levels[k] ?? new Int16Array(512);
    if (2 * entries > level.length) {
      this.levels[k] = new Int16Array(Math.max(2 * entries, 2 * level.length));
      this.levels[k].set(level);
    } else this.levels[k] = level;
    return this.levels[k];
  }

  /** `count` columns of `width` bins each, from bin `start` on (both may be fractions): min/max pairs. */
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

function extremes(pairs, from, to) {
  let [low, high] = [pairs[2 * from], pairs[2 * from + 1]];
  for (let i = from + 1; i < to; i++) {
    if (pairs[2 * i] < low) low = pairs[2 * i];
    if (pairs[2 * i + 1] > high) high = pairs[2 * i + 1];
  }
  return [low, high];
}

/** Distance of the lines on the axis: 1, 2 or 5 times a power of ten (or minutes), at least `least_px` apart. */
export function tick_ms(ms_per_px, least_px = 70) {
  const steps = [10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 3e4, 6e4, 12e4, 3e5, 6e5, 12e5, 36e5];
  return steps.find((step) => step >= ms_per_px * least_px) ?? steps.at(-1);
}

/** A moment in words: 7.25 s, 1:07.3. */
export function clock(ms, digits = 2) {
  const s = ms / 1000;
  if (s < 60) return `${s.toFixed(digits)} s`;
  const rest = (s % 60).toFixed(Math.min(digits, 1));
  return `${Math.floor(s / 60)}:${rest.padStart(digits ? 4 : 2, "0")}`;
}

/** Zoom by `factor` with the moment under the pointer staying there. */
export function zoomed({ start_ms, span_ms }, at_ms, factor, { least_ms = 500, most_ms = 60000 } = {}) {
  const span = Math.min(Math.max(most_ms, least_ms), Math.max(least_ms, span_ms * factor));
  return { start_ms: Math.max(0, at_ms - ((at_ms - start_ms) * span) / span_ms), span_ms: span };
}

/** What happens at a moment, in words. */
export function moment(marks, ms) {
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
