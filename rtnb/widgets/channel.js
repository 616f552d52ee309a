/**
 * The page's side of the channel between page and kernel; channel.py describes connections and messages.
 * @typedef {{}} State no traits
 */
import { pack, unpack } from "./channel_frames.js";
import { openSocket, ways } from "./channel_socket.js";
import { add, put } from "./shared.js";

const SILENT_MS = 7000; // a connection without a ping for this long is lost; the kernel pings every 2 s
const TICK_MS = 100; // shortest interval of widget messages: each one makes JupyterLab repaint (measured)
const MESSAGE_BYTES = 2 ** 20; // a widget message takes no more than this, or one frame: the server refuses 10 MiB
const CLOCK_MS = 10_000; // interval of the clock's measurements
const CLAIM_MS = 10_000; // for the kernel to elect this page
const SEND_BYTES = 2 ** 20; // `send` refuses while more is unsent
const REQUEST_BYTES = 2 ** 24; // `request` does while more is
const LOST = { error: "The connection to the kernel was lost." };

const stamp = () => performance.timeOrigin + performance.now(); // never jumps

/** @typedef {import("./types").Channel} Channel */
/** @typedef {import("./types").OnMessage} OnMessage */
/** @typedef {(ArrayBuffer | ArrayBufferView)[]} Buffers */

/**
 * One page's channel: one connection at a time, shared by the streams of all widgets.
 * Events: "status", where `kind` or `isActivePage()` has changed; "left", where it was the active page and no longer is.
 * @implements {Channel}
 */
