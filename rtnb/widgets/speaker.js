/**
 * Plays the responses without gaps in an AudioWorklet, and reports how much of each item was played.
 *
 * Kernel to page: audio {item, end?} [PCM16 at 24 kHz], flush {}. Page to kernel: played {items: {id: samples}, state, latency_ms,
 * target_ms, gaps}, flushed {items}, state {state, problem}.
 *
 * @typedef {object} State
 * @property {string} channel reference to the page's channel
 * @property {string} stream_name name of its stream
 * @property {number} volume 0 … 1
 * @property {boolean} muted
 * @property {string} worklet the text of speaker_worklet.js
 */
import { add, button, int16, loadWorklet, put, save, shareViews, toggleButton, watch } from "./shared.js";

const RATE_HZ = 24000;
const FIRST_MS = 200; // buffered before playing: measured to play without gaps on an undisturbed page
const QUICK_MS = 100; // the same, where the three answers before arrived at least twice as fast as they play
const MOST_MS = 600;
const TICK_MS = 50;
const FIGURES_MS = 250; // a faster display could not be read

/** One player per widget, however many views it has; it makes no sound before one is shown. */
class Player {
  state = "starting";
  playing = false;
  lead_ms = 0;
  gaps = 0;
  target_ms = FIRST_MS;
  late_ms = 0; // how long the page was stalled lately
  arrival = { item: "", since: 0, ms: 0, quick: 0 }; // of the newest item: audio behind its first piece

  /** @param {import("./types").SharedProps<State>} props */
  constructor({ model, channel, draw, signal }) {
    this.channel = channel;
    this.onChange = draw;
    signal.addEventListener("abort", () => {
      this.context?.close();
      this.stream.send("state", { state: "no page", problem: "" });
    });
    this.stream = channel.openStream(model.get("stream_name"), (...message) => this.onMessage(...message), signal);
    this.ready = this.start(model, signal);
    watch(model, ["volume", "muted"], () => {
      if (this.gain) this.gain.gain.value = model.get("muted") ? 0 : model.get("volume");
      draw();
    }, signal);
  }

