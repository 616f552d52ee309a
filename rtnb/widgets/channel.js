/**
 * The page's end of the channel to the background loop: see channel.py and _hub.py.
 * channel_frames.js and channel_socket.js stand before it, in one module.
 * @typedef {{}} State no traits
 */
import { Delay, Inbox, Outbox, messages, pack, stamp, unpack } from "./channel_frames.js";
import { openSocket, ways } from "./channel_socket.js";

const GIVE_UP_MS = 7000; // the kernel pings every 2 s
const TICK_MS = 100; // widget messages leave at most this often: each one makes JupyterLab repaint (measured)
const WINDOW_FRAMES = 256; // unacknowledged frames on widget messages: a blocked kernel must not collect more
const SOCKET_BYTES = 2 ** 20; // unsent bytes in a socket

const makeId = () => [...crypto.getRandomValues(new Uint8Array(8))].map((b) => b.toString(16).padStart(2, "0")).join("");

/** The channel of one page; `env` replaces parts of the browser in tests. */
export function makeChannel(model, { signal, env = globalThis, pageId = makeId() } = {}) {
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
  let nextRequest = 1;
  const delay = new Delay();
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
    try { model.send({ rtnb: "frames", page: pageId }, undefined, frames.map((f) => f.buffer)); } catch { kind = "none"; } // the kernel was shut down
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
    if (socket?.readyState > 1) return; // it closes: what waits takes the next way, see lost()
    if (socket) {
      for (let frame; socket.bufferedAmount < SOCKET_BYTES && (frame = nextFrame()); ) socket.send(frame);
      if (socket.bufferedAmount >= SOCKET_BYTES) flushing = setTimeout(flush, 20);
      return;
    }
    const frames = [];
    for (let frame; (frame = nextFrame()); ) frames.push(frame);
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
    if (delay.late(head.s) > (head.d ?? Infinity)) counts.late += 1;
    else for (const [header, buffers] of messages(head)) for (const fn of ch.listeners) safely(() => fn(head.k, header, buffers));
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
      if (name in h.seen && ch.inbox.expected !== null) {
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
  async function connect({ token, ...offer }) {
    connecting = true;
    for (const [via, url] of ways(offer, env)) {
      const first = { token, page: pageId, via, channels: places() };
      const opened = (ws) => ((socket = ws), (kind = via));
      if (timer === null || (await openSocket(url, first, { env, opened, receive, lost }))) break;
    }
    connecting = false;
  }
  function lost(ws, lived_ms) {
    if (socket !== ws) return;
    socket = null;
    kind = "messages"; // what the kernel says comes that way now; if nothing comes, tick() sees it
    drops = lived_ms > 60000 ? 0 : drops + 1;
    again = setTimeout(hello, Math.min(250 * 2 ** drops, 30000));
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
  const restored = ({ persisted }) => persisted && channels.size && start();
  env.addEventListener("pagehide", stop);
  env.addEventListener("pageshow", restored);
  signal?.addEventListener("abort", () => {
    stop();
    model.off("msg:custom", onMessage);
    env.removeEventListener("pagehide", stop);
    env.removeEventListener("pageshow", restored);
  });

  /** Open a stream; the kernel then sends the widget's state. */
  function openStream(name, listener) {
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
      request(k, h, { buffers = [], timeout_ms = 5000, signal: cancel } = {}) {
        return new Promise((resolve, reject) => {
          const r = nextRequest++;
          const done = (settle) => (value) => {
            clearTimeout(late);
            requests.delete(r);
            settle(value);
          };
          const late = setTimeout(() => done(reject)(new Error(`no answer to ${k} within ${timeout_ms} ms`)), timeout_ms);
          cancel?.addEventListener("abort", () => done(reject)(cancel.reason), { once: true });
          requests.set(r, done((answer) => (answer.error === undefined ? resolve(answer) : reject(new Error(answer.error)))));
          send(k, h, buffers, { r });
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
  return { openStream, status, onStatus: listen(watchers), pageId, isActivePage, onActivePage: listen(electors), claimActivePage: () => say("claim") };
}
const TITLES = {
  direct: "connected straight to the kernel's background loop: a busy cell holds nothing up",
  proxy: "connected to the kernel's background loop through the Jupyter server: a busy cell holds nothing up",
  messages: "connected by widget messages: a busy cell holds up what this page sends",
  none: "the kernel does not answer, or nothing is shown that needs it",
};
export default () => {
  let channel;
  return {
    initialize({ model, signal }) {
      channel = makeChannel(model, { signal });
      return channel;
    },
    render({ el }) {
      const badge = document.createElement("span");
      badge.setAttribute("role", "status");
      const show = ({ kind, late, lost, resent }) => {
        badge.dataset.kind = kind;
        badge.title = TITLES[kind];
        badge.textContent = `channel: ${kind} · late ${late} · lost ${lost} · resent ${resent}`;
      };
      badge.className = "rtnb rtnb-badge";
      show(channel.status());
      el.append(badge);
      return channel.onStatus(show);
    },
  };
};
