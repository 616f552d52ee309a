/**
 * Plays what the model says, without gaps, in an AudioWorklet; says how much of each item was played.
 *
 * @typedef {object} State
 * @property {string} channel reference to the page's stream
 * @property {string} stream_name name of its stream
 * @property {number} volume 0 … 1
 * @property {boolean} muted
 * @property {string} worklet the text of speaker_worklet.js
 *
 * Kernel to page: audio {item, rate, end?} [PCM16], flush {id}. Page to kernel: played {items: {id: samples}, state,
 * latency_ms, lead_ms, target_ms, gaps}, flushed {id, items}, state {state}.
 */

export const RATE_HZ = 24000;
export const FIRST_MS = 200; // the pre-buffer: what was measured to play at 1x without gaps on an undisturbed page
export const MOST_MS = 600;

/** The pre-buffer that outlasts the worst delay of the last `keep_ms`, in steps so that it does not tremble. */
export class Adapting {
  constructor({ first = FIRST_MS, most = MOST_MS, keep_ms = 10000 } = {}) {
    Object.assign(this, { first, most, keep_ms, delays: [] });
  }

  /** Note a delay; returns the pre-buffer in ms. */
  note(delay_ms, now_ms) {
    this.delays = this.delays.filter((d) => now_ms - d.at < this.keep_ms && d.ms > delay_ms);
    this.delays.push({ ms: delay_ms, at: now_ms });
    const worst = this.delays[0].ms;
    if (worst <= 60) return this.first; // what the first 200 ms are there for
    return Math.min(this.most, Math.ceil((worst + 200) / 50) * 50); // a delta (100 ms) may be on its way, and 100 to spare
  }
}

/** One player per widget, however many views it has; it makes no sound before one is shown. */
class Player {
  constructor(model, channel, changed) {
    Object.assign(this, { model, channel, changed, state: "starting", lead_ms: 0, gaps: 0, target_ms: FIRST_MS });
    this.adapting = new Adapting();
    this.items = {};
    this.sent_at = 0;
    this.abort = new AbortController();
    const on = (target, kinds, handler) =>
      kinds.forEach((kind) => target.addEventListener(kind, handler, { signal: this.abort.signal, capture: true }));
    if (!window.AudioWorkletNode) {
      this.stream = channel.openStream(model.get("stream_name"), () => {});
      this.tell("insecure");
      return;
    }
    this.context = new AudioContext({ sampleRate: RATE_HZ, latencyHint: "interactive" });
    this.ready = this.start();
    this.stream = channel.openStream(model.get("stream_name"), (kind, header, buffers) => this.take(kind, header, buffers));
    on(this.context, ["statechange"], () => this.look());
    on(document, ["pointerdown", "keydown"], () => this.resume()); // any click on the page will do
    this.leave = channel.onActivePage(() => this.look());
    let due = performance.now() + 50;
    this.timer = setInterval(() => {
      if (!document.hidden) this.adapt(performance.now() - due); // how long the page was stalled
      due = performance.now() + 50;
    }, 50);
    this.volume();
    this.look();
  }

  async start() {
    const url = URL.createObjectURL(new Blob([this.model.get("worklet")], { type: "text/javascript" }));
    await this.context.audioWorklet.addModule(url);
    URL.revokeObjectURL(url);
    this.node = new AudioWorkletNode(this.context, "rtnb-speaker", {
      numberOfInputs: 0,
      outputChannelCount: [1],
      processorOptions: { target: (this.target_ms * RATE_HZ) / 1000 },
    });
    this.node.port.onmessage = ({ data }) => this.report(data);
    this.node.connect(this.gain).connect(this.context.destination);
  }

  volume() {
    this.gain ??= new GainNode(this.context);
    this.gain.gain.value = this.model.get("muted") ? 0 : this.model.get("volume");
  }

  resume() {
    if (this.context?.state === "suspended") return this.context.resume();
  }

  adapt(delay_ms) {
    const target_ms = this.adapting.note(delay_ms, performance.now());
    if (target_ms === this.target_ms) return;
    this.target_ms = target_ms;
    this.post({ kind: "target", target: (target_ms * RATE_HZ) / 1000 });
    this.changed();
  }

  post(message, transfer = []) {
    this.ready.then(() => this.node.port.postMessage(message, transfer)); // a promise keeps the order
  }

  take(kind, header, buffers) {
    if (kind === "flush") {
      this.post({ kind, id: header.id });
    } else if (kind === "audio" && this.channel.isActivePage()) {
      const bytes = buffers[0];
      const samples = bytes ? new Int16Array(new Uint8Array(bytes.buffer ?? bytes, bytes.byteOffset ?? 0, bytes.byteLength).slice().buffer) : new Int16Array(0);
      this.post({ kind, item: header.item, samples, end: header.end === true }, [samples.buffer]);
    }
  }

  /** What the worklet says: on to the kernel, at most 10 times a second (25 on the direct channel, where it costs little). */
  report({ flushed, items, lead, playing, gaps, target }) {
    Object.assign(this.items, items);
    const stopped = this.state === "playing" && !playing;
    if (gaps > this.gaps) this.adapt(this.target_ms); // what waited was not enough
    Object.assign(this, { gaps, playing, lead_ms: (1000 * lead) / RATE_HZ });
    if (flushed !== null) {
      this.stream.send("flushed", { id: flushed, items });
      this.items = {};
    }
    const every_ms = this.channel.status().kind === "direct" ? 40 : 100;
    const now = performance.now();
    this.look();
    if (flushed === null && !stopped && now - this.sent_at < every_ms) return;
    this.sent_at = now;
    const latency_ms = 1000 * (this.context.outputLatency || this.context.baseLatency || 0);
    const { lead_ms, target_ms, state } = this;
    this.stream.send("played", { items: this.items, state, latency_ms, lead_ms, target_ms, gaps });
    this.items = {};
  }