  /** Resolves to the worklet, to null where there is none. @returns {Promise<?AudioWorkletNode>} */
  async start(/** @type {import("./types").Model<State>} */ model, /** @type {AbortSignal} */ signal) {
    if (!window.AudioWorkletNode) {
      this.setState("insecure");
      return null;
    }
    const context = (this.context = new AudioContext({ sampleRate: RATE_HZ, latencyHint: "interactive" }));
    this.gain = new GainNode(context);
    this.gain.connect(context.destination);
    this.watchPage(context, signal);
    try {
      await loadWorklet(context, model.get("worklet"));
    } catch {
      this.setState("refused");
      return null;
    }
    this.node = new AudioWorkletNode(context, "rtnb-speaker", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => this.onReport(data);
    this.node.connect(this.gain);
    this.look();
    return this.node;
  }

  watchPage(/** @type {AudioContext} */ context, /** @type {AbortSignal} */ signal) {
    const options = { signal, capture: true };
    context.addEventListener("statechange", () => this.look(), options);
    for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, () => context.resume(), options); // any click will do
    this.channel.addEventListener("status", () => this.look(), { signal });
    let due = performance.now() + TICK_MS;
    const timer = setInterval(() => {
      if (!document.hidden) this.adapt(performance.now() - due);
      due = performance.now() + TICK_MS;
    }, TICK_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
    this.look();
  }

  /** Buffer what outlasts the delays of the page, in steps so that it does not tremble; a delay is forgotten in 10 s. */
  adapt(/** @type {number} */ delay_ms) {
    this.late_ms = Math.min(MOST_MS - 200, Math.max(delay_ms, 0.99 * this.late_ms));
    const outlasting_ms = Math.ceil((this.late_ms + 200) / 50) * 50; // a delta (100 ms) may be on its way, and 100 to spare
    const target_ms = this.late_ms > 60 ? outlasting_ms : FIRST_MS;
    if (target_ms !== this.target_ms) Object.assign(this, { target_ms }).onChange();
  }

  async post(/** @type {object} */ message, /** @type {Transferable[]} */ transfer = []) {
    (await this.ready)?.port.postMessage(message, transfer); // the promise keeps the order; before it, nothing plays
  }

  /** @type {import("./types").OnMessage} */
  onMessage(kind, { item, end = false }, [data]) {
    if (kind === "flush") this.post({});
    if (kind !== "audio" || !this.channel.isActivePage()) return;
    const samples = int16(data).slice(), { arrival } = this, now = performance.now();
    if (item !== arrival.item) Object.assign(arrival, { item, since: now, ms: 0 });
    else arrival.ms += (1000 * samples.length) / RATE_HZ;
    if (end && arrival.ms) arrival.quick = arrival.ms > 2 * (now - arrival.since) ? arrival.quick + 1 : 0;
    const target_ms = arrival.quick > 2 && this.target_ms === FIRST_MS ? QUICK_MS : this.target_ms;
    this.post({ item, samples, ended: end, target: (target_ms * RATE_HZ) / 1000 }, [samples.buffer]);
  }

  /** Pass a report of the worklet on: 12 a second while it plays. */
  onReport(/** @type {any} */ { flushed, items, lead, playing, gaps }) {
    if (gaps > this.gaps) this.adapt(this.target_ms); // the buffer was too short
    Object.assign(this, { gaps, playing, lead_ms: (1000 * lead) / RATE_HZ });
    this.look();
    const latency_ms = 1000 * (this.context?.outputLatency || this.context?.baseLatency || 0);
    const report = { items, state: this.state, latency_ms, target_ms: this.target_ms, gaps };
    this.stream.send(flushed ? "flushed" : "played", flushed ? { items } : report);
  }

  look() {
    if (this.state === "refused") return;
    const here = this.context?.state === "suspended" ? "blocked" : !this.node ? "starting" : this.playing ? "playing" : "idle";
    this.setState(this.channel.isActivePage() ? here : "elsewhere");
  }

  setState(/** @type {string} */ state) {
    if (state !== this.state) {
      this.state = state;
      this.stream.send("state", { state, problem: PROBLEMS[state] ?? "" });
      if (state === "elsewhere") this.post({});
    }
    this.onChange();
  }
}

/** @type {Record<string, string>} */
const PROBLEMS = {
  insecure: "No sound: the browser plays only on https or localhost pages.",
  refused: "No sound: the security policy of this page does not allow an audio worklet.",
  elsewhere: "Sound plays in another tab of this notebook.",
  blocked: "The browser plays no sound before a click: click anywhere on the page.",
};
/** @type {Record<string, string>} */
const WORDS = { ...PROBLEMS, starting: "starting…", playing: "playing", idle: "ready" };

/** The figures beside the state. */
export function figures(/** @type {Pick<Player, "state" | "lead_ms" | "target_ms" | "gaps">} */ { state, lead_ms, target_ms, gaps }) {
  const lead = lead_ms < 1000 ? `${Math.round(lead_ms / 10) * 10} ms` : `${(lead_ms / 1000).toFixed(1)} s`;
  const notes = [];
  if (target_ms > FIRST_MS && ["playing", "idle"].includes(state)) notes.push(`buffering ${target_ms} ms (this page is slow)`);
  if (state === "playing") notes.push(`${lead} buffered`);
  if (gaps) notes.push(gaps === 1 ? "1 gap" : `${gaps} gaps`);
  return notes.join(" · ");
}

/** @param {import("./types").ViewProps<State>} props */
function render({ model, el }, /** @type {Player} */ player) {
  const root = add(el, "div", { className: "rtnb rtnb-speaker", role: "group", "aria-label": "Speaker" });
  const mute = toggleButton(root, "Mute", (muted) => save(model, { muted }));
  const slider = add(root, "input", { type: "range", max: 100, step: 5, "aria-label": "Volume", "data-lm-suppress-shortcuts": true });
  slider.oninput = () => save(model, { volume: slider.valueAsNumber / 100 });
  const percent = add(root, "span", { className: "rtnb-percent" });
  const line = add(root, "span", { className: "rtnb-line" });
  const state = add(line, "span", { role: "status" });
  const numbers = add(line, "span", { className: "rtnb-figures" }); // not in the status: they change too often to be read out
  const allow = button(root, "Enable sound", () => {}, { className: "rtnb-allow" }); // as any click does

  let shown_at = 0;
  return () => {
    const [volume, muted, same] = [Math.round(100 * model.get("volume")), model.get("muted"), root.dataset.state === player.state];
    put(root, { "data-state": player.state });
    put(state, { textContent: WORDS[player.state] });
    if (!same || performance.now() - shown_at > FIGURES_MS) {
      shown_at = performance.now();
      put(numbers, { textContent: figures(player) });
    }
    put(allow, { hidden: player.state !== "blocked" });
    put(slider, { value: String(volume) });
    put(percent, { textContent: muted ? "muted" : `${volume} %` });
    put(mute, { "aria-pressed": muted });
  };
}

export default shareViews((/** @type {import("./types").SharedProps<State>} */ props) => new Player(props), render);
