/** Capture of a microphone, or of an ipywebrtc stream, as frames; and the reasons why it fails. */
import { loadWorklet } from "./shared.js";

/** @typedef {{ pcm: Int16Array, index: number, t: number }} Frame */
/** @typedef {{ stream: MediaStream, release: () => void }} Source */
/** @typedef {{ code: string, problem: string, next_step: string }} Problem */

/** @type {Record<string, [string, string]>} */
const PROBLEMS = {
  insecure: ["The browser allows a microphone only on https and localhost pages.", "Open the notebook by https or as localhost."],
  policy: ["The page around this notebook does not allow a microphone.", "Use an audio file."],
  worklet: ["The security policy of this page (CSP) does not allow audio processing.", "Use an audio file."],
  NotAllowedError: ["The browser does not allow the microphone.", "Click the icon next to the address bar and allow the microphone."],
  NotFoundError: ["No microphone was found.", "Connect one and start again, or use an audio file."],
  NotReadableError: ["The microphone cannot be read; another program may use it.", "Close that program and start again."],
  OverconstrainedError: ["The chosen microphone is not connected.", "Choose another one."],
  ended: ["The microphone was unplugged, or the browser took it away.", "Connect it and start again."],
  hidden: ["The microphone stopped because this tab was hidden.", "Return to the tab and start again."],
  elsewhere: ["Another tab of this notebook uses the microphone.", "Start it here to take over."],
  kernel: ["The microphone is off because the kernel does not answer.", "Wait for the running cell, or restart the kernel."],
  blocked: ["The browser waits for a click before it opens the microphone.", "Click Start microphone."],
  silent: ["The source has no audio track.", "Use a stream with an audio track."],
};

/** Look up the text and the next step for an error or a code.
 * @param {any} error
 * @returns {Problem}
 */
export function explain(error) {
  const code = typeof error === "string" ? error : (error?.name ?? "Error");
  const failed = `The microphone did not start: ${error?.message ?? error}.`;
  const [problem, next_step] = PROBLEMS[code] ?? [failed, "Reload the page and start again."];
  return { code, problem, next_step };
}

/** Return the reason why this page cannot have a microphone; null where it can.
 * @returns {?Problem}
 */
export function obstacle() {
  if (!window.isSecureContext || !navigator.mediaDevices || !window.AudioWorkletNode) return explain("insecure");
  const policy = /** @type {any} */ (document).featurePolicy;
  return policy && !policy.allowsFeature("microphone") ? explain("policy") : null;
}

/** Mute the elements that show an ipywebrtc stream, now and later: they would play the microphone to the loudspeaker.
 * @param {any} widget
 * @param {AbortSignal} signal ends it
 */
export function muteViews(widget, signal) {
  const mute = async () => {
    const views = await Promise.all(Object.values(widget.views ?? {}));
    for (const element of views.flatMap((view) => [...view.el.querySelectorAll("video, audio")])) element.muted = true;
    if (widget.media) widget.media.muted = true; // of a file: it is captured all the same
  };
  mute();
  for (const event of ["loadstart", "play", "volumechange"]) {
    document.addEventListener(event, ({ target }) => /** @type {any} */ (target).muted || mute(), { capture: true, signal });
  }
}

/** Open an ipywebrtc stream; `release` frees its device.
 * @param {any} widget
 * @returns {Promise<Source>}
 */
export async function openStreamWidget(widget) {
  if ((await widget.cameraStream)?.active === false) widget.cameraStream = null; // it keeps the one that ended
  /** @type {MediaStreamTrack[]} */
  const tracks = (await widget.captureStream()).getAudioTracks();
  if (!tracks.length) throw "silent";
  if (widget.media) widget.media.muted = true;
  const release = () => widget.cameraStream && tracks.forEach((track) => track.stop());
  return { stream: new MediaStream(tracks.map((track) => track.clone())), release };
}

/** List the microphones whose labels the page may read. */
export async function listDevices() {
  const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return all.filter(({ kind, label }) => kind === "audioinput" && label);
}

/** Open a microphone.
 * @param {string} label empty: the browser's default
 * @param {MediaTrackConstraints} processing
 * @returns {Promise<Source>}
 */
export async function openDevice(label, processing) {
  const devices = await listDevices();
  const chosen = devices.find((one) => one.label === label);
  if (label && devices.length && !chosen) throw "OverconstrainedError";
  const audio = { ...processing, deviceId: chosen && { exact: chosen.deviceId } };
  // Not the page's own getUserMedia: ipywebrtc replaces that one, with an adapter that renames two of these settings to
  // names Chromium no longer knows (measured: noise suppression and gain stay off).
  return { stream: await MediaDevices.prototype.getUserMedia.call(navigator.mediaDevices, { audio }), release: () => {} };
}

/** One capture, from `open` to `close`, which ends every track. */
export class Capture {
  /** @type {?Source} */
  source = null;
  /** @type {?AudioContext} */
  context = null;
  /** @type {?AudioWorkletNode} */
  node = null;
  abort = new AbortController();

  /** @param {{ worklet: string, onFrame: (frame: Frame) => void, onEnd: (code: string) => void }} options `worklet`: its source text */
  constructor(options) {
    this.options = options;
  }

  get tracks() { return this.source?.stream.getAudioTracks() ?? []; }

  /** Start; where `close` came first, nothing stays open.
   * @param {() => Promise<Source>} openSource
   */
  async open(openSource) {
    const { signal } = this.abort;
    const { worklet, onFrame, onEnd } = this.options;
    this.source = await openSource();
    if (signal.aborted) return this.close();
    for (const track of this.tracks) track.addEventListener("ended", () => onEnd("ended"), { signal });
    this.context = new AudioContext({ latencyHint: "interactive" });
    await loadWorklet(this.context, worklet).catch(() => Promise.reject("worklet"));
    if (signal.aborted) return this.close();
    this.node = new AudioWorkletNode(this.context, "rtnb-microphone", { numberOfOutputs: 0 });
    this.node.port.onmessage = ({ data }) => signal.aborted || onFrame(data);
    this.context.createMediaStreamSource(this.source.stream).connect(this.node);
    const patience_ms = navigator.userActivation.hasBeenActive ? 10000 : 2000; // a click allows sound, but a page may be slow
    await Promise.race([this.context.resume(), new Promise((resolve) => setTimeout(resolve, patience_ms))]);
    if (this.context.state === "suspended") throw "blocked"; // a page without a click
  }

  /** Send silence: audio recorded meanwhile never enters the page. */
  gate(/** @type {boolean} */ open) {
    for (const track of this.tracks) track.enabled = open;
  }

  close() {
    this.abort.abort();
    for (const track of this.tracks) track.stop();
    this.source?.release();
    this.node?.port.postMessage("end");
    if (this.context?.state !== "closed") this.context?.close();
  }
}
