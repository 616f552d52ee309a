/**
 * The page's end of the line to the background loop: see _line.py, _frames.py and _hub.py.
 * @typedef {{}} State no traits
 */

const GIVE_UP_MS = 7000; // the kernel pings every 2 s
const TICK_MS = 100; // widget messages leave at most this often: each one makes JupyterLab repaint (measured)
const KEPT_FRAMES = 1024;
const KEPT_BYTES = 8 * 2 ** 20;
const MAX_FRAME_BYTES = 8 * 2 ** 20;
const WINDOW_FRAMES = 256; // unacknowledged frames on widget messages: a blocked kernel must not collect more
const SOCKET_BYTES = 2 ** 20; // unsent bytes in a socket
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
  asked = 0;
  constructor(counts) {
    this.counts = counts;
  }
  take(head) {
    if (this.expected === null || head.n < this.expected || this.waiting.has(head.n)) return [];
    if (head.n <= this.asked) this.counts.resent += 1;
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
    this.asked = Math.max(this.asked, end);
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

const stamp = () => performance.timeOrigin + performance.now(); // never jumps

/** The line of one page; `env` replaces parts of the browser in tests. */
export function makeLine(model, { signal, env = globalThis } = {}) {
  const pageId = [...crypto.getRandomValues(new Uint8Array(8))].map((b) => b.toString(16).padStart(2, "0")).join("");
  const channels = new Map(); // name -> {listeners, inbox, outbox, cursor, acked}
  const counts = { late: 0, lost: 0, resent: 0 };
  let theirs = { late: 0, lost: 0, resent: 0 }; // of what this page sent, as the kernel last said
  let socket = null;
  let connecting = false;
  let drops = 0; // sockets lost in a row
  let again = null; // the timer until the next hello
  let kind = "none";
  let active = "";
  let heard = -Infinity;
  let helloAt = 0;
  let hellos = 0;
  let ponged = 0;
  let timer = null;
  let flushing = null;
  let flushed = -Infinity;
  let quickest = null;
  let nextRequest = 1;
  const requests = new Map();
  const watchers = new Set();
  const electors = new Set();

  const status = () => ({ kind, late: counts.late + theirs.late, lost: counts.lost + theirs.lost, resent: counts.resent + theirs.resent });
  const isActivePage = () => active === pageId && kind !== "none";
  let told = "";
  let wasActive = false;
  function changed() {
    const now = JSON.stringify(status());
    if (now !== told) watchers.forEach((fn) => fn(status()));
    told = now;
    if (isActivePage() !== wasActive) {
      wasActive = !wasActive;
      electors.forEach((fn) => fn(wasActive));
    }
  }

  // --- out
  const words = [];
  const place = (ch) => ({ seen: ch.inbox.expected === null ? null : ch.inbox.expected - 1, first: ch.outbox.first });
  function say(k, h = {}) {
    words.push(pack({ c: "", n: 0, s: stamp(), k, h }));
    pump();
  }
  function byMessage(frames) {
    model.send({ rtnb: "frames", page: pageId }, undefined, frames.map((f) => f.buffer));
  }
  function nextFrame() {
    if (words.length) return words.shift();
    for (const [name, ch] of channels) {
      const { outbox } = ch;
      if (ch.cursor < outbox.first) {
        ch.cursor = outbox.first;
        return pack({ c: "", n: 0, s: stamp(), k: "lost", h: { name, last: outbox.first - 1 } });
      }
      if (ch.cursor < outbox.next && (socket || ch.cursor - ch.acked <= WINDOW_FRAMES)) return outbox.frames.get(ch.cursor++);
    }
    return null;
  }
  function pump() {
    if (flushing !== null || kind === "none") return;
    const wait = socket ? 0 : Math.max(0, flushed + TICK_MS - performance.now());
    if (wait > 0) flushing = setTimeout(flush, wait);
    else flush();
  }
  function flush() {
    flushing = null;
    let frame;
    if (socket) {
      while (socket.bufferedAmount < SOCKET_BYTES && (frame = nextFrame())) socket.send(frame);
      if (socket.bufferedAmount >= SOCKET_BYTES) flushing = setTimeout(flush, 20);
      return;
    }
    const frames = [];
    while ((frame = nextFrame())) frames.push(frame);
    if (frames.length) byMessage(frames);
    flushed = performance.now();
  }
  const places = () => Object.fromEntries([...channels].map(([name, ch]) => [name, place(ch)]));
  function hello() {
    helloAt = performance.now();
    hellos += 1;
    byMessage([pack({ c: "", n: 0, s: stamp(), k: "hello", h: { origin: env.location.origin, channels: places() } })]);
  }

  // --- in
  function receive(data) {
    const head = unpack(data);
    if (head.c) take(head);
    else if (head.p === pageId) word(head);
    if (kind === "none" && head.p === pageId && head.k !== "who") kind = "messages";
    heard = performance.now();
    changed();
  }
  function take(head) {
    const ch = channels.get(head.c);
    if (!ch) return;
    const before = ch.inbox.missing();
    for (const ready of ch.inbox.take(head)) deliver(ch, ready);
    const missing = ch.inbox.missing();
    if (missing !== null && missing !== before) say("resend", { name: head.c, first: missing });
  }
  function deliver(ch, head) {
    const now = stamp();
    const took = now - head.s;
    quickest = quickest === null ? [took, now] : [Math.min(took, quickest[0] + (now - quickest[1]) / 1000), now];
    if (head.d !== undefined && took - quickest[0] > head.d) {
      counts.late += 1;
      return;
    }
    for (const [header, buffers] of messages(head)) for (const fn of ch.listeners) safely(() => fn(head.k, header, buffers));
  }
  function safely(fn) {
    try {
      fn();
    } catch (error) {
      console.error("rtnb:", error); // one widget's mistake must not stop the others
    }
  }
  function takeUp(h) {
    active = h.active;
    for (const [name, ch] of channels) {
      if (h.seen[name] !== undefined) ch.cursor = ch.acked = h.seen[name] + 1;
      else if (!ch.closed) say("join", { name, ...place(ch) });
    }
  }
  function word({ k, h, id }) {
    const ch = channels.get(h.name);
    if (k === "welcome") {
      hellos = 0;
      if (!socket) kind = "messages";
      takeUp(h);
      if (h.port && !socket && !connecting) connect(h);
    } else if (k === "resume") takeUp(h);
    else if (k === "who") hello();
    else if (k === "active") active = h.active;
    else if (k === "closed" && ch) ch.closed = true;
    else if (k === "joined" && ch) ch.inbox.expected ??= h.next;
    else if (k === "lost" && ch) ch.inbox.skip(h.last).forEach((head) => deliver(ch, head));
    else if (k === "resend" && ch) ch.cursor = Math.min(ch.cursor, h.first);
    else if (k === "reply") requests.get(id)?.(h);
    else if (k === "ping") ping(h);
    pump();
  }
  function ping(h) {
    active = h.active;
    theirs = h.counts;
    for (const [name, ch] of channels) {
      if (name in h.seen) {
        ch.acked = h.seen[name] + 1;
        ch.outbox.forget(h.seen[name]);
      } else if (!ch.closed) say("join", { name, ...place(ch) });
      const missing = ch.inbox.missing(h.last[name] ?? 0);
      if (missing !== null) say("resend", { name, first: missing });
    }
    if (!socket && performance.now() - ponged < 5000) return; // a widget message costs: fewer of them
    ponged = performance.now();
    const seen = Object.fromEntries([...channels].filter(([, c]) => c.inbox.expected !== null).map(([name, c]) => [name, c.inbox.expected - 1]));
    say("pong", { seen, counts });
  }

  // --- the socket
  /** Where to try, the best first. A page from elsewhere has no business on this machine's loopback. */
  function ways(port, direct) {
    const { hostname, href } = env.location;
    const found = [];
    if (direct && /^(localhost|127(\.\d+){3}|\[::1\])$/.test(hostname)) found.push(["direct", `ws://127.0.0.1:${port}/`]);
    const config = env.document.getElementById("jupyter-config-data")?.textContent;
    if (config) found.push(["proxy", new URL(`${JSON.parse(config).baseUrl}proxy/${port}/`, href).href.replace(/^http/, "ws")]);
    return found;
  }
  async function connect({ port, token, direct }) {
    connecting = true;
    for (const [via, url] of ways(port, direct)) if (timer !== null && (await attempt(via, url, token))) break;
    connecting = false;
  }
  function attempt(via, url, token) {
    const ws = new env.WebSocket(url);
    ws.binaryType = "arraybuffer";
    let since = 0;
    return new Promise((resolve) => {
      const limit = setTimeout(() => ws.close(), 3000);
      ws.onopen = () => ws.send(JSON.stringify({ token, page: pageId, via, channels: places() }));
      ws.onmessage = ({ data }) => {
        if (!since) {
          clearTimeout(limit);
          since = performance.now();
          socket = ws;
          kind = via;
          resolve(true);
        }
        receive(data);
      };
      ws.onclose = () => {
        clearTimeout(limit);
        resolve(since > 0);
        if (socket === ws) lostSocket(performance.now() - since);
      };
    });
  }
  function lostSocket(lived_ms) {
    socket = null;
    kind = "messages"; // what the kernel says comes that way now; if nothing comes, tick() sees it
    drops = lived_ms > 60000 ? 0 : drops + 1;
    if (timer !== null) again = setTimeout(hello, Math.min(250 * 2 ** drops, 30000));
    changed();
  }

  // --- life
  function tick() {
    const now = performance.now();
    if (now - heard > GIVE_UP_MS) kind = "none";
    if (kind === "none" && hellos < 12 && now - helloAt > Math.min(1000 * 2 ** hellos, 60000)) hello();
    changed();
  }
  function start() {
    if (timer !== null) return;
    timer = setInterval(tick, 1000);
    hello();
  }
  function stop() {
    if (timer === null) return;
    clearInterval(timer);
    clearTimeout(flushing);
    clearTimeout(again);
    timer = flushing = null;
    const open = socket;
    socket = null;
    if (open) open.close(1000);
    else if (kind !== "none") byMessage([pack({ c: "", n: 0, s: stamp(), k: "bye", h: {} })]);
    kind = "none";
    changed();
  }
  const onMessage = (content, buffers) => {
    if (content?.rtnb === "frames" && timer !== null) buffers.forEach(receive);
  };
  model.on("msg:custom", onMessage);
  env.addEventListener("pagehide", stop);
  signal?.addEventListener("abort", () => {
    stop();
    model.off("msg:custom", onMessage);
    env.removeEventListener("pagehide", stop);
  });

  /** Listen and talk on a channel; the kernel then sends the widget's state. */
  function channel(name, listener) {
    let ch = channels.get(name);
    if (!ch) channels.set(name, (ch = { listeners: new Set(), inbox: new Inbox(counts), outbox: new Outbox(), cursor: 1, acked: 1 }));
    ch.listeners.add(listener);
    hellos = 0;
    start();
    if (kind !== "none") say("join", { name, seen: null, first: ch.outbox.first });
    const send = (k, h, buffers = [], { stale_ms, r } = {}) => {
      const extra = { ...(stale_ms !== undefined && { d: stale_ms }), ...(r !== undefined && { r }) };
      ch.outbox.add(pack({ c: name, n: ch.outbox.next, s: stamp(), k, h, ...extra }, buffers));
      pump();
    };
    return {
      send,
      request(k, h, { timeout_ms = 5000 } = {}) {
        return new Promise((resolve, reject) => {
          const r = nextRequest++;
          const done = (settle) => (value) => {
            clearTimeout(late);
            requests.delete(r);
            settle(value);
          };
          const late = setTimeout(() => done(reject)(new Error(`no answer to ${k} within ${timeout_ms} ms`)), timeout_ms);
          requests.set(r, done((answer) => (answer.error === undefined ? resolve(answer) : reject(new Error(answer.error)))));
          send(k, h, [], { r });
        });
      },
      close() {
        ch.listeners.delete(listener);
        if (ch.listeners.size || channels.get(name) !== ch) return;
        channels.delete(name);
        if (kind !== "none") say("leave", { name });
        if (!channels.size) stop();
      },
    };
  }
  const listen = (set) => (fn) => {
    set.add(fn);
    return () => set.delete(fn);
  };
  return { channel, status, onStatus: listen(watchers), pageId, isActivePage, onActivePage: listen(electors), claimActivePage: () => say("claim") };
}

const TITLES = {
  direct: "connected straight to the kernel's background loop: a busy cell holds nothing up",
  proxy: "connected to the kernel's background loop through the Jupyter server: a busy cell holds nothing up",
  messages: "connected by widget messages: a busy cell holds up what this page sends",
  none: "the kernel does not answer, or nothing is shown that needs it",
};

export default () => {
  let line;
  return {
    initialize({ model, signal }) {
      line = makeLine(model, { signal });
      return line;
    },
    render({ el }) {
      const badge = document.createElement("span");
      badge.setAttribute("role", "status");
      const show = ({ kind, late, lost, resent }) => {
        badge.dataset.kind = kind;
        badge.title = TITLES[kind];
        badge.textContent = `line: ${kind} · late ${late} · lost ${lost} · resent ${resent}`;
      };
      badge.className = "rtnb rtnb-badge";
      show(line.status());
      el.append(badge);
      return line.onStatus(show);
    },
  };
};
