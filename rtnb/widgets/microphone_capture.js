/** From a microphone, or a stream of another widget, to frames; stands before microphone.js, in one module with it. */

/** Why there is no sound: a code, the words, and what to do. */
export function explain(error, { secure = true, allowed = true } = {}) {
  const known = {
    insecure: ["This page may not use a microphone: browsers allow it only on https and localhost pages.", "Open the notebook by https or as localhost."],
    policy: ["The page around this notebook does not let it use a microphone.", "Use the capture page or a file below."],
    NotAllowedError: ["The browser was not allowed to use the microphone.", "Allow it by the sign beside the address, and start again."],
    NotFoundError: ["There is no microphone.", "Plug one in and start again, or use a file below."],
    NotReadableError: ["The microphone cannot be read: another program may hold it.", "Close that program and start again."],
    OverconstrainedError: ["The chosen microphone is not there.", "Choose another one."],
    ended: ["The microphone was unplugged, or the browser took it away.", "Plug it in and start again."],
    hidden: ["The microphone is off because this tab was hidden.", "Come back to the tab and start again."],
    elsewhere: ["Another tab of this notebook has the microphone.", "Start it there, or press Start here."],
    kernel: ["The microphone is off because the kernel does not answer.", "Restart it, and run the cell again."],
    blocked: ["The browser waits for a click before it listens.", "Press Start."],
    silent: ["The source has no sound.", "Take a stream with an audio track."],
  };
  const code = !secure ? "insecure" : !allowed ? "policy" : typeof error === "string" ? error : (error?.name ?? "Error");
  const [text, hint] = known[code] ?? [`The microphone did not start: ${error?.message ?? error}.`, "Reload the page and start again."];
  return { code, text, hint };
}

/** Whether this page can have a microphone at all; else why not. */
export function obstacle(env = window) {
  if (!env.isSecureContext || !env.navigator.mediaDevices || !env.AudioWorkletNode) return explain("", { secure: false });
  const policy = env.document.permissionsPolicy ?? env.document.featurePolicy;
  if (policy && !policy.allowsFeature("microphone")) return explain("", { allowed: false });
  return null;
}

/** What the last two seconds sounded like: "clipping", "too quiet" or nothing. */
export class Judge {
  constructor() {
    this.frames = [];
  }
  note(frame) {
    this.frames.push(frame);
    if (this.frames.length > 100) this.frames.shift();
    if (this.frames.reduce((sum, { clipped }) => sum + clipped, 0) >= 10) return "clipping";
    const loudest = Math.max(...this.frames.map(({ power }) => power));
    return this.frames.length === 100 && loudest < 1e-5 ? "too quiet" : ""; // −50 dBFS: speech at a fair level has −30
  }
}

/** Elements that show an ipywebrtc stream would play it: an echo of who speaks. Mutes them, now and later, until `signal` ends. */
export function noEcho(widget, signal) {
  const mute = async () => {
    for (const view of await Promise.all(Object.values(widget.views ?? {}))) {
      view.el.querySelectorAll("video, audio").forEach((element) => (element.muted = true));
    }
    if (widget.media) widget.media.muted = true; // of a file: it is captured all the same
  };
  mute();
  for (const event of ["loadstart", "play", "volumechange"]) {
    document.addEventListener(event, ({ target }) => target.muted || mute(), { capture: true, signal });
  }
}

/** The sound of an ipywebrtc stream; `release` lets go of its device. */
export async function streamOf(widget) {
  let stream = await widget.captureStream();
  const live = () => stream.getAudioTracks().filter((track) => track.readyState === "live");
  if (!live().length && widget.cameraStream) {
    widget.cameraStream = null; // it keeps the one that ended
    stream = await widget.captureStream();
  }
  const tracks = live();
  if (!tracks.length) throw "silent";
  if (widget.media) widget.media.muted = true;
  const own = new MediaStream(tracks.map((track) => track.clone()));
  return { stream: own, release: () => widget.cameraStream && tracks.forEach((track) => track.stop()) };
}

/** The devices to choose from. */
export async function inputs() {
  const all = await navigator.mediaDevices.enumerateDevices();
  return all.filter((device) => device.kind === "audioinput" && device.label);
}

/** The device's own sound. */
export async function device(label, processing) {
  const found = label ? (await inputs()).find((one) => one.label === label) : null;
  const deviceId = found ? { exact: found.deviceId } : undefined;
  if (label && !found && (await inputs()).length) throw "OverconstrainedError";
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { ...processing, channelCount: 1, deviceId }, video: false });
  return { stream, release: () => {} };
}

/** One stretch of capturing: from `open` to `close`, which ends every track. */
export class Capture {
  constructor({ worklet, onFrame, onEnd }) {
    Object.assign(this, { worklet, onFrame, onEnd });
    this.abort = new AbortController();
  }

  /** `get()` resolves to {stream, release}; where `close` came first, nothing stays open. */
  async open(get) {
    const got = await get();
    this.release = got.release;
    this.tracks = got.stream.getAudioTracks();
    if (this.abort.signal.aborted) return this.end();
    for (const track of this.tracks) track.addEventListener("ended", () => this.onEnd("ended"), { signal: this.abort.signal });
    this.context = new AudioContext({ latencyHint: "interactive" });
    const url = URL.createObjectURL(new Blob([this.worklet], { type: "text/javascript" }));
    await this.context.audioWorklet.addModule(url);
    URL.revokeObjectURL(url);
    if (this.abort.signal.aborted) return this.end();
    this.node = new AudioWorkletNode(this.context, "rtnb-microphone", { channelCount: 1, channelCountMode: "explicit", numberOfOutputs: 0 });
    this.node.port.onmessage = ({ data }) => this.abort.signal.aborted || this.onFrame(data);
    this.context.createMediaStreamSource(got.stream).connect(this.node);
    const patience_ms = navigator.userActivation?.hasBeenActive ? 10000 : 2000; // a click allows sound, but a page may be slow
    await Promise.race([this.context.resume(), new Promise((resolve) => setTimeout(resolve, patience_ms))]);
    if (this.context.state === "suspended") throw "blocked"; // a page nobody clicked
  }

  get label() {
    return this.tracks?.[0]?.label ?? "";
  }

  /** Silence at the source: what is said meanwhile never gets into the page. */
  gate(open) {
    for (const track of this.tracks ?? []) track.enabled = open;
  }

  close() {
    this.abort.abort();
    this.end();
  }

  end() {
    for (const track of this.tracks ?? []) track.stop();
    this.release?.();
    this.node?.port.postMessage("end");
    if (this.context && this.context.state !== "closed") this.context.close();
  }
}
