/**
 * Talk to a service by WebRTC: start, stop, mute, levels, statistics, failures in words. webrtc_call.js comes before it.
 *
 * @typedef {object} State
 * @property {string} channel reference to the page's stream
 * @property {string} stream_name name of its stream
 * @property {string} state idle, starting, open, closed or failed
 * @property {string} message what went wrong last
 * @property {string[]} notices what is good to know about this call
 * @property {string} label name of the data channel
 * @property {boolean} microphone whether the microphone is asked for
 * @property {boolean} through_kernel whether the kernel posts the offer
 * @property {boolean} muted
 */
import { Call, figures } from "./webrtc_call.js";

const SHOWN = ["state", "message", "notices"];

/** The call of this page, however many views the widget has. */
class Peer {
  constructor(model, channel, changed) {
    Object.assign(this, { model, channel, changed, call: null });
    this.audio = Object.assign(document.createElement("audio"), { autoplay: true, hidden: true });
    this.abort = new AbortController();
    this.stream = channel.openStream(model.get("stream_name"), (kind, header, buffers) => this.take(kind, header, buffers));
    this.leave = [
      channel.onActivePage((mine) => !mine && this.end("elsewhere")),
      channel.onStatus(({ kind }) => kind === "none" && this.end("kernel")), // our lease: Jupyter ends no microphone
    ];
    this.heard = () => (this.call?.mute(), changed());
    model.on("change:muted", this.heard);
    const options = { signal: this.abort.signal, capture: true };
    for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, () => this.call?.unblock(), options);
    window.addEventListener("pagehide", () => this.call?.close(), options);
  }

  take(kind, header, buffers) {
    const mine = this.call?.number === header.call;
    if (kind === "call" && header.page === this.channel.pageId) this.begin(header.call);
    else if (kind === "stop" && mine) this.call.close();
    else if (kind === "stop" && header.call) return;
    else if (kind === "event" && mine) this.call.send(new TextDecoder().decode(buffers[0]));
    else if (kind === "speak" && mine) this.call.speak(header.id, new Uint8Array(buffers[0].buffer, buffers[0].byteOffset, buffers[0].byteLength).slice().buffer);
  }

  begin(number) {
    this.call?.close();
    if (!this.channel.isActivePage()) this.channel.claimActivePage();
    const { model, stream, audio, changed } = this;
    this.call = new Call({ number, model, stream, audio, changed });
    this.call.run();
  }

  get talking() {
    return this.call !== null && !this.call.over;
  }

  start() {
    this.channel.claimActivePage();
    this.stream.send("start", { page: this.channel.pageId });
  }

  stop() {
    this.stream.send("stop", {});
    this.call?.close();
  }

  end(why) {
    this.call?.end(why);
  }

  close() {
    this.end("hidden");
    this.abort.abort();
    this.leave.forEach((leave) => leave());
    this.model.off("change:muted", this.heard);
    this.audio.remove();
    this.stream.close();
  }
}

/** The status line. */
export function describe(state, call, page) {
  const talking = call && !call.over;
  if (state === "starting" && talking) return `Waiting for ${call.step}…`;
  if (state === "starting") return "Starting…";
  if (state === "open" && !talking) return "The call is on another page.";
  if (state === "open" && call.waits) return "The browser waits for a click before it lets sound through.";
  if (state === "open") return "Connected: speak" + (page.muted ? " (muted: only silence leaves the page)" : page.microphone ? "" : " with say()");
  return { idle: "Not connected", closed: "The call is over", failed: "No call" }[state] ?? state;
}

/** Name, value and meaning of each figure. */
export function table(stats, pc, events) {
  const ms = (value, digits = 0) => (value === null ? "–" : `${value.toFixed(digits)} ms`);
  const kb = (bytes) => `${(bytes / 1000).toFixed(0)} kB`;
  const share = stats.received ? ` (${((100 * stats.lost) / (stats.received + stats.lost)).toFixed(1)} %)` : "";
  return [
    ["round trip", ms(stats.round_trip_ms, 1), "To the service's media server and back, as ICE measures it"],
    ["jitter", ms(stats.jitter_ms, 1), "How unevenly packets of sound arrive"],
    ["buffer", ms(stats.buffer_ms), "How long sound waits here so that jitter makes no gaps"],
    ["lost", `${stats.lost}${share}`, `Of ${stats.received + stats.lost} packets of sound that were sent here`],
    ["received", kb(stats.bytes_received), "All bytes from the service"],
    ["sent", kb(stats.bytes_sent), "All bytes to the service"],
    ["ICE", pc.iceConnectionState, stats.path ? `The path: ${stats.path}` : "No path yet"],
    ["events", events.readyState, `The data channel “${events.label}”`],
  ];
}

