/**
 * Microphone of a page: start and stop, level, mute, push to talk; where there can be none, the capture page or an audio file.
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
 * @property {boolean} compact one row without texts
 * @property {string} stream reference to an ipywebrtc stream; empty: the device
 * @property {string} sample name of the recording that the kernel plays in place of a microphone; empty: none
 */
import { add, put, putAttribute, toggleButton, upload, watch } from "./shared.js";
import { Capture, LevelCheck, explain, listDevices, muteViews, obstacle, openDevice, openStreamWidget } from "./microphone_capture.js";

const TAIL_MS = 120; // recorded after the key goes up: the end of the last word
const WAITING_FRAMES = 75; // 1.5 s; the kernel would drop older frames
const OFF = { state: "off", code: "", problem: "", next_step: "" };
const PROCESSING = ["echo_cancellation", "noise_suppression", "auto_gain_control"];

/** One controller per widget and page, for all its views. */
class Controller {
  /** @type {?Capture} */ capture = null;
  /** @type {any} */ own = OFF; // state of this page
  /** @type {any} */ shown = { ...OFF, run: "", status: "", dropped: 0, counts: {} }; // state of the kernel
  run = "";
  held = false; // push-to-talk key or button
  peak = 0;
  warning = "";
  check = new LevelCheck();
  /** @type {any[]} */ waiting = [];
  dropped = 0;
  /** @type {string[]} */ devices = [];
  capturePage = "";
  /** @type {?{ name: string, share: number, abort: AbortController }} */ file = null;
  reported = "";
  beat = 0;
  /** @type {number | undefined} */ tail = undefined;
  abort = new AbortController();

  /**
   * @param {import("./types").Model<State>} model
   * @param {import("./types").Channel} channel
   * @param {() => void} draw
   */
  constructor(model, channel, draw) {
    this.model = model;
    this.channel = channel;
    this.draw = draw;
    const { signal } = this.abort;
    this.stream = channel.openStream(model.get("stream_name"), (kind, header) => this.onMessage(kind, header));
    const restart = () => this.capture && this.start();
    this.leave = [
      channel.onActivePage((active) => !active && this.capture && this.stop(explain(channel.status().kind === "none" ? "kernel" : "elsewhere"))),
      watch(model, [...PROCESSING, "device", "stream"], restart),
      watch(model, ["muted", "mode", "talk_key"], () => this.update()),
    ];
    document.addEventListener("visibilitychange", () => document.hidden && this.onHidden(), { signal });
    window.addEventListener("blur", () => this.hold(false), { signal });
    navigator.mediaDevices?.addEventListener("devicechange", () => this.list(), { signal });
    this.list();
    this.streamWidget().then((widget) => widget && muteViews(widget, signal));
    const problem = !model.get("sample") && obstacle();
    if (problem) this.offer(problem);
  }

  onMessage(/** @type {string} */ kind, /** @type {any} */ header) {
    if (kind === "start" && this.channel.isActivePage()) this.start();
    else if (kind === "stop") this.stop();
    else if (kind === "level") this.setLevel(header.peak);
    else if (kind === "shown") this.shown = header;
    this.draw();
  }

  async list() {
    this.devices = (await listDevices()).map(({ label }) => label);
    this.update();
  }

  /** True while this page or another one is on. */
  get on() {
    return this.own.state === "on" || (this.own.state === "off" && this.shown.state === "on" && this.shown.run !== this.run);
  }

  get talking() {
    return !this.model.get("muted") && (this.model.get("mode") === "open" || this.held);
  }

  get status() {
    const { model, own, shown } = this;
    if (own.state === "starting") return "Starting: the browser may ask for permission";
    if (own.state === "off" && this.on) return model.get("sample") ? shown.status : "The microphone is on in another tab";
    if (own.state === "off") return own.problem || shown.problem || (model.get("sample") ? `Sample: ${model.get("sample")}` : "Microphone off");
    if (model.get("muted")) return "Muted: only silence is sent";
    if (!this.talking) return `Hold the button or ${model.get("talk_key")} to talk`;
    if (this.warning === "clipping") return "Clipping: speak more softly, or move away";
    return this.warning ? "Too quiet: come closer, or choose another microphone" : "Listening";
  }

