/**
 * Microphone of a page: start and stop, level, mute, push to talk; where there can be none, an audio file.
 * Messages: see microphone.py.
 *
 * @typedef {object} State
 * @property {string} channel reference to the page's channel
 * @property {string} stream_name name of its stream
 * @property {string} worklet text of microphone_worklet.js
 * @property {string} mode "open" or "push to talk"
 * @property {string} talk_key push-to-talk key, as KeyboardEvent.key
 * @property {boolean} muted
 * @property {string} device label of the chosen device; empty: the browser's default
 * @property {boolean} echo_cancellation
 * @property {boolean} noise_suppression
 * @property {boolean} auto_gain_control
 * @property {boolean} keep_on_when_hidden
 * @property {string} stream reference to an ipywebrtc stream; empty: the device
 * @property {string} sample name of the recording that the kernel plays in place of a microphone; empty: none
 */
import { shareViews, watch } from "./shared.js";
import { Capture, explain, listDevices, muteViews, obstacle, openDevice, openStreamWidget } from "./microphone_capture.js";
import { createView, formatStatus } from "./microphone_view.js";

const TAIL_MS = 120; // recorded after the key goes up: the end of the last word
const WAITING_FRAMES = 75; // 1.5 s; the kernel would drop older frames
const PROCESSING = ["echo_cancellation", "noise_suppression", "auto_gain_control"];
const SILENT = { peak: 0, clipped: 0, quiet: 0, warning: "" };
const OFF = { state: "off", code: "", problem: "", next_step: "" };

/** @typedef {import("./microphone_capture.js").Problem} Problem */

/** One controller per widget and page, for all its views. */
class Controller {
  /** @type {?Capture} */
  capture = null;
  own = OFF; // state of this page
  shown = { run: "", state: "off", status: "", problem: "", dropped: 0 }; // state of the kernel
  run = "";
  held = false; // push-to-talk key or button
  level = SILENT;
  /** @type {any[]} */
  waiting = []; // frames
  dropped = 0;
  /** @type {string[]} */
  devices = [];
  uploadStatus = "";
  reported = "";
  /** @type {any} */
  tail = null;

  /** @param {import("./types").SharedProps<State>} props */
  constructor({ model, channel, draw, signal }) {
    this.model = model;
    this.channel = channel;
    this.draw = draw;
    signal.addEventListener("abort", () => this.stop());
    this.stream = channel.openStream(model.get("stream_name"), (kind, header) => this.onMessage(kind, header), signal);
    const leave = () => this.capture && this.stop(explain(channel.kind === "none" ? "kernel" : "elsewhere"));
    channel.addEventListener("left", leave, { signal });
    watch(model, [...PROCESSING, "device", "stream"], () => this.capture && this.start(), signal);
    watch(model, ["muted", "mode", "talk_key", "sample"], () => this.update(), signal);
    document.addEventListener("visibilitychange", () => this.onHidden(), { signal });
    window.addEventListener("blur", () => this.hold(false), { signal });
    navigator.mediaDevices?.addEventListener("devicechange", () => this.list(), { signal });
    this.list();
    this.streamWidget().then((widget) => widget && muteViews(widget, signal));
    const problem = !model.get("sample") && obstacle();
    if (problem) this.setState("off", problem);
  }

  onMessage(/** @type {string} */ kind, /** @type {any} */ header) {
    if (kind === "start" && this.channel.isActivePage()) this.start(header.settings);
    else if (kind === "stop") this.stop();
    else if (kind === "level") this.level = { ...SILENT, peak: Math.max(header.peak, 0.8 * this.level.peak) };
    else if (kind === "shown") this.shown = header;
    this.draw();
  }

  async list() {
    this.devices = (await listDevices()).map(({ label }) => label);
    this.update();
  }

  get talking() { return !this.model.get("muted") && (this.model.get("mode") === "open" || this.held); }

  /** State of the microphone on whichever page. */
  get state() { return this.own.state === "off" && this.shown.run !== this.run ? this.shown.state : this.own.state; }

  /** Set the gate, report a change to the kernel, and draw. */
  update() {
    this.capture?.gate(this.talking);
    const { state, problem, next_step } = this.own;
    const rate_hz = this.capture?.context?.sampleRate ?? 0;
    const report = { run: this.run, state, status: formatStatus(this), problem, next_step, devices: this.devices, rate_hz };
    const text = JSON.stringify(report);
    if (text !== this.reported && this.stream.send("state", report)) this.reported = text;
    this.draw();
  }

  setState(/** @type {string} */ state, /** @type {?Problem} */ problem = null) {
    this.own = { ...OFF, ...problem, state };
    this.reported = ""; // the kernel may wait for it again
    this.update();
  }

  /** Handle the start button. */
  toggle() {
    if (this.model.get("sample")) this.stream.send("toggle", { on: this.state === "off" });
    else if (this.capture) this.stop();
    else this.start();
  }