function make(parent, tag, className, text = "") {
  const node = document.createElement(tag);
  Object.assign(node, { className, textContent: text });
  if (tag === "button") node.type = "button";
  return parent.appendChild(node);
}

function meter(parent, name) {
  const box = make(parent, "label", "rtnb-level rtnb-faint", `${name} `);
  const bar = make(box, "meter", "");
  Object.assign(bar, { min: 0, max: 1, value: 0 });
  return (level) => {
    bar.value = level > 0 ? Math.max(0, Math.min(1, 1 + Math.log10(level) / 2.5)) : 0; // −50 to 0 dB
    bar.title = level > 0 ? `${Math.round(20 * Math.log10(level))} dB` : "silent";
  };
}

export function show(list, rows) {
  list.hidden = !rows.length;
  if (list.childElementCount !== rows.length) {
    list.replaceChildren();
    for (const [name, , meaning] of rows) {
      const item = make(list, "div", "rtnb-figure");
      item.title = meaning;
      make(item, "dt", "", name);
      make(item, "dd", "");
    }
  }
  rows.forEach(([, value, meaning], i) => {
    list.children[i].lastElementChild.textContent = value;
    list.children[i].title = meaning;
  });
}

function view(model, peer, el) {
  const root = make(el, "div", "rtnb rtnb-webrtc");
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "WebRTC call");
  const top = make(root, "div", "rtnb-webrtc-line");
  const toggle = make(top, "button", "rtnb-start");
  const mute = make(top, "button", "", "Mute");
  const allow = make(top, "button", "rtnb-allow", "Let sound through");
  const status = make(top, "span", "rtnb-webrtc-status");
  status.setAttribute("role", "status");
  const levels = make(top, "span", "rtnb-levels");
  const [you, they] = [meter(levels, "You"), meter(levels, "Model")];
  const problem = make(root, "div", "rtnb-error rtnb-message");
  problem.setAttribute("role", "alert");
  const notices = make(root, "ul", "rtnb-notices rtnb-faint");
  const figured = make(root, "dl", "rtnb-figures");
  root.append(peer.audio);

  toggle.addEventListener("click", () => (peer.talking || model.get("state") === "open" ? peer.stop() : peer.start()));
  allow.addEventListener("click", () => peer.call?.unblock());
  mute.addEventListener("click", () => (model.set("muted", !model.get("muted")), model.save_changes()));

  const set = (node, text) => node.textContent !== text && (node.textContent = text);
  return () => {
    const { call } = peer;
    const [state, message, told] = SHOWN.map((name) => model.get(name));
    const [microphone, muted] = [model.get("microphone"), model.get("muted")];
    const running = peer.talking || state === "open";
    root.dataset.state = peer.talking && state === "open" ? "talking" : state;
    set(toggle, running ? "Stop" : "Start");
    toggle.disabled = state === "starting" && !peer.talking;
    mute.hidden = !microphone;
    mute.setAttribute("aria-pressed", muted);
    allow.hidden = !(peer.talking && call.waits);
    set(status, describe(state, call, { microphone, muted }));
    levels.hidden = !peer.talking;
    you(call?.stats?.level_here ?? 0);
    they(call?.stats?.level_there ?? 0);
    problem.hidden = !message || state === "starting";
    set(problem, message);
    notices.hidden = !told.length;
    if (notices.dataset.told !== told.join("\n")) {
      notices.replaceChildren();
      told.forEach((words) => make(notices, "li", "", words));
      notices.dataset.told = told.join("\n");
    }
    show(figured, call?.stats ? table(call.stats, call.pc, call.events) : []);
  };
}

export default () => {
  let peer = null;
  const views = new Set();

  async function render({ model, el, host }) {
    const { exports: channel } = await host.getWidget(model.get("channel"));
    peer ??= new Peer(model, channel, () => views.forEach((draw) => draw()));
    const draw = view(model, peer, el);
    views.add(draw);
    for (const name of SHOWN) model.on(`change:${name}`, draw);
    draw();
    return () => {
      views.delete(draw);
      for (const name of SHOWN) model.off(`change:${name}`, draw);
      if (!views.size) {
        peer.close();
        peer = null;
      }
    };
  }
  return { render };
};
