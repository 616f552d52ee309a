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
 */
import { explain } from "./microphone_capture.js";
import { add, button, levelMeter, put, save, shareViews, toggleButton, watch } from "./shared.js";
import { Call } from "./webrtc_call.js";

/** The widget in this page: all its views share one call. */
export class Peer {
  /** @type {?Call} */
  call = null; // the one that is not over
  audio = add(null, "audio", { autoplay: true, hidden: true });

  /** @param {import("./types").SharedProps<any>} props */
  constructor({ model, channel, draw, signal }) {
    this.model = model;
    this.channel = channel;
    this.draw = draw;
    signal.addEventListener("abort", () => this.call?.end("unseen"));
    this.stream = channel.openStream(model.get("stream_name"), (...message) => this.onMessage(...message), signal);
    // Jupyter itself stops no microphone.
    channel.addEventListener("left", () => this.call?.end("page", explain(channel.kind === "none" ? "kernel" : "elsewhere")), { signal });
    watch(model, ["state", "message", "notices", "muted"], draw, signal);
  }

  /** @type {import("./types").OnMessage} */
  onMessage(kind, header, buffers) {
    const call = this.call?.number === header.call ? this.call : null;
    if (kind === "call" && header.page === this.channel.pageId) this.begin(header.call);
    else if (kind === "stop") call?.close();
    else if (kind === "event") call?.sendEvent(buffers[0]);
    else if (kind === "play") call?.playTrack(header.id, buffers[0]);
  }

  begin(/** @type {number} */ number) {
    this.call?.close();
    this.channel.claimActivePage().catch(() => {}); // the call itself finds out
    if (!window.RTCPeerConnection) return this.stream.send("ended", { call: number, why: "no-webrtc" });
    this.call = new Call(number, this);
    return this.call.run();
  }

  toggle() {
    if (!this.call && this.model.get("state") !== "open") return this.stream.send("start", { page: this.channel.pageId });
    this.call?.close();
    return this.stream.send("stop", {});
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
  return message.replaceAll("\n", " ") || { idle: "Not connected", closed: "Call ended" }[state] || "Call failed";
}

function render(/** @type {import("./types").ViewProps<any>} */ { model, el }, /** @type {Peer} */ peer) {
  const root = add(el, "div", { className: "rtnb rtnb-webrtc", role: "group", "aria-label": "WebRTC call" }, peer.audio);
  const toggle = button(root, "", () => peer.toggle(), { className: "rtnb-start" });
  const mute = toggleButton(root, "Mute", (muted) => save(model, { muted }));
  const allow = button(root, "Enable sound", () => {}); // as any click does
  const [here, there] = ["You", "Model"].map((name) => levelMeter(add(root, "label", { className: "rtnb-faint" }, name), name));
  const status = add(root, "span", { className: "rtnb-webrtc-status", role: "status" });
  const details = add(root, "details", {}, add(null, "summary", { textContent: "Details" }));
  const panel = add(details, "div", { className: "rtnb-webrtc-panel" });
  return () => {
    const { call } = peer;
    const [state, message, microphone, muted] = ["state", "message", "microphone", "muted"].map((name) => model.get(name));
    put(root, { "data-state": call && state === "open" ? "talking" : state });
    const isOn = call || state === "open";
    const title = microphone && !isOn ? "Opens the microphone: the browser asks for permission" : "";
    put(toggle, { textContent: isOn ? "End call" : "Start call", title, disabled: state === "starting" && !call });
    put(mute, { hidden: !microphone, "aria-pressed": muted });
    if (call?.track && microphone) call.track.enabled = !muted;
    put(allow, { hidden: !call?.blocked && call?.mixer?.context.state !== "suspended" });
    const { level_here = 0, level_there = 0, ...rest } = call?.stats ?? {};
    here(level_here);
    there(level_there);
    put(status, { textContent: describe(/** @type {any} */ ({ state, message, microphone, muted }), call) });
    const measured = Object.entries(rest).map(([name, value]) => `${name} ${value ?? "–"}`).join(" · ");
    put(panel, { textContent: [state === "starting" ? "" : message, ...model.get("notices"), measured].join("\n").trim() });
    put(details, { hidden: !panel.textContent });
  };
}

export default shareViews((/** @type {import("./types").SharedProps<any>} */ props) => new Peer(props), render);
