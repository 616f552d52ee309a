/**
 * The microphone of a page: start and stop, level, mute, push to talk, devices; where there can be none, other ways.
 *
 * @typedef {object} State
 * @property {string} channel reference to the page's stream
 * @property {string} stream_name name of its stream
 * @property {string} worklet the text of microphone_worklet.js
 * @property {string} mode "open" or "push to talk"
 * @property {string} talk_key the key to hold, as KeyboardEvent.key
 * @property {boolean} muted
 * @property {string} device label of the chosen device; empty: the browser's choice
 * @property {boolean} echo_cancellation
 * @property {boolean} noise_suppression
 * @property {boolean} auto_gain_control
 * @property {boolean} keep_on_when_hidden
 * @property {string} stream reference of an ipywebrtc stream; empty: the device
 * @property {string} stand_in what plays in place of a microphone; empty: nothing does
 *
 * Page to kernel: state {run, state, code, text, hint, label, devices, rate_hz}, sound {run, first, frames, t, talk, hint}
 * [PCM16 at 24 kHz], talk {run, on}, want {on}, file {name, first, more} [bytes], popout {} (answered {url}).
 * Kernel to page: start {}, stop {}, counts {…}, shown {run, state, text, hint}, level {peak, power, clipped}.
 */
import { Capture, Judge, device, explain, inputs, noEcho, obstacle, streamOf } from "./microphone_capture.js";
import { level, view } from "./microphone_view.js";

const KNOBS = ["echo_cancellation", "noise_suppression", "auto_gain_control"];
const TAIL_MS = 120; // after the key goes up: the end of the last word
const OFF = { state: "off", code: "", text: "", hint: "" };

/** One controller per widget and page, however many views it has. */
class Controller {
  constructor(model, channel, changed) {
    Object.assign(this, { model, channel, changed, own: OFF, shown: OFF, counts: {}, capture: null, run: "", held: false });
    Object.assign(this, { level: null, judged: "", waiting: [], devices: [], popout: "" });
    this.abort = new AbortController();
    const { signal } = this.abort;
    this.stream = channel.openStream(model.get("stream_name"), (kind, header) => this.take(kind, header));
    this.leave = channel.onActivePage((mine) => !mine && this.capture && this.stop(explain(channel.status().kind === "none" ? "kernel" : "elsewhere")));
    document.addEventListener("visibilitychange", () => document.hidden && this.hidden(), { signal });
    window.addEventListener("blur", () => this.hold(false), { signal });
    navigator.mediaDevices?.addEventListener("devicechange", () => this.list(), { signal });
    this.restart = () => this.capture && this.start();
    this.heard = () => (this.gate(), changed());
    for (const name of [...KNOBS, "device", "stream"]) model.on(`change:${name}`, this.restart);
    for (const name of ["muted", "mode"]) model.on(`change:${name}`, this.heard);
    this.list();
    this.widget().then((widget) => widget && noEcho(widget, signal));
    const problem = !model.get("stand_in") && obstacle();
    if (problem) this.offer(problem);
  }

  take(kind, header) {
    if (kind === "start" && this.channel.isActivePage()) this.start();
    else if (kind === "stop") this.stop();
    else if (kind === "level") this.hear(header);
    else if (kind === "counts") this.counts = header;
    else if (kind === "shown") this.shown = header.run === this.run ? OFF : header;
    this.changed();
  }

  async list() {
    this.devices = navigator.mediaDevices?.enumerateDevices ? await inputs() : [];
    this.changed();
  }

  /** A person pressed Start or Stop. */
  async toggle() {
    if (this.model.get("stand_in")) return this.stream.send("want", { on: this.shown.state === "off" });
    if (this.capture) return this.stop();
    await this.start();
  }

  async start() {
    if (this.model.get("stand_in")) return;
    const blocked = obstacle();
    if (blocked) return this.offer(blocked);
    if (document.hidden && !this.model.get("keep_on_when_hidden")) return this.tell("off", explain("hidden"));
    const before = this.capture;
    const capture = new Capture({
      worklet: this.model.get("worklet"),
      onFrame: (frame) => this.capture === capture && this.frame(frame),
      onEnd: (code) => this.capture === capture && this.stop(explain(code)),
    });
    this.capture = capture;
    before?.close();
    this.run = `${this.channel.pageId}-${Math.random().toString(36).slice(2)}`;
    this.waiting = [];
    this.judge = new Judge();
    this.judged = "";
    this.tell("starting");
    try {
      if (!(await this.mine())) throw "elsewhere";
      await capture.open(() => this.source());
    } catch (error) {
      capture.close();
      if (this.capture === capture) {
        this.capture = null;
        const problem = explain(error);
        if (problem.code === "NotAllowedError") this.offer(problem); // some pages refuse without asking anybody
        else this.tell("off", problem);
      }
      return;
    }
    if (this.capture !== capture) return;
    this.gate();
    this.tell("on");
    this.list();
  }

  /** The ipywebrtc stream to hear, if there is one. */
  async widget() {
    const reference = this.model.get("stream");
    return reference && this.model.widget_manager.get_model(reference.replace("IPY_MODEL_", ""));
  }

