/** What travels on the line, without the line: the same as _frames.py. Stands before _line.js, in one module with it. */

const KEPT_FRAMES = 1024; // of each channel, for sending again
const KEPT_BYTES = 8 * 2 ** 20;
const MAX_FRAME_BYTES = 8 * 2 ** 20;
export const stamp = () => performance.timeOrigin + performance.now(); // never jumps
const pad = (size) => (size + 7) & ~7;

/** A frame's bytes. @param {object} head {c, n, s, k, h, …} @param {(ArrayBuffer|ArrayBufferView)[]} buffers */
export function pack(head, buffers = []) {
  const parts = buffers.map((b) => (ArrayBuffer.isView(b) ? new Uint8Array(b.buffer, b.byteOffset, b.byteLength) : new Uint8Array(b)));
  const words = new TextEncoder().encode(JSON.stringify({ ...head, b: parts.map((p) => p.byteLength) }));
  const start = pad(4 + words.byteLength);
  const frame = new Uint8Array(start + parts.reduce((sum, p) => sum + pad(p.byteLength), 0));
  if (frame.byteLength > MAX_FRAME_BYTES) throw new RangeError(`a frame of ${frame.byteLength} bytes; allowed are ${MAX_FRAME_BYTES}`);
  new DataView(frame.buffer).setUint32(0, start - 4, true);
  frame.fill(32, 4, start);
  frame.set(words, 4);
  let at = start;
  for (const part of parts) {
    frame.set(part, at);
    at += pad(part.byteLength);
  }
  return frame;
}

/** Read a frame: its header, with the buffers as DataViews that a typed array can be laid over. */
export function unpack(data) {
  let bytes = ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data);
  if (bytes.byteOffset % 8) bytes = bytes.slice();
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  let at = 4 + length;
  head.buffers = head.b.map((size) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset + at, size);
    at += pad(size);
    return view;
  });
  return head;
}

/** The messages of a frame: one, or those of a batch. */
export function messages(head) {
  if (!head.m) return [[head.h, head.buffers]];
  let at = 0;
  return head.h.map((header, i) => [header, head.buffers.slice(at, (at += head.m[i]))]);
}

/** Numbered frames of one channel, kept until they have arrived or too much is kept. */
export class Outbox {
  next = 1;
  frames = new Map();
  bytes = 0;
  get first() {
    return this.frames.keys().next().value ?? this.next;
  }
  add(frame) {
    this.frames.set(this.next++, frame);
    this.bytes += frame.byteLength;
    while (this.frames.size > KEPT_FRAMES || this.bytes > KEPT_BYTES) this.forget(this.first);
  }
  forget(number) {
    for (let n = this.first; this.frames.size && n <= number; n = this.first) {
      this.bytes -= this.frames.get(n).byteLength;
      this.frames.delete(n);
    }
  }
}

/** Puts the frames of one channel back into order, once each; `expected` is null until the kernel has said where it stands. */
export class Inbox {
  expected = null;
  waiting = new Map();
  known = 0; // the highest number that was seen or asked for
  constructor(counts) {
    this.counts = counts;
  }
  take(head) {
    if (this.expected === null || head.n < this.expected || this.waiting.has(head.n)) return [];
    if (head.n <= this.known) this.counts.resent += 1;
    this.known = Math.max(this.known, head.n);
    this.waiting.set(head.n, head);
    return this.waiting.size > 512 ? this.skip(Math.min(...this.waiting.keys()) - 1) : this.ready();
  }
  skip(number) {
    if (this.expected === null || number < this.expected) return [];
    const there = [...this.waiting.keys()].filter((n) => n <= number).sort((a, b) => a - b);
    this.counts.lost += number + 1 - this.expected - there.length;
    const ready = there.map((n) => this.waiting.get(n));
    there.forEach((n) => this.waiting.delete(n));
    this.expected = number + 1;
    return [...ready, ...this.ready()];
  }
  /** The first number to ask for again, given that the kernel has sent up to `last`; null if all is here. */
  missing(last = 0) {
    if (this.expected === null) return null;
    const end = this.waiting.size ? Math.min(...this.waiting.keys()) - 1 : last;
    if (end < this.expected) return null;
    this.known = Math.max(this.known, end);
    return this.expected;
  }
  ready() {
    const ready = [];
    for (; this.waiting.has(this.expected); this.expected++) {
      ready.push(this.waiting.get(this.expected));
      this.waiting.delete(this.expected);
    }
    return ready;
  }
}

/** How much longer than the quickest frame one took; the two clocks need not agree. */
export class Delay {
  quickest = null;
  late(sent, now = stamp()) {
    const took = now - sent;
    const [least, at] = this.quickest ?? [took, now];
    this.quickest = [Math.min(took, least + (now - at) / 1000), now]; // forgets 1 ms per second: clocks drift
    return took - this.quickest[0];
  }
}