  look() {
    const blocked = this.context.state === "suspended";
    this.tell(!this.channel.isActivePage() ? "elsewhere" : blocked ? "blocked" : this.playing ? "playing" : "idle");
  }

  tell(state) {
    if (state !== this.state) {
      this.state = state;
      this.stream.send("state", { state });
      if (state === "elsewhere") this.post({ kind: "flush", id: 0 });
    }
    this.changed();
  }

  close() {
    this.context?.close();
    clearInterval(this.timer);
    this.abort.abort();
    this.leave?.();
    this.stream.send("state", { state: "no page" });
    this.stream.close();
  }
}

/** What the status line says. */
export function describe({ state, lead_ms, target_ms, gaps }) {
  const words = {
    starting: "Starting…",
    insecure: "No sound: the browser plays only on https or localhost pages.",
    elsewhere: "Sound plays in another tab of this notebook.",
    blocked: "The browser waits for a click before it plays sound.",
    playing: `Playing, ${(lead_ms / 1000).toFixed(1)} s more is here`,
    idle: "Ready",
  };
  const notes = [words[state]];
  if (target_ms > FIRST_MS && state !== "insecure") notes.push(`starts with ${target_ms} ms in stock: this page stalls`);
  if (gaps) notes.push(gaps === 1 ? "1 gap" : `${gaps} gaps`);
  return notes.join(" · ");
}

const ICON = "M3 6h3l4-4v12l-4-4H3z"; // a loudspeaker
const WAVES = "M12 5q2 3 0 6M14 3q4 5 0 10";
const CROSS = "M12 6l4 4M16 6l-4 4";
const STYLE = `
.rtnb-speaker { display: flex; flex-wrap: wrap; gap: 4px 10px; align-items: center; padding: 6px 8px; }
.rtnb-speaker svg { width: 18px; height: 16px; vertical-align: -3px; fill: currentColor; stroke: currentColor; }
.rtnb-speaker .rtnb-wave { fill: none; stroke-width: 1.4; }
.rtnb-speaker input[type=range] { flex: 0 1 120px; min-width: 70px; padding: 0; border: 0; accent-color: var(--rtnb-accent); }
.rtnb-speaker output { min-width: 4.5ch; text-align: end; font-variant-numeric: tabular-nums; }
.rtnb-speaker [role=status] { flex: 1 1 200px; color: var(--rtnb-faint); font-variant-numeric: tabular-nums; }
.rtnb-speaker .rtnb-allow { background: var(--rtnb-accent); color: var(--rtnb-back); border-color: transparent; font-weight: 600; }`;

function icon(muted) {
  const make = (name, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  const svg = make("svg", { viewBox: "0 0 18 16", "aria-hidden": "true" });
  svg.append(make("path", { d: ICON }), make("path", { d: muted ? CROSS : WAVES, class: "rtnb-wave" }));
  return svg;
}

export default () => {
  let player = null;
  const views = new Set();
  const changed = () => views.forEach((draw) => draw());

  async function render({ model, el, host, signal }) {
    const { exports: channel } = await host.getWidget(model.get("channel"));
    player ??= new Player(model, channel, () => changed());
    const add = (parent, name, attributes = {}) => parent.appendChild(Object.assign(document.createElement(name), attributes));
    const root = add(el, "div", { className: "rtnb rtnb-speaker" });
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", "Speaker");
    add(root, "style", { textContent: STYLE });
    const allow = add(root, "button", { className: "rtnb-allow", textContent: "Play sound", type: "button" });
    const mute = add(root, "button", { type: "button" });
    const slider = add(root, "input", { type: "range", min: 0, max: 100, step: 5, title: "Volume" });
    slider.setAttribute("aria-label", "Volume");
    const percent = add(root, "output");
    const status = add(root, "span");
    status.setAttribute("role", "status");

    const draw = () => {
      const [volume, muted] = [model.get("volume"), model.get("muted")];
      const told = describe(player);
      allow.hidden = player.state !== "blocked";
      if (status.textContent !== told) status.textContent = told;
      root.dataset.state = player.state;
      slider.value = Math.round(100 * volume);
      percent.textContent = muted ? "muted" : `${Math.round(100 * volume)} %`;
      if (mute.getAttribute("aria-pressed") !== String(muted)) {
        mute.setAttribute("aria-pressed", muted);
        mute.setAttribute("aria-label", "Mute");
        mute.title = muted ? "Unmute" : "Mute";
        mute.replaceChildren(icon(muted));
      }
    };
    const set = (name, value) => (model.set(name, value), model.save_changes());
    allow.addEventListener("click", () => player.resume());
    mute.addEventListener("click", () => set("muted", !model.get("muted")));
    slider.addEventListener("input", () => set("volume", slider.valueAsNumber / 100));
    // JupyterLab takes arrow keys for itself, in the capture phase on the document: be earlier.
    const own = (e) => e.target === slider && e.key.startsWith("Arrow") && e.stopPropagation();
    window.addEventListener("keydown", own, { capture: true, signal });
    const heard = () => {
      if (player.context) player.volume();
      changed();
    };
    model.on("change:volume", heard);
    model.on("change:muted", heard);
    views.add(draw);
    draw();
    return () => {
      views.delete(draw);
      model.off("change:volume", heard);
      model.off("change:muted", heard);
      if (!views.size) {
        player.close();
        player = null;
      }
    };
  }
  return { render };
};
