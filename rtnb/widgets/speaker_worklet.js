/**
 * Runs in the audio thread: `speaker.js` loads it as an AudioWorklet. Its text travels as the trait `worklet`.
 *
 * In: {kind: "audio", item, samples, end}, {kind: "target", target}, {kind: "flush", id}. Out: {flushed: id or null, items:
 * {id: samples played}, lead, playing, gaps, target}.
 */

/** What waits to be played; all numbers are samples. */
class PlayBuffer {
  constructor(target) {
    this.target = target; // start to play when so much waits
    this.queue = [];
    this.lead = 0;
    this.playing = false;
    this.ended = true; // nothing more is announced: play what there is
    this.gaps = 0;
    this.played = {};
    this.changed = {};
    this.tail = null;
  }

  push(item, samples, ended) {
    if (samples.length) this.queue.push({ item, samples, at: 0 });
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
    this.queue = [];
    this.lead = 0;
    this.playing = false;
    this.ended = true;
    return { ...this.played };
  }

  count(item, samples) {
    this.played[item] = (this.played[item] ?? 0) + samples;
    this.changed[item] = this.played[item];
  }

  /** Fill one quantum. */
  fill(out) {
    let n = 0;
    if (this.tail) {
      out.set(this.tail);
      n = this.tail.length;
      this.tail = null;
    }
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

  /** What changed since the last report. */
  report() {
    const { lead, playing, gaps, target } = this;
    const report = { items: this.changed, lead, playing, gaps, target };
    this.changed = {};
    return report;
  }
}

registerProcessor("rtnb-speaker", class extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.buffer = new PlayBuffer(processorOptions.target);
    this.said = "";
    this.port.onmessage = ({ data }) => {
      if (data.kind === "audio") this.buffer.push(data.item, data.samples, data.end);
      else if (data.kind === "target") this.buffer.target = data.target;
      else this.port.postMessage({ flushed: data.id, items: this.buffer.flush(), ...this.state() });
    };
  }
  state() {
    const { playing, gaps, target } = this.buffer;
    this.said = [playing, gaps, target].join();
    return this.buffer.report();
  }
  process(_, outputs) {
    this.buffer.fill(outputs[0][0]);
    const { playing, gaps, target } = this.buffer;
    if ([playing, gaps, target].join() !== this.said || (playing && currentFrame % 1024 === 0)) {
      this.port.postMessage({ flushed: null, ...this.state() });
    }
    return true;
  }
});
