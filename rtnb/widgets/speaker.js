/**
 * Plays the responses without gaps in an AudioWorklet, and reports how much of each item was played.
 *
 * Kernel to page: audio {item, end?} [PCM16 at 24 kHz], flush {id}. Page to kernel: played {items: {id: samples}, state, latency_ms,
 * lead_ms, target_ms, gaps}, flushed {id, items}, state {state}.
 *
 * @typedef {object} State
 * @property {string} channel reference to the page's channel
 * @property {string} stream_name name of its stream
 * @property {number} volume 0 … 1
 * @property {boolean} muted
 * @property {string} worklet the text of speaker_worklet.js
 * @typedef {import("./types").Model<State>} Model
 */
import { add, onKey, put, putAttribute, toggleButton, watch } from "./shared.js";

const RATE_HZ = 24000;
const FIRST_MS = 200; // buffered before playing: measured to play without gaps on an undisturbed page
const MOST_MS = 600;
const KEEP_MS = 10000;
const FIGURES_MS = 250; // a faster display could not be read

/** The buffer that outlasts the worst delay of the last 10 s, in steps so that it does not tremble. */
export class Adapting {
  /** @type {{ms: number, at: number}[]} */
  delays = [];

  /** Note a delay; returns the buffer in ms. */
  note(/** @type {number} */ delay_ms, /** @type {number} */ now_ms) {
    this.delays = this.delays.filter((d) => now_ms - d.at < KEEP_MS && d.ms > delay_ms);
    this.delays.push({ ms: delay_ms, at: now_ms });
    const worst_ms = this.delays[0].ms;
    if (worst_ms <= 60) return FIRST_MS; // the first 200 ms outlast this
    return Math.min(MOST_MS, Math.ceil((worst_ms + 200) / 50) * 50); // a delta (100 ms) may be on its way, and 100 to spare
  }
}

/** One player per widget, however many views it has; it makes no sound before one is shown. */
class Player {
  state = "starting";
  playing = false;
  lead_ms = 0;
  gaps = 0;
  target_ms = FIRST_MS;
  sent_at = 0;
  /** @type {Record<string, number>} */
  items = {};
  adapting = new Adapting();
  abort = new AbortController();
  /** @type {Promise<?AudioWorkletNode>} */
  ready = Promise.resolve(null);

  constructor(/** @type {Model} */ model, /** @type {import("./types").Channel} */ channel, /** @type {() => void} */ onChange) {
    this.model = model;
    this.channel = channel;
    this.onChange = onChange;
    this.stream = channel.openStream(model.get("stream_name"), (...message) => this.onMessage(...message));
    if (!window.AudioWorkletNode) {
      this.setState("insecure");
      return;
    }
    const context = (this.context = new AudioContext({ sampleRate: RATE_HZ, latencyHint: "interactive" }));
    this.gain = new GainNode(context);
    this.gain.connect(context.destination);
    this.ready = this.load(context, this.gain);
    const options = { signal: this.abort.signal, capture: true };
    context.addEventListener("statechange", () => this.look(), options);
    for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, () => this.resume(), options); // any click will do
    this.unwatch = channel.onActivePage(() => this.look());
    let due = performance.now() + 50;
    this.timer = setInterval(() => {
      if (!document.hidden) this.adapt(performance.now() - due); // how long the page was stalled
      due = performance.now() + 50;
    }, 50);
    this.look();
  }

  async load(/** @type {AudioContext} */ context, /** @type {GainNode} */ gain) {
    const url = URL.createObjectURL(new Blob([this.model.get("worklet")], { type: "text/javascript" }));
    try {
      await context.audioWorklet.addModule(url);
    } catch {
      this.setState("refused");
      return null;
    } finally {
      URL.revokeObjectURL(url);
    }
    const processorOptions = { target: (this.target_ms * RATE_HZ) / 1000 };
    const node = (this.node = new AudioWorkletNode(context, "rtnb-speaker", { numberOfInputs: 0, outputChannelCount: [1], processorOptions }));
    node.port.onmessage = ({ data }) => this.onReport(data);
    node.connect(gain);
    this.look();
    return node;
  }

  setVolume() {
    if (this.gain) this.gain.gain.value = this.model.get("muted") ? 0 : this.model.get("volume");
  }

  resume() {
    if (this.context?.state === "suspended") this.context.resume();
  }

  adapt(/** @type {number} */ delay_ms) {
    const target_ms = this.adapting.note(delay_ms, performance.now());
    if (target_ms === this.target_ms) return;
    this.target_ms = target_ms;
    this.post({ kind: "target", target: (target_ms * RATE_HZ) / 1000 });
    this.onChange();
  }

  post(/** @type {object} */ message, /** @type {Transferable[]} */ transfer = []) {
    this.ready.then((node) => node?.port.postMessage(message, transfer)); // a promise keeps the order
  }

  /** @type {import("./types").OnMessage} */
  onMessage(kind, header, [data]) {
    if (kind === "flush") this.post({ kind, id: header.id });
    if (kind !== "audio" || !this.channel.isActivePage()) return;
    const bytes = data ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice() : new Uint8Array(0);
    const samples = new Int16Array(bytes.buffer);
    this.post({ kind, item: header.item, samples, end: header.end === true }, [samples.buffer]);
  }

  /** Pass a report of the worklet on: 10 times a second, 25 on the direct channel, where it costs little. */
  onReport(/** @type {any} */ { flushed, items, lead, playing, gaps }) {
    Object.assign(this.items, items);
    const stopped = this.playing && !playing;
    if (gaps > this.gaps) this.adapt(this.target_ms); // the buffer was too short
    Object.assign(this, { gaps, playing, lead_ms: (1000 * lead) / RATE_HZ });
    if (flushed !== null) {
      this.stream.send("flushed", { id: flushed, items });
      this.items = {};
    }
    this.look();
    const every_ms = this.channel.status().kind === "direct" ? 40 : 100;
    if (flushed === null && !stopped && performance.now() - this.sent_at < every_ms) return;
    this.sent_at = performance.now();
    const latency_ms = 1000 * (this.context?.outputLatency || this.context?.baseLatency || 0);
    const { state, lead_ms, target_ms } = this;
    this.stream.send("played", { items: this.items, state, latency_ms, lead_ms, target_ms, gaps });
    this.items = {};
  }

  look() {
    if (this.state === "refused") return;
    const here = this.context?.state === "suspended" ? "blocked" : !this.node ? "starting" : this.playing ? "playing" : "idle";
    this.setState(this.channel.isActivePage() ? here : "elsewhere");
  }

  setState(/** @type {string} */ state) {
    if (state !== this.state) {
      this.state = state;
      this.stream.send("state", { state });
      if (state === "elsewhere") this.post({ kind: "flush", id: 0 });
    }
    this.onChange();
  }

  close() {
    this.context?.close();
    clearInterval(this.timer);
    this.abort.abort();
    this.unwatch?.();
    this.stream.send("state", { state: "no page" });
    this.stream.close();
  }
}