  /** @param {Object<string, any>} settings of the kernel, which their own messages may reach later than this one */
  async start(settings = {}) {
    Object.entries(settings).forEach(([name, value]) => /** @type {any} */ (this.model).set(name, value));
    if (this.model.get("sample")) return;
    const problem = obstacle() ?? (document.hidden && !this.model.get("keep_on_when_hidden") ? explain("hidden") : null);
    if (problem) return this.setState("off", problem);
    this.capture?.close();
    /** @type {Capture} */
    const capture = new Capture({
      worklet: this.model.get("worklet"),
      onFrame: (frame) => this.capture === capture && this.onFrame(frame),
      onEnd: (code) => this.capture === capture && this.stop(explain(code)),
    });
    this.capture = capture;
    this.run = `${this.channel.pageId}-${Math.random().toString(36).slice(2)}`;
    Object.assign(this, { waiting: [], dropped: 0, level: SILENT });
    this.setState("starting");
    try {
      await this.channel.claimActivePage().catch(() => Promise.reject("kernel")); // stops the capture of any other page
      await capture.open(() => this.openSource());
      if (this.capture === capture) this.setState("on");
      this.list();
    } catch (error) {
      if (this.capture === capture) this.stop(explain(error));
    }
  }

  /** Get the ipywebrtc stream widget, if there is one. */
  async streamWidget() {
    const reference = this.model.get("stream");
    return reference && /** @type {any} */ (this.model).widget_manager.get_model(reference.replace("IPY_MODEL_", ""));
  }

  async openSource() {
    if (this.model.get("stream")) return openStreamWidget(await this.streamWidget());
    const [echoCancellation, noiseSuppression, autoGainControl] = PROCESSING.map((name) => /** @type {any} */ (this.model).get(name));
    return openDevice(this.model.get("device"), { echoCancellation, noiseSuppression, autoGainControl });
  }

  stop(/** @type {?Problem} */ problem = null) {
    this.hold(false, 0);
    this.flush();
    const { capture } = this;
    this.capture = null;
    this.level = SILENT;
    capture?.close();
    if (capture || problem) this.setState("off", problem);
  }

  onHidden() {
    if (!document.hidden) return;
    this.hold(false, 0);
    if (this.capture && !this.model.get("keep_on_when_hidden")) this.stop(explain("hidden"));
  }

  /** Press or release the push-to-talk key or button. */
  hold(/** @type {boolean} */ on, tail_ms = TAIL_MS) {
    clearTimeout(this.tail);
    if (on === this.held) return;
    const change = () => {
      this.flush();
      this.held = on;
      this.stream.send("talk", { run: this.run, on });
      this.update();
    };
    if (on || !tail_ms) change();
    else this.tail = setTimeout(change, tail_ms);
  }

  onFrame(/** @type {import("./microphone_capture.js").Frame} */ frame) {
    if (!this.talking) frame.pcm.fill(0); // recorded before the gate closed
    this.waiting.push({ ...frame, talking: this.talking });
    if (this.waiting.length > WAITING_FRAMES) this.dropped += this.waiting.splice(0, 1).length;
    if (this.channel.kind !== "messages" || this.waiting.length >= 5) this.flush(); // a widget message costs: every 100 ms is enough
    this.level = this.talking ? this.measure(frame.pcm) : SILENT;
    if (frame.index % 5 === 0) this.update();
  }

  /** Measure the level; the peak falls slowly enough to be seen, and a warning needs two seconds. */
  measure(/** @type {Int16Array} */ pcm) {
    const sizes = Float32Array.from(pcm, (value) => Math.abs(value) / 32768);
    const peak = Math.max(...sizes, 0.8 * this.level.peak);
    const clipped = sizes.filter((size) => size > 0.999).length + 0.98 * this.level.clipped;
    const power = sizes.reduce((sum, size) => sum + size * size, 0) / sizes.length;
    const quiet = power < 1e-5 ? this.level.quiet + 1 : 0; // −50 dBFS: speech at a fair level has −30
    return { peak, clipped, quiet, warning: clipped >= 10 ? "clipping" : quiet >= 100 ? "too quiet" : "" };
  }

  /** Send the waiting frames; while the channel is full they go on waiting. */
  flush() {
    const frames = this.waiting;
    if (!frames.length || this.own.state !== "on") return;
    const pcm = new Int16Array(frames.length * frames[0].pcm.length);
    frames.forEach((frame, i) => pcm.set(frame.pcm, i * frame.pcm.length));
    const t = this.channel.now() - (Date.now() - frames.at(-1).t); // this thread may have been busy since
    const facts = { run: this.run, first: frames[0].index, frames: frames.length, t, talking: frames.some((frame) => frame.talking) };
    if (this.stream.send("audio", facts, [pcm])) this.waiting = [];
  }

  /** Show how the upload of an audio file goes, which is played in place of a microphone. */
  onUpload(/** @type {string} */ text, isOver = false) {
    this.uploadStatus = isOver ? "" : text;
    this.own = isOver && text ? { ...OFF, problem: text, next_step: "Choose another file." } : OFF;
    this.draw();
  }
}

export default shareViews((/** @type {import("./types").SharedProps<State>} */ props) => new Controller(props), createView);