  /** Set the gate, report a changed state to the kernel, and draw. */
  update() {
    this.capture?.gate(this.talking);
    const { state, problem, next_step } = this.own;
    const rate_hz = this.capture?.context?.sampleRate ?? 0;
    const report = { run: this.run, state, status: this.status, problem, next_step, devices: this.devices, rate_hz };
    const text = JSON.stringify(report);
    if (text !== this.reported) this.stream.send("state", report);
    this.reported = text;
    this.draw();
  }

  setState(/** @type {string} */ state, /** @type {?import("./microphone_capture.js").Problem} */ problem = null) {
    this.own = { ...OFF, ...problem, state };
    this.update();
  }

  /** Start button. */
  toggle() {
    if (this.model.get("sample")) this.stream.send("toggle", { on: !this.on });
    else if (this.capture) this.stop();
    else this.start();
  }

  async start() {
    if (this.model.get("sample")) return;
    const blocked = obstacle();
    if (blocked) return this.offer(blocked);
    if (document.hidden && !this.model.get("keep_on_when_hidden")) return this.setState("off", explain("hidden"));
    const before = this.capture;
    /** @type {Capture} */
    const capture = (this.capture = new Capture({
      worklet: this.model.get("worklet"),
      onFrame: (frame) => this.capture === capture && this.onFrame(frame),
      onEnd: (code) => this.capture === capture && this.stop(explain(code)),
    }));
    before?.close();
    this.run = `${this.channel.pageId}-${Math.random().toString(36).slice(2)}`;
    Object.assign(this, { waiting: [], dropped: 0, warning: "", check: new LevelCheck() });
    this.setState("starting");
    try {
      if (!(await this.claim())) throw "elsewhere";
      await capture.open(() => this.openSource());
    } catch (error) {
      capture.close();
      if (this.capture !== capture) return;
      this.capture = null;
      const problem = explain(error);
      if (["NotAllowedError", "NotFoundError", "worklet"].includes(problem.code)) this.offer(problem);
      else this.setState("off", problem);
      return;
    }
    if (this.capture !== capture) return;
    this.setState("on");
    this.list();
  }

  /** The ipywebrtc stream widget, if there is one. */
  async streamWidget() {
    const reference = this.model.get("stream");
    return reference && /** @type {any} */ (this.model).widget_manager.get_model(reference.replace("IPY_MODEL_", ""));
  }

  async openSource() {
    if (this.model.get("stream")) return openStreamWidget(await this.streamWidget());
    const { model } = this;
    return openDevice(model.get("device"), {
      echoCancellation: model.get("echo_cancellation"),
      noiseSuppression: model.get("noise_suppression"),
      autoGainControl: model.get("auto_gain_control"),
    });
  }

  /** Become the active page, which stops the capture of any other page.
   * @returns {Promise<boolean>}
   */
  claim() {
    if (this.channel.isActivePage()) return Promise.resolve(true);
    this.channel.claimActivePage();
    return new Promise((resolve) => {
      const done = (/** @type {boolean} */ active) => {
        clearTimeout(late);
        leave();
        resolve(active);
      };
      const leave = this.channel.onActivePage((active) => active && done(true));
      const late = setTimeout(() => done(this.channel.isActivePage()), 10000); // a kernel may be busy
    });
  }

  stop(/** @type {?import("./microphone_capture.js").Problem} */ problem = null) {
    this.hold(false, 0);
    this.flush();
    const { capture } = this;
    this.capture = null;
    this.peak = 0;
    capture?.close();
    if (capture || problem) this.setState("off", problem);
  }

  onHidden() {
    this.hold(false, 0);
    if (this.capture && !this.model.get("keep_on_when_hidden")) this.stop(explain("hidden"));
  }

  /** Show why there is no microphone, and a link to the capture page.
   * @param {import("./microphone_capture.js").Problem} problem
   */
  async offer(problem) {
    this.setState("off", problem);
    const { url = "" } = await this.stream.request("capture_page", {}).catch(() => ({}));
    this.capturePage = url;
    this.draw();
  }

