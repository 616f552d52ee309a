/**
 * Runs in the audio thread: `speaker.js` loads it as an AudioWorklet. Its text travels as the trait `worklet`.
 *
 * In: {item, samples, ended, target} adds audio, {} throws away what waits. Out: {flushed: it answers that, items: {id: samples
 * played}, lead, playing, gaps}. All numbers are samples.
 */

registerProcessor("rtnb-speaker", class extends AudioWorkletProcessor {
  /** @type {{item: string, samples: Int16Array, at: number}[]} */
  queue = [];
  lead = 0;
  target = 0; // playing begins when so much waits
  playing = false;
  ended = true; // nothing more is announced: play what there is
  gaps = 0;
  /** @type {Record<string, number>} */
  played = {}; // of the newest items

  constructor() {
    super();
    this.port.onmessage = ({ data }) => (data.samples ? this.push(data) : this.flush());
  }

  push(/** @type {{item: string, samples: Int16Array, ended: boolean, target: number}} */ { item, samples, ended, target }) {
    if (samples.length) this.queue.push({ item, samples, at: 0 });
    this.lead += samples.length;
    Object.assign(this, { ended, target });
    const items = Object.keys(this.played);
    if (items.length > 8) delete this.played[items[0]]; // it was played long ago
  }

  /** Throw away what waits; the next quantum fades out (no click) and counts as played. */
  flush() {
    const head = this.playing ? this.queue[0] : null;
    const rest = head ? head.samples.subarray(head.at, head.at + 128) : new Int16Array(0);
    Object.assign(this, { queue: [], lead: 0, playing: rest.length > 0 });
    const samples = rest.map((value, i) => value * (1 - (i + 1) / rest.length));
    this.push({ item: head?.item ?? "", samples, ended: true, target: this.target });
    this.report(true);
  }

  report(flushed = false) {
    const { played: items, lead, playing, gaps } = this;
    this.port.postMessage({ flushed, items, lead, playing, gaps });
  }

  process(/** @type {Float32Array[][]} */ _, /** @type {Float32Array[][]} */ [[out]]) {
    const wasPlaying = this.playing;
    this.playing ||= this.lead > 0 && (this.ended || this.lead >= this.target);
    let n = 0; // the rest of a quantum is silence
    while (this.playing && n < out.length && this.queue.length) {
      const head = this.queue[0];
      const k = Math.min(out.length - n, head.samples.length - head.at);
      for (let i = 0; i < k; i++) out[n + i] = head.samples[head.at + i] / 32768; // exact
      this.played[head.item] = (this.played[head.item] ?? 0) + k;
      head.at += k;
      this.lead -= k;
      n += k;
      if (head.at === head.samples.length) this.queue.shift();
    }
    if (this.playing && !this.queue.length && (n < out.length || this.ended)) {
      this.playing = false;
      if (!this.ended) this.gaps += 1;
    }
    if (this.playing !== wasPlaying || (this.playing && currentFrame % 2048 === 0)) this.report();
    return true;
  }
});
