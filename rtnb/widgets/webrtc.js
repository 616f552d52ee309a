/**
 * Talk to a service by WebRTC: start and end a call, mute, levels, figures, failures.
 *
 * @typedef {object} State
 * @property {string} channel reference to the page's channel
 * @property {string} stream_name name of its stream
 * @property {string} state idle, starting, open, closed or failed
 * @property {string} message last failure
 * @property {string[]} notices facts about this call
 * @property {string} label name of the data channel
 * @property {boolean} microphone whether the microphone is opened
 * @property {boolean} muted
 * @property {boolean} compact whether it is one row with its details folded
 */
import { add, put, putAttribute, toggleButton, watch } from "./shared.js";
import { Call } from "./webrtc_call.js";

/** The widget in this page: all its views share one call. */
export class Peer {
  /** @type {?Call} */
  call = null; // the one that is not over
  audio = add(null, "audio", { autoplay: true, hidden: true });
  /** @type {Set<() => void>} */
  views = new Set();

  constructor(/** @type {import("./types").Model<any>} */ model, /** @type {import("./types").Channel} */ channel) {
    this.model = model;
    this.channel = channel;
    this.stream = channel.openStream(model.get("stream_name"), (kind, header, buffers) => this.onMessage(kind, header, buffers));
    this.leave = [
      channel.onActivePage((mine) => !mine && this.call?.end("elsewhere")),
      channel.onStatus(({ kind }) => kind === "none" && this.call?.end("kernel")), // Jupyter itself stops no microphone
    ];
  }

  draw = () => this.views.forEach((draw) => draw());

  onMessage(/** @type {string} */ kind, /** @type {any} */ header, /** @type {DataView[]} */ buffers) {
    const call = this.call?.number === header.call ? this.call : null;
    if (kind === "call" && header.page === this.channel.pageId) this.begin(header.call);
    else if (kind === "stop") call?.close();
    else if (kind === "event") call?.sendEvent(buffers[0]);
    else if (kind === "play") call?.playTrack(header.id, buffers[0]);
  }

  begin(/** @type {number} */ number) {
    this.call?.close();
    if (!this.channel.isActivePage()) this.channel.claimActivePage();
    if (!window.RTCPeerConnection) return this.stream.send("ended", { call: number, why: "no-webrtc" });
    this.call = new Call(number, this);
    return this.call.run();
  }

  toggle() {
    if (!this.call && this.model.get("state") !== "open") return this.stream.send("start", { page: this.channel.pageId });
    this.call?.close();
    return this.stream.send("stop", {});
  }

  close() {
    this.call?.end("hidden");
    this.leave.forEach((leave) => leave());
    this.stream.close();
  }
}

/**
 * Text of the status line.
 * @param {State} traits
 * @param {?Pick<Call, "step">} call
 */
export function describe({ state, message, microphone, muted }, call) {
  if (state === "starting") return call ? `Waiting for ${call.step}…` : "Starting…";
  if (state === "open" && !call) return "The call is on another page";
  if (state === "open") return `Connected${!microphone ? "; audio comes from say()" : muted ? ", muted" : ": speak"}`;
  return message.split("\n")[0] || { idle: "Not connected", closed: "Call ended" }[state] || "Call failed";
}

function view(/** @type {import("./types").Model<any>} */ model, /** @type {Peer} */ peer, /** @type {Element} */ el) {
  const look = model.get("compact") ? "rtnb rtnb-webrtc rtnb-compact" : "rtnb rtnb-webrtc";
  const root = add(el, "div", { className: look, role: "group", "aria-label": "WebRTC call" }, peer.audio);
  const toggle = add(root, "button", { type: "button", className: "rtnb-start", onclick: () => peer.toggle() });
  const mute = toggleButton(root, { textContent: "Mute" }, (muted) => {
    model.set("muted", muted);
    model.save_changes();
  });
  const allow = add(root, "button", { type: "button", textContent: "Enable sound" }); // as any click does
  const [here, there] = ["You", "Model"].map((name) => {
    return add(add(root, "label", { className: "rtnb-faint" }, name), "meter", { min: -50, max: 0, title: "dB" });
  });
  const status = add(root, "span", { className: "rtnb-webrtc-status", role: "status" });
  const details = add(root, "details", { open: !model.get("compact") }, add(null, "summary", { textContent: "Details" }));
  const panel = add(details, "div", { className: "rtnb-webrtc-panel" });
  return () => {
    const { call } = peer;
    const [state, message, microphone, muted] = ["state", "message", "microphone", "muted"].map((name) => model.get(name));
    put(root.dataset, "state", call && state === "open" ? "talking" : state);
    put(toggle, "textContent", call || state === "open" ? "End call" : "Start call");
    put(toggle, "title", microphone && toggle.textContent === "Start call" ? "Opens the microphone: the browser asks for permission" : "");
    put(toggle, "disabled", state === "starting" && !call);
    put(mute, "hidden", !microphone);
    putAttribute(mute, "aria-pressed", muted);
    if (call?.track && microphone) call.track.enabled = !muted;
    put(allow, "hidden", !call?.blocked && call?.mixer?.context.state !== "suspended");
    const { level_here = 0, level_there = 0, ...rest } = call?.stats ?? {};
    put(here, "value", Math.max(-50, 20 * Math.log10(level_here)));
    put(there, "value", Math.max(-50, 20 * Math.log10(level_there)));
    put(status, "textContent", describe(/** @type {any} */ ({ state, message, microphone, muted }), call));
    const measured = Object.entries(rest).map(([name, value]) => `${name} ${value ?? "–"}`).join(" · ");
    put(panel, "textContent", [state === "starting" ? "" : message, ...model.get("notices"), measured].join("\n").trim());
    put(details, "hidden", !panel.textContent);
  };
}

export default () => {
  /** @type {?Peer} */
  let peer = null;

  async function render(/** @type {import("./types").RenderProps<State>} */ { model, el, host }) {
    const { exports: channel } = await host.getWidget(model.get("channel"));
    const shared = (peer ??= new Peer(model, channel));
    const draw = view(model, shared, el);
    shared.views.add(draw);
    const unwatch = watch(model, ["state", "message", "notices", "muted"], draw);
    return () => {
      unwatch();
      shared.views.delete(draw);
      if (shared.views.size) return;
      shared.close();
      peer = null;
    };
  }
  return { render };
};