  /** Push-to-talk key or button. */
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
    this.warning = this.talking ? this.check.add(frame) : "";
    this.waiting.push({ ...frame, talking: this.talking });
    const messages = this.channel.status().kind === "messages";
    if (!messages || this.waiting.length >= 5) this.flush(); // a widget message costs: every 100 ms is enough
    this.setLevel(this.talking ? frame.peak : 0);
  }

  /** Send the waiting frames; where the channel is full they wait, and the oldest are dropped. */
  flush() {
    const frames = this.waiting;
    if (!frames.length) return;
    const pcm = new Int16Array(frames.reduce((n, frame) => n + frame.pcm.length, 0));
    frames.forEach((frame, i) => pcm.set(frame.pcm, i * frame.pcm.length));
    const t = this.channel.now() - (Date.now() - /** @type {any} */ (frames.at(-1)).t); // the page may have been busy since
    const talking = frames.some((frame) => frame.talking);
    if (this.stream.send("audio", { run: this.run, first: frames[0].index, t, talking }, [pcm]) !== false) this.waiting = [];
    else if (frames.length > WAITING_FRAMES) {
      this.dropped += 1;
      frames.shift();
    }
  }

  setLevel(/** @type {number} */ peak) {
    this.peak = Math.max(peak, this.peak * 0.8); // falls slowly enough to be seen
    if (this.model.get("sample")) this.draw();
    else if (++this.beat % 5 === 0) this.update(); // ten times a second
  }

  /** Send an audio file to be played in place of a microphone. */
  async send(/** @type {File} */ file) {
    const abort = new AbortController();
    this.file?.abort.abort();
    this.file = { name: file.name, share: 0, abort };
    this.draw();
    try {
      const decoded = await new OfflineAudioContext(1, 1, 24000).decodeAudioData(await file.arrayBuffer());
      const channels = Array.from({ length: decoded.numberOfChannels }, (_, i) => decoded.getChannelData(i));
      const mixed = (/** @type {number} */ i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length;
      const pcm = Int16Array.from({ length: decoded.length }, (_, i) => Math.max(-32768, Math.min(32767, mixed(i) * 32768)));
      const onProgress = (/** @type {number} */ sent, /** @type {number} */ size) => {
        if (this.file) this.file.share = sent / size;
        this.draw();
      };
      await upload(this.stream, "file", pcm.buffer, { name: file.name }, { onProgress, signal: abort.signal });
    } catch (/** @type {any} */ error) {
      const problem = `Cannot send ${file.name}: ${error.message}`;
      this.own = { state: "off", code: "file", problem: abort.signal.aborted ? "" : problem, next_step: "Choose another file." };
    }
    if (this.file?.abort === abort) this.file = null;
    this.update();
  }

  close() {
    this.stop();
    this.file?.abort.abort();
    this.abort.abort();
    this.leave.forEach((leave) => leave());
    this.stream.close();
  }
}

