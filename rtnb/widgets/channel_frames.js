/** Binary frames of the channel between page and kernel; _frames.py describes them. */

const MAX_FRAME_BYTES = 8 * 2 ** 20;
const padded = (/** @type {number} */ size) => (size + 7) & ~7;

/** @typedef {{ c: string, k: string, h: any, b: number[], r?: number, buffers: DataView[] }} Frame */

/**
 * Return the bytes of a frame.
 * @param {{ c: string, k: string, h: any, r?: number }} head
 * @param {(ArrayBuffer | ArrayBufferView)[]} [buffers]
 */
export function pack(head, buffers = []) {
  const parts = buffers.map((b) => (ArrayBuffer.isView(b) ? new Uint8Array(b.buffer, b.byteOffset, b.byteLength) : new Uint8Array(b)));
  const json = new TextEncoder().encode(JSON.stringify({ ...head, b: parts.map((part) => part.byteLength) }));
  const start = padded(4 + json.byteLength);
  const frame = new Uint8Array(start + parts.reduce((sum, part) => sum + padded(part.byteLength), 0));
  if (frame.byteLength > MAX_FRAME_BYTES) {
    throw new RangeError(`The frame has ${frame.byteLength} bytes; allowed are ${MAX_FRAME_BYTES}: send it in pieces.`);
  }
  new DataView(frame.buffer).setUint32(0, start - 4, true);
  frame.fill(32, 4, start);
  frame.set(json, 4);
  let at = start;
  for (const part of parts) {
    frame.set(part, at);
    at += padded(part.byteLength);
  }
  return frame;
}

/**
 * Return a frame's header, with its buffers as DataViews that a typed array can be laid over.
 * @param {ArrayBuffer | ArrayBufferView} data
 * @returns {Frame}
 */
export function unpack(data) {
  let bytes = ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data);
  if (bytes.byteOffset % 8) bytes = bytes.slice();
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  let at = 4 + length;
  head.buffers = head.b.map((/** @type {number} */ size) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset + at, size);
    at += padded(size);
    return view;
  });
  return head;
}