  async source() {
    if (this.model.get("stream")) return streamOf(await this.widget());
    const [echoCancellation, noiseSuppression, autoGainControl] = KNOBS.map((name) => this.model.get(name));
    return device(this.model.get("device"), { echoCancellation, noiseSuppression, autoGainControl });
  }

  /** Whether this page may capture; asks for it, and the other page lets go. */
  mine() {
    if (this.channel.isActivePage()) return true;
    this.channel.claimActivePage();
    return new Promise((resolve) => {
      const done = (mine) => {
        clearTimeout(late);
        leave();
        resolve(mine);
      };
      const leave = this.channel.onActivePage((mine) => mine && done(true));
      const late = setTimeout(() => done(this.channel.isActivePage()), 10000); // a kernel may be busy
    });
  }

  stop(problem = null) {
    this.hold(false, 0);
    this.flush();
    const { capture } = this;
    this.capture = this.level = null;
    this.judged = "";
    capture?.close();
    if (capture || problem) this.tell("off", problem);
  }

  hidden() {
    this.hold(false, 0);
    if (this.capture && !this.model.get("keep_on_when_hidden")) this.stop(explain("hidden"));
  }

  tell(state, problem = null) {
    this.own = { ...OFF, ...problem, state };
    const rate_hz = this.capture?.context?.sampleRate ?? 0;
    const devices = this.devices.map(({ label }) => label);
    this.stream.send("state", { ...this.own, run: this.run, label: this.capture?.label ?? "", devices, rate_hz });
    this.changed();
  }

  /** There can be no microphone here: say why, and offer what can be done. */
  async offer(problem) {
    this.tell("off", problem);
    this.popout = (await this.stream.request("popout", {}).catch(() => ({}))).url ?? "";
    this.changed();
  }

  // --- sound
  get talking() {
    return !this.model.get("muted") && (this.model.get("mode") === "open" || this.held);
  }

  gate() {
    this.capture?.gate(this.talking);
  }

  hold(on, tail_ms = TAIL_MS) {
    clearTimeout(this.tail);
    if (on === this.held) return;
    const change = () => {
      this.flush();
      this.held = on;
      this.gate();
      this.stream.send("talk", { run: this.run, on });
      this.changed();
    };
    if (on || !tail_ms) change();
    else this.tail = setTimeout(change, tail_ms);
  }

  frame(frame) {
    if (!this.talking) frame.pcm.fill(0); // what was on its way when the gate closed
    this.waiting.push(frame);
    const { kind } = this.channel.status();
    if (kind !== "messages" || this.waiting.length >= 5) this.flush(); // a widget message costs: every 100 ms is enough
    this.hear(frame);
  }

  flush() {
    const frames = this.waiting;
    if (!frames.length) return;
    this.waiting = [];
    const pcm = new Int16Array(frames.length * frames[0].pcm.length);
    frames.forEach((frame, i) => pcm.set(frame.pcm, i * frame.pcm.length));
    const facts = { run: this.run, first: frames[0].index, frames: frames.length, t: frames.at(-1).t, talk: this.talking };
    this.stream.send("sound", { ...facts, hint: this.judged }, [pcm]);
  }

  hear(frame) {
    this.judge ??= new Judge();
    this.judged = this.talking ? this.judge.note(frame) : "";
    const peak = Math.max(frame.peak, (this.level?.peak ?? 0) * 0.8); // falls slowly enough to be seen
    this.level = { peak, clipped: frame.clipped > 0 };
    this.beat = (this.beat ?? 0) + 1;
    if (this.beat % 5 === 0) this.changed(); // ten times a second
  }

  async send(file) {
    try {
      const decoded = await new OfflineAudioContext(1, 1, 24000).decodeAudioData(await file.arrayBuffer());
      const pcm = Int16Array.from(decoded.getChannelData(0), (value) => Math.max(-32768, Math.min(32767, value * 32768)));
      const size = 1 << 19;
      for (let at = 0; at < pcm.length; at += size) {
        this.stream.send("file", { name: file.name, first: at === 0, more: at + size < pcm.length }, [pcm.slice(at, at + size)]);
      }
    } catch (error) {
      this.own = { ...OFF, code: "file", text: `${file.name} cannot be read: ${error.message}`, hint: "Take another file." };
      this.changed();
    }
  }

  close() {
    this.stop();
    this.abort.abort();
    this.leave();
    for (const name of [...KNOBS, "device", "stream"]) this.model.off(`change:${name}`, this.restart);
    for (const name of ["muted", "mode"]) this.model.off(`change:${name}`, this.heard);
    this.stream.close();
  }
}

export default () => {
  let controller = null;
  const views = new Set();
  const changed = () => views.forEach((draw) => draw());
  async function render({ model, el, host, signal }) {
    const { exports: channel } = await host.getWidget(model.get("channel"));
    controller ??= new Controller(model, channel, changed);
    const draw = view(model, controller, el, signal);
    views.add(draw);
    draw();
    const traits = ["muted", "mode", "talk_key", "device", "stand_in", "stream", ...KNOBS];
    for (const name of traits) model.on(`change:${name}`, draw);
    return () => {
      views.delete(draw);
      for (const name of traits) model.off(`change:${name}`, draw);
      if (!views.size) controller = controller.close() ?? null; // the last view is gone: so is the microphone
    };
  }
  return { render };
};
