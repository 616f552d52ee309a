/**
 * Audio thread of a capture: all channels mixed, in frames of 20 ms at the device's rate. microphone_capture.js loads it.
 *
 * Out: {pcm: Int16Array, index (0, 1, …), t (Date.now() at its end)}. In: anything, to end.
 */
registerProcessor("rtnb-microphone", class extends AudioWorkletProcessor {
  pcm = new Int16Array(Math.round(sampleRate / 50));
  n = 0;
  index = 0;
  ended = false;

  constructor() {
    super();
    this.port.onmessage = () => (this.ended = true);
  }

  add(/** @type {number} */ value) {
    this.pcm[this.n++] = Math.max(-32768, Math.min(32767, Math.round(value * 32768)));
    if (this.n < this.pcm.length) return;
    const { pcm, index } = this;
    this.port.postMessage({ pcm, index, t: Date.now() }, [pcm.buffer]);
    this.pcm = new Int16Array(this.n);
    this.n = 0;
    this.index += 1;
  }

  process(/** @type {Float32Array[][]} */ [channels]) {
    for (let i = 0; i < (channels[0]?.length ?? 0); i++) {
      this.add(channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
    }
    return !this.ended;
  }
});
