/**
 * Runs in the audio thread: `microphone_capture.js` loads it as an AudioWorklet. Its text travels as the trait `worklet`.
 *
 * Out, every 20 ms: {pcm: Int16Array of 480 samples at 24 kHz, index (0, 1, …), t (ms since 1970, when it was whole), peak,
 * power, clipped}. In: anything, to end.
 */

const RATE_HZ = 24000;
const FRAME = 480;
const REACH = 64; // the same filter as rtnb/audio/resampler.py: a test compares the two
const BETA = 0.1102 * (100 - 8.7);
const CUTOFF = 0.95;

function bessel0(x) {
  let [sum, term] = [1, 1];
  for (let k = 1; term > 1e-12 * sum; k++) sum += term *= (x / (2 * k)) ** 2;
  return sum;
}

/** Any rate to 24 kHz, in pieces: a windowed sinc, one row of taps per phase. */
class Resampler {
  constructor(from, emit) {
    let [a, b] = [from, RATE_HZ];
    while (b) [a, b] = [b, a % b];
    this.up = RATE_HZ / a;
    this.down = from / a;
    this.emit = emit;
    const stretch = Math.max(1, this.down / this.up);
    this.half = Math.ceil(REACH * stretch);
    this.taps = Array.from({ length: this.up }, (_, phase) => this.row(((phase * this.down) % this.up) / this.up, stretch));
    this.kept = new Float32Array(this.half - 1); // zeros before the first sample
    this.start = 1 - this.half; // where `kept` starts among the inputs
    this.next = 0; // the next output
  }

  row(phase, stretch) {
    const row = Float64Array.from({ length: 2 * this.half }, (_, i) => {
      const x = (i + 1 - this.half - phase) / stretch;
      const sinc = x ? Math.sin(Math.PI * CUTOFF * x) / (Math.PI * CUTOFF * x) : 1;
      return sinc * bessel0(BETA * Math.sqrt(Math.max(0, 1 - (x / REACH) ** 2)));
    });
    const sum = row.reduce((all, tap) => all + tap);
    return Float32Array.from(row, (tap) => tap / sum);
  }

  push(input) {
    if (this.up === this.down) return input.forEach((value) => this.emit(value));
    const all = new Float32Array(this.kept.length + input.length);
    all.set(this.kept);
    all.set(input, this.kept.length);
    const width = 2 * this.half;
    let at;
    for (; ; this.next++) {
      at = Math.floor((this.next * this.down) / this.up) + 1 - this.half - this.start;
      if (at + width > all.length) break;
      const taps = this.taps[this.next % this.up];
      let sum = 0;
      for (let i = 0; i < width; i++) sum += all[at + i] * taps[i];
      this.emit(sum);
    }
    at = Math.min(at, all.length);
    this.kept = all.slice(at);
    this.start += at;
  }
}

registerProcessor("rtnb-microphone", class extends AudioWorkletProcessor {
  constructor() {
    super();
    this.index = 0;
    this.begin();
    this.resampler = new Resampler(sampleRate, (value) => this.add(value));
    this.port.onmessage = () => (this.over = true);
  }
  begin() {
    this.pcm = new Int16Array(FRAME);
    this.peak = this.power = this.clipped = this.n = 0;
  }
  add(value) {
    const size = Math.abs(value);
    if (size > this.peak) this.peak = size;
    this.clipped += size > 0.999;
    this.power += value * value;
    this.pcm[this.n++] = Math.max(-32768, Math.min(32767, Math.round(value * 32768)));
    if (this.n < FRAME) return;
    const { pcm, index, peak, power, clipped } = this;
    this.port.postMessage({ pcm, index, t: Date.now(), peak, power: power / FRAME, clipped }, [pcm.buffer]);
    this.index += 1;
    this.begin();
  }
  process([input]) {
    if (input[0]) this.resampler.push(input[0]);
    return !this.over;
  }
});