/** Build one view; returns the function that draws it. */
function createView(/** @type {any} */ model, /** @type {Controller} */ controller, /** @type {Element} */ el, /** @type {AbortSignal} */ signal) {
  const root = add(el, "div", { className: "rtnb rtnb-microphone", role: "group", "aria-label": "Microphone" });
  const row = add(root, "div", { className: "rtnb-row" });
  const start = add(row, "button", { type: "button", className: "rtnb-start" });
  const talk = add(row, "button", { type: "button", className: "rtnb-talk-key" });
  const meter = add(row, "div", { className: "rtnb-meter", role: "meter", "aria-label": "Level", "aria-valuemin": -60, "aria-valuemax": 0 });
  const bar = add(meter, "div");
  const mute = toggleButton(row, { className: "rtnb-mute", textContent: "Mute" }, (pressed) => {
    model.set("muted", pressed);
    model.save_changes();
  });
  const status = add(row, "span", { className: "rtnb-status", role: "status" });
  const help = add(root, "div", { className: "rtnb-row rtnb-help" });
  const hint = add(help, "span");
  const link = add(help, "a", { target: "_blank", rel: "noopener", textContent: "Open the capture page", title: "Needs a kernel on this machine" });
  const file = add(null, "input", { type: "file", accept: "audio/*,.wav" });
  const label = add(help, "label", {}, "Send an audio file instead ", file);
  const progress = add(help, "progress", { max: 1, "aria-label": "Upload" });
  const cancel = add(help, "button", { type: "button", textContent: "Cancel" });
  const counts = add(root, "div", { className: "rtnb-counts rtnb-faint" });

  start.addEventListener("click", () => controller.toggle());
  cancel.addEventListener("click", () => controller.file?.abort.abort());
  file.addEventListener("change", () => file.files[0] && controller.send(file.files[0]));
  talk.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
    talk.setPointerCapture(event.pointerId);
    controller.hold(true);
  });
  for (const name of ["pointerup", "pointercancel"]) talk.addEventListener(name, () => controller.hold(false));
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const used = event.key === model.get("talk_key") || (event.target === talk && [" ", "Enter"].includes(event.key));
    if (!used || model.get("mode") !== "push to talk" || !controller.capture) return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab listens in the capture phase on the document: be earlier
    controller.hold(event.type === "keydown");
  };
  for (const name of ["keydown", "keyup"]) window.addEventListener(name, /** @type {any} */ (onKey), { capture: true, signal });

  return () => {
    const { own, shown, on, warning } = controller;
    const [sample, compact, stopped] = [model.get("sample"), model.get("compact"), !on && own.state === "off"];
    const level = on && controller.peak ? Math.max(-60, Math.min(0, Math.round(20 * Math.log10(controller.peak)))) : -60;
    const dropped = Math.max(controller.dropped, shown.dropped);
    const problem = stopped ? own.problem || shown.problem : "";
    putAttribute(root, "data-state", stopped ? "off" : on ? "on" : "starting");
    putAttribute(root, "data-warning", problem ? "problem" : on ? warning : "");
    root.toggleAttribute("data-compact", compact);
    put(start, "textContent", sample ? (stopped ? "Play the sample recording" : "Stop") : `${stopped ? "Start" : "Stop"} microphone`);
    put(start, "title", problem || (sample || !stopped ? "" : "The browser asks for permission"));
    put(talk, "hidden", model.get("mode") !== "push to talk" || Boolean(sample));
    put(talk, "disabled", !controller.capture);
    put(talk, "textContent", controller.held ? "Talking…" : `Hold to talk (${model.get("talk_key")})`);
    putAttribute(talk, "aria-pressed", controller.held);
    putAttribute(mute, "aria-pressed", model.get("muted"));
    put(bar.style, "transform", `scaleX(${(level + 60) / 60})`);
    putAttribute(meter, "aria-valuenow", level);
    putAttribute(meter, "aria-valuetext", level > -60 ? `${level} dB` : "silent");
    put(status, "textContent", controller.status + (on && dropped ? ` · ${dropped} frames dropped` : ""));
    const blocked = ["insecure", "policy", "worklet", "NotAllowedError", "NotFoundError", "file"].includes(own.code);
    put(help, "hidden", !own.next_step && !controller.file);
    put(hint, "textContent", own.next_step);
    put(link, "hidden", !controller.capturePage);
    if (controller.capturePage) putAttribute(link, "href", controller.capturePage);
    put(label, "hidden", !blocked || Boolean(controller.file));
    for (const node of [progress, cancel]) put(node, "hidden", !controller.file);
    put(progress, "value", controller.file?.share ?? 0);
    const { captured = 0, sent = 0, late = 0, unused = 0 } = shown.counts;
    put(counts, "hidden", !captured);
    put(counts, "textContent", `20 ms frames: ${captured} captured · ${sent} sent · ${late} late · ${shown.counts.dropped} dropped · ${unused} unused`);
  };
}

export default () => {
  /** @type {?Controller} */
  let controller = null;
  /** @type {Set<() => void>} */
  const views = new Set();
  /** @param {import("./types").RenderProps<State>} props */
  async function render({ model, el, host, signal }) {
    const { exports: channel } = await host.getWidget(model.get("channel"));
    controller ??= new Controller(model, channel, () => views.forEach((draw) => draw()));
    const draw = createView(model, controller, el, signal);
    views.add(draw);
    const leave = watch(model, ["compact", "sample"], draw);
    return () => {
      views.delete(draw);
      leave();
      if (views.size) return;
      controller?.close(); // the last view is gone: so is the microphone
      controller = null;
    };
  }
  return { render };
};