class PageChannel extends EventTarget {
  pageId = [...crypto.getRandomValues(new Uint8Array(8))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  /** @type {string[]} */
  names = []; // of the open streams, one for each view
  /** @type {"closed" | "hello" | "trying" | "open"} */
  state = "closed"; // "hello" waits for the kernel's welcome, "trying" for a socket
  connection = 0; // its number; messages of another one are ignored
  /** @type {?WebSocket} */
  socket = null;
  /** @type {{ frame: Uint8Array<ArrayBuffer>, request?: number }[]} */
  queue = []; // held back until the connection is open
  /** @type {Map<number, (reply: any) => void>} */
  requests = new Map();
  requested = 0;
  expected = 1; // number of the kernel's next widget message
  sent = 0; // bytes by widget messages of this connection
  received = 0; // of these, what the kernel had received when it sent its last message
  /** @type {Channel["kind"]} */
  kind = "none";
  active = "";
  /** @type {{ trip_ms: number, offset_ms: number }[]} */
  trips = []; // of the last minute
  offset_ms = NaN; // kernel clock minus page clock
  attempts = 0;
  began = -Infinity;
  heard = -Infinity;
  asked = -Infinity;
  flushed = -Infinity;
  /** @type {any} */
  timer = null;
  /** @type {any} */
  flushing = null;
  shown = "none false"; // what the listeners know

  constructor(/** @type {import("./types").Model} */ model, /** @type {AbortSignal} */ signal) {
    super();
    this.model = model;
    const onMessage = (/** @type {any} */ content, /** @type {DataView[]} */ buffers) => this.onMessage(content, buffers);
    model.on("msg:custom", onMessage);
    window.addEventListener("pagehide", () => this.stop(), { signal });
    window.addEventListener("pageshow", ({ persisted }) => persisted && this.names.length && this.start(), { signal });
    signal.addEventListener("abort", () => {
      this.stop();
      model.off("msg:custom", onMessage);
    });
  }

  // --- what widgets use

  isActivePage() { return this.active === this.pageId && this.kind !== "none"; }

  /** Become the active page; rejects where the kernel does not answer. */
  async claimActivePage() {
    if (!this.isActivePage()) await this.request("", "claim", {}, { timeout_ms: CLAIM_MS });
  }

  /** Now on the kernel's clock (`time.monotonic` in Python), ms; NaN until it was measured. */
  now() { return stamp() + this.offset_ms; }

  /** Open a stream until the signal ends it; the kernel then sends the widget's state. */
  openStream(/** @type {string} */ name, /** @type {OnMessage} */ onMessage, /** @type {AbortSignal} */ signal) {
    const onFrame = (/** @type {any} */ { detail }) => onMessage(detail.k, detail.h, detail.buffers);
    this.addEventListener(`stream ${name}`, onFrame, { signal });
    this.names.push(name);
    this.start();
    if (this.state === "open") this.join([name]);
    signal.addEventListener("abort", () => {
      this.names.splice(this.names.indexOf(name), 1);
      if (!this.names.includes(name)) this.post({ c: "", k: "leave", h: { name } });
      if (!this.names.length) this.stop();
    });
    return {
      send: (/** @type {string} */ kind, /** @type {object} */ header, /** @type {Buffers} */ buffers = []) => {
        if (this.unsent_bytes > SEND_BYTES) return false;
        this.post({ c: name, k: kind, h: header }, buffers);
        return true;
      },
      request: (/** @type {string} */ kind, /** @type {object} */ header, options = {}) => this.request(name, kind, header, options),
    };
  }

  /**
   * @param {string} name
   * @param {string} kind
   * @param {object} header
   * @param {{ buffers?: Buffers, timeout_ms?: number, signal?: AbortSignal }} options
   * @returns {Promise<any>}
   */
  request(name, kind, header, { buffers = [], timeout_ms = 5000, signal }) {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.unsent_bytes > REQUEST_BYTES) throw new Error("The kernel is busy: too much waits for it.");
      const id = ++this.requested;
      const settle = (/** @type {any} */ reply, reason = reply.error && new Error(reply.error)) => {
        clearTimeout(timer);
        this.requests.delete(id);
        reason ? reject(reason) : resolve(reply);
      };
      const timer = setTimeout(() => settle({ error: `No reply to "${kind}" within ${timeout_ms} ms.` }), timeout_ms);
      signal?.addEventListener("abort", () => settle({}, signal.reason));
      this.requests.set(id, settle);
      this.post({ c: name, k: kind, h: header, r: id }, buffers);
    });
  }

  // --- to the kernel

  /** Bytes that have not left this page or, by widget message, not reached the kernel. */
  get unsent_bytes() {
    const under_way = this.socket?.bufferedAmount ?? this.sent - this.received;
    return this.queue.reduce((sum, { frame }) => sum + frame.byteLength, under_way);
  }

  post(/** @type {{ c: string, k: string, h: any, r?: number }} */ head, /** @type {Buffers} */ buffers = []) {
    this.queue.push({ frame: pack(head, buffers), request: head.r });
    const wait = this.socket ? 0 : this.flushed + TICK_MS - performance.now();
    if (wait <= 0) this.flush();
    else this.flushing ??= setTimeout(() => this.flush(), wait);
  }

  flush() {
    clearTimeout(this.flushing);
    this.flushing = null;
    const { socket } = this;
    if (this.state !== "open" || (socket && socket.readyState !== WebSocket.OPEN)) return; // it waits for the next connection
    for (const { frame } of socket ? this.queue.splice(0) : []) socket?.send(frame);
    while (this.queue.length) {
      let size = 0;
      const fits = this.queue.findIndex(({ frame }) => (size += frame.byteLength) > MESSAGE_BYTES);
      this.message(this.queue.splice(0, fits < 0 ? Infinity : Math.max(1, fits)).map(({ frame }) => frame));
    }
  }

  message(/** @type {Uint8Array<ArrayBuffer>[]} */ frames) {
    const content = { rtnb: "frames", page: this.pageId, connection: this.connection, at: this.sent };
    this.flushed = performance.now();
    this.sent += frames.reduce((sum, frame) => sum + frame.byteLength, 0);
    try {
      this.model.send(content, undefined, frames.map((frame) => frame.buffer));
    } catch {
      this.kind = "none"; // the kernel was shut down
    }
  }

  /** Send a message of the channel itself before what waits. */
  postFirst(/** @type {string} */ kind, /** @type {object} */ header) {
    this.queue.unshift({ frame: pack({ c: "", k: kind, h: header }) });
    this.flush();
  }

  join(names = this.names) {
    this.postFirst("join", { names: [...new Set(names)], all: this.names });
  }

  measure() {
    this.asked = performance.now();
    this.postFirst("clock", { page_ms: stamp() });
  }

  // --- from the kernel

  onMessage(/** @type {any} */ { rtnb, page, connection, number, received_bytes }, /** @type {DataView[]} */ buffers) {
    if (rtnb !== "frames" || page !== this.pageId || connection !== this.connection || this.state === "closed") return;
    this.received = received_bytes;
    if (number === this.expected++) buffers.forEach((data) => this.receive(data));
    else this.reconnect(); // a message was lost
  }

  receive(/** @type {ArrayBuffer | DataView} */ data) {
    const frame = unpack(data);
    this.heard = performance.now();
    if (!frame.c) this.onOwn(frame);
    else this.dispatchEvent(new CustomEvent(`stream ${frame.c}`, { detail: frame })); // a listener's error stops no other
    this.changed();
  }

  /** A message of the channel itself. */
  onOwn(/** @type {import("./channel_frames.js").Frame} */ { k: kind, h: header, r: request = 0, buffers }) {
    if (kind === "reply") return this.requests.get(request)?.({ ...header, buffers });
    this.active = header.active ?? this.active;
    if (header.kernel_ms) this.onClock(header);
    if (kind === "ping") this.attempts = 0; // this connection lasts: replace it at once when it ends
    if (kind === "welcome" && this.state === "hello") this.trySockets(header);
    else if (kind === "ping" && this.state === "open" && this.heard - this.asked > CLOCK_MS) this.measure();
    else if (kind === "rejoin") {
      this.failRequests();
      this.join();
    }
  }

  /** Take a measured offset; that of the quickest round trip of the last minute has the smallest error. */
  onClock(/** @type {{ page_ms: number, kernel_ms: number }} */ { page_ms, kernel_ms }) {
    const trip_ms = stamp() - page_ms;
    this.trips = [...this.trips.slice(-5), { trip_ms, offset_ms: kernel_ms - page_ms - trip_ms / 2 }];
    this.offset_ms = this.trips.toSorted((a, b) => a.trip_ms - b.trip_ms)[0].offset_ms;
  }

  // --- connections

  start() {
    this.attempts = Math.min(this.attempts, 1);
    this.timer ??= setInterval(() => this.tick(), 1000);
    this.tick();
  }

  tick() {
    const now = performance.now();
    const isSilent = now - this.heard > SILENT_MS;
    if (isSilent) this.kind = "none";
    if (isSilent && this.state === "open") this.end();
    const isDue = now - this.began > Math.min(1000 * 2 ** this.attempts, 60_000) && this.attempts < 12;
    if (isDue && (this.state === "closed" || this.state === "hello")) this.connect();
    this.changed();
  }

  connect() {
    this.attempts += 1;
    this.connection += 1;
    this.began = performance.now();
    this.state = "hello";
    this.expected = 1;
    this.message([pack({ c: "", k: "hello", h: { origin: location.origin, page_ms: stamp() } })]);
    this.sent = this.received = 0;
  }

  async trySockets(/** @type {any} */ offer) {
    this.state = "trying";
    const { connection } = this;
    const isCurrent = () => this.connection === connection && this.state === "trying";
    const onData = (/** @type {ArrayBuffer} */ data) => this.connection === connection && this.receive(data);
    const onClose = (/** @type {WebSocket} */ socket) => socket === this.socket && this.reconnect();
    for (const [via, url] of ways(offer, window)) {
      const shown = new URLSearchParams({ token: offer.token, page: this.pageId, connection: `${connection}`, via });
      const socket = await openSocket(`${url}?${shown}`, { onData, onClose });
      if (!isCurrent()) return socket?.close(1000);
      if (socket) return this.open(via, socket);
    }
    if (isCurrent()) this.open("messages", null);
  }

  open(/** @type {"direct" | "proxy" | "messages"} */ kind, /** @type {?WebSocket} */ socket) {
    this.state = "open";
    this.kind = kind;
    this.socket = socket;
    this.join();
    this.measure();
    this.changed();
  }

  /** End the connection; what was not sent yet waits for the next one. */
  end() {
    this.state = "closed";
    this.socket?.close();
    this.socket = null;
    this.failRequests();
  }

  /** Fail the requests that were sent: no reply comes any more. */
  failRequests() {
    const unsent = new Set(this.queue.map(({ request }) => request));
    for (const [id, settle] of this.requests) if (!unsent.has(id)) settle(LOST);
  }

  reconnect() {
    this.end();
    this.tick();
  }

  stop() {
    if (this.timer === null) return;
    clearInterval(this.timer);
    this.timer = null;
    this.flush();
    if (this.socket) this.socket.close(1000);
    else if (this.state !== "closed" && this.kind !== "none") this.message([pack({ c: "", k: "bye", h: {} })]);
    this.queue = [];
    this.end();
    this.kind = "none";
    this.began = -Infinity;
    this.changed();
  }

  changed() {
    const status = `${this.kind} ${this.isActivePage()}`;
    if (status !== this.shown) this.dispatchEvent(new Event("status"));
    if (this.shown.endsWith("true") && !this.isActivePage()) this.dispatchEvent(new Event("left"));
    this.shown = status;
  }
}

const TITLES = {
  direct: "Connected directly to the kernel's background loop: a busy cell delays nothing.",
  proxy: "Connected to the kernel's background loop through the Jupyter server: a busy cell delays nothing.",
  messages: "Connected by widget messages: a busy cell delays what this page sends.",
  none: "The kernel does not answer, or no widget on this page needs it.",
};

export default () => {
  /** @type {PageChannel} */
  let channel;
  return {
    initialize: (/** @type {any} */ { model, signal }) => (channel = new PageChannel(model, signal)),
    render(/** @type {any} */ { el, signal }) {
      const badge = add(el, "span", { className: "rtnb rtnb-badge", role: "status" });
      const show = () => put(badge, { "data-kind": channel.kind, title: TITLES[channel.kind], textContent: `channel: ${channel.kind}` });
      channel.addEventListener("status", show, { signal });
      show();
    },
  };
};