/** @type {Record<string, string>} */
const WORDS = {
  starting: "starting…",
  insecure: "No sound: the browser plays only on https or localhost pages.",
  refused: "No sound: the security policy of this page does not allow an audio worklet.",
  elsewhere: "Sound plays in another tab of this notebook.",
  blocked: "The browser plays no sound before a click.",
  playing: "playing",
  idle: "ready",
};

/** The figures beside the state. */
export function figures(/** @type {Pick<Player, "state" | "lead_ms" | "target_ms" | "gaps">} */ { state, lead_ms, target_ms, gaps }) {
  const lead = lead_ms < 1000 ? `${Math.round(lead_ms / 10) * 10} ms` : `${(lead_ms / 1000).toFixed(1)} s`;
  const notes = [];
  if (target_ms > FIRST_MS && ["playing", "idle"].includes(state)) notes.push(`buffering ${target_ms} ms (this page is slow)`);
  if (state === "playing") notes.push(`${lead} buffered`);
  if (gaps) notes.push(gaps === 1 ? "1 gap" : `${gaps} gaps`);
  return notes.join(" · ");
}

export default () => {
  /** @type {?Player} */
  let player = null;
  /** @type {Set<() => void>} */
  const views = new Set();

  async function render(/** @type {import("./types").RenderProps<State>} */ { model, el, host, signal }) {
    const { exports: channel } = await host.getWidget(model.get("channel"));
    const own = (player ??= new Player(model, channel, () => views.forEach((draw) => draw())));
    const set = (/** @type {"volume" | "muted"} */ name, /** @type {any} */ value) => {
      model.set(name, value);
      model.save_changes();
    };
    const root = add(el, "div", { className: "rtnb rtnb-speaker", role: "group", "aria-label": "Speaker" });
    const mute = toggleButton(root, { "aria-label": "Mute" }, (on) => set("muted", on));
    const slider = add(root, "input", { type: "range", min: 0, max: 100, step: 5, title: "Volume", "aria-label": "Volume" });
    const percent = add(root, "span", { className: "rtnb-percent" });
    const line = add(root, "span", { className: "rtnb-line" });
    const state = add(line, "span", { role: "status" });
    const numbers = add(line, "span", { className: "rtnb-figures" }); // not in the status: they change too often to be read out
    const allow = add(root, "button", { className: "rtnb-allow", type: "button", textContent: "Enable sound", onclick: () => own.resume() });
    slider.addEventListener("input", () => set("volume", slider.valueAsNumber / 100));
    onKey(slider, ({ key }) => {
      const step = { ArrowLeft: -0.05, ArrowDown: -0.05, ArrowRight: 0.05, ArrowUp: 0.05 }[key] ?? 0;
      if (step) set("volume", Math.min(1, Math.max(0, Math.round(20 * (model.get("volume") + step)) / 20)));
      return step !== 0;
    }, signal);

    let shown_at = 0;
    const draw = () => {
      const [volume, muted, same] = [Math.round(100 * model.get("volume")), model.get("muted"), root.dataset.state === own.state];
      root.dataset.state = own.state;
      put(state, "textContent", WORDS[own.state]);
      if (!same || performance.now() - shown_at > FIGURES_MS) {
        shown_at = performance.now();
        put(numbers, "textContent", figures(own));
      }
      put(allow, "hidden", own.state !== "blocked");
      put(slider, "value", String(volume));
      put(percent, "textContent", muted ? "muted" : `${volume} %`);
      putAttribute(mute, "aria-pressed", muted);
      put(mute, "title", muted ? "Unmute" : "Mute");
    };
    views.add(draw);
    const unwatch = watch(model, ["volume", "muted"], () => {
      own.setVolume();
      draw();
    });
    return () => {
      views.delete(draw);
      unwatch();
      if (views.size) return;
      own.close();
      player = null;
    };
  }
  return { render };
};
