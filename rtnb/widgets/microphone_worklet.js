/**
 * Audio thread of a capture: all channels mixed, in frames of 20 ms at the device's rate. microphone_capture.js loads it.
 *
 * Out: {pcm: Int16Array, index (0, 1, …), t (Date.now() at its end), peak, power, clipped (samples)}. In: anything, to end.
 */
registerProcessor("rtnb-microphone", class extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(sampleRate / 50);
    this.index = 0;
    this.ended = false;
    this.pcm = new Int16Array(this.size);
    this.peak = this.power = this.clipped = this.n = 0;
    this.port.onmessage = () => (this.ended = true);
  }

  add(/** @type {number} */ value) {
    const size = Math.abs(value);
    if (size > this.peak) this.peak = size;
    if (size > 0.999) this.clipped += 1;
    this.power += value * value;
    this.pcm[this.n++] = Math.max(-32768, Math.min(32767, Math.round(value * 32768)));
    if (this.n < this.size) return;
    const { pcm, index, peak, power, clipped } = this;
    this.port.postMessage({ pcm, index, t: Date.now(), peak, power: power / this.size, clipped }, [pcm.buffer]);
    this.pcm = new Int16Array(this.size);
    this.peak = this.power = this.clipped = this.n = 0;
    this.index += 1;
  }

  process(/** @type {Float32Array[][]} */ [channels]) {
    for (let i = 0; i < (channels[0]?.length ?? 0); i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      this.add(sum / channels.length);
    }
    return !this.ended;
  }
});
