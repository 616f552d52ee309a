/**
 * Runs in the audio thread: `speaker.js` loads it as an AudioWorklet. Its text travels as the trait `worklet`.
 *
 * In: {kind: "audio", item, samples, end}, {kind: "target", target}, {kind: "flush", id}. Out: {flushed: id or null, items:
 * {id: samples played}, lead, playing, gaps}.
 */

/** Audio that waits to be played; all numbers are samples. */
class PlayBuffer {
  /** @type {{item: string, samples: Int16Array, at: number}[]} */
  queue = [];
  lead = 0;
  playing = false;
  ended = true; // nothing more is announced: play what there is
  gaps = 0;
  /** @type {Record<string, number>} */
  played = {};
  /** @type {Record<string, number>} */
  changed = {};
  /** @type {?Float32Array} */
  tail = null;

  /** @param {number} target playing begins when so much waits */
  constructor(target) {
    this.target = target;
  }

  push(/** @type {string} */ item, /** @type {Int16Array} */ samples, /** @type {boolean} */ ended) {
    if (samples.length) this.queue.push({ item, samples, at: 0 });
    const items = Object.keys(this.played);
    if (items.length > 100) delete this.played[items[0]]; // the oldest was played long ago
    this.lead += samples.length;
    this.ended = ended;
  }

  /** Throw away what waits; the next quantum fades out (no click) and counts as played. */
  flush() {
    const head = this.queue[0];
    if (this.playing && head) {
      const n = Math.min(128, head.samples.length - head.at);
      this.tail = Float32Array.from({ length: n }, (_, i) => (head.samples[head.at + i] / 32768) * (1 - (i + 1) / n));
      this.count(head.item, n);
    }
    Object.assign(this, { queue: [], lead: 0, playing: false, ended: true });
  }

  count(/** @type {string} */ item, /** @type {number} */ samples) {
    this.played[item] = (this.played[item] ?? 0) + samples;
    this.changed[item] = this.played[item];
  }

  /** Fill one quantum. */
  fill(/** @type {Float32Array} */ out) {
    let n = this.tail?.length ?? 0;
    if (this.tail) out.set(this.tail);
    this.tail = null;
    if (!this.playing && this.lead > 0 && (this.ended || this.lead >= this.target)) this.playing = true;
    while (this.playing && n < out.length && this.queue.length) {
      const head = this.queue[0];
      const k = Math.min(out.length - n, head.samples.length - head.at);
      for (let i = 0; i < k; i++) out[n + i] = head.samples[head.at + i] / 32768; // exact
      this.count(head.item, k);
      head.at += k;
      this.lead -= k;
      n += k;
      if (head.at === head.samples.length) this.queue.shift();
    }
    if (this.playing && !this.queue.length && (n < out.length || this.ended)) {
      this.playing = false;
      if (!this.ended) this.gaps += 1;
    }
    out.fill(0, n);
  }
}

registerProcessor("rtnb-speaker", class extends AudioWorkletProcessor {
  reported = "";

  constructor(/** @type {{processorOptions: {target: number}}} */ { processorOptions }) {
    super();
    this.buffer = new PlayBuffer(processorOptions.target);
    this.port.onmessage = ({ data }) => {
      if (data.kind === "audio") this.buffer.push(data.item, data.samples, data.end);
      else if (data.kind === "target") this.buffer.target = data.target;
      else {
        this.buffer.flush();
        this.report(data.id);
      }
    };
  }

  /** @param {?number} flushed the id of the flush that it answers */
  report(flushed) {
    const { changed: items, lead, playing, gaps } = this.buffer;
    this.port.postMessage({ flushed, items, lead, playing, gaps });
    this.buffer.changed = {};
    this.reported = [playing, gaps].join();
  }

  process(/** @type {Float32Array[][]} */ _, /** @type {Float32Array[][]} */ [[out]]) {
    this.buffer.fill(out);
    const { playing, gaps } = this.buffer;
    if ([playing, gaps].join() !== this.reported || (playing && currentFrame % 1024 === 0)) this.report(null);
    return true;
  }
});
