/** One WebRTC call of a page: microphone, peer connection, data channel, loudspeaker. */
import { explain, obstacle, openDevice } from "./microphone_capture.js";
import { int16, makeBuffer } from "./shared.js";

const CONNECT_MS = 15000; // from the answer to an open data channel (chosen)
const REPLY_MS = 30000; // the kernel asks the service within this (chosen)
const BACKLOG_BYTES = 2 ** 23; // Chromium closes a data channel with 16 MiB of unsent texts

/** Remove candidates whose names only this network's multicast could resolve: the service would wait for them. */
export const withoutLocalNames = (/** @type {string} */ sdp) => sdp.replace(/^a=candidate:.* \S+\.local \d+ .*\r?\n/gm, "");

/** Figures of RTCPeerConnection.getStats(); their names are the columns of `WebRTCPeer.statistics`. */
export function figures(/** @type {any} */ report) {
  const find = (/** @type {string} */ type) => [...report.values()].find((one) => one.type === type) ?? {};
  const [here, there, sent] = [find("inbound-rtp"), find("remote-inbound-rtp"), find("outbound-rtp")];
  const pair = report.get(find("transport").selectedCandidatePairId) ?? {};
  const [from, to] = [report.get(pair.localCandidateId), report.get(pair.remoteCandidateId)];
  const ms = (/** @type {number | undefined} */ seconds) => (seconds === undefined ? null : Math.round(1e6 * seconds) / 1000);
  return {
    round_trip_ms: ms(pair.currentRoundTripTime),
    jitter_ms: ms(here.jitter),
    buffer_ms: here.jitterBufferEmittedCount ? ms(here.jitterBufferDelay / here.jitterBufferEmittedCount) : null,
    concealed_ms: ms((here.concealedSamples ?? 0) / 48000),
    received: here.packetsReceived ?? 0, lost: here.packetsLost ?? 0,
    sent: sent.packetsSent ?? 0, lost_there: there.packetsLost ?? null,
    bytes_received: pair.bytesReceived ?? 0, bytes_sent: pair.bytesSent ?? 0,
    path: from && to ? `${from.candidateType} → ${to.candidateType}, ${from.protocol}` : "",
    level_here: find("media-source").audioLevel ?? 0, level_there: here.audioLevel ?? 0,
  };
}

/** Track for audio of the kernel; silent in between, because without any source nothing would be sent. */
function makeMixer(/** @type {() => void} */ changed) {
  const context = new AudioContext();
  const output = context.createMediaStreamDestination();
  const silence = new ConstantSourceNode(context, { offset: 0 });
  silence.connect(output);
  silence.start();
  context.onstatechange = changed;
  return { context, output, track: output.stream.getAudioTracks()[0] };
}

/** A call from its first to its last moment. */
export class Call {
  step = "";
  /** The browser refused to play before a click. */
  blocked = false;
  /** @type {any} */
  stats = null;
  /** @type {?MediaStreamTrack} */
  track = null;
  /** @type {?ReturnType<typeof makeMixer>} */
  mixer = null;
  timer = 0;
  began_ms = performance.now();
  ended = new AbortController();
  pc = new RTCPeerConnection();

  constructor(/** @type {number} */ number, /** @type {import("./webrtc.js").Peer} */ peer) {
    this.number = number;
    this.peer = peer;
    this.events = this.pc.createDataChannel(peer.model.get("label"));
  }

  send(/** @type {string} */ kind, /** @type {object} */ header = {}, /** @type {ArrayBuffer[]} */ buffers = []) {
    return this.peer.stream.send(kind, { call: this.number, ...header }, buffers);
  }

  async request(/** @type {string} */ kind, /** @type {object} */ header = {}) {
    const reply = await this.peer.stream.request(kind, { call: this.number, ...header }, { timeout_ms: REPLY_MS });
    if (reply.failed) throw new Error("the kernel ended the call");
    return reply;
  }

  at(/** @type {string} */ step) {
    this.step = step;
    this.send("step", { step });
    this.peer.draw();
  }

  /** Open the call; a failure ends it with the name of its reason. */
  async run() {
    const { pc, peer } = this;
    try {
      this.track = peer.model.get("microphone") ? await this.openMicrophone() : (this.mixer = makeMixer(peer.draw)).track;
      if (this.ended.signal.aborted) return this.track.stop();
      this.sender = pc.addTrack(this.track);
      this.listen();
      const offer = await pc.createOffer();
      await pc.setLocalDescription(offer);
      this.at("the service's answer to the offer");
      const { sdp } = await this.exchange(withoutLocalNames(offer.sdp ?? ""));
      this.at("a network path to the service");
      await pc.setRemoteDescription({ type: "answer", sdp });
      this.timer = setTimeout(() => this.end("no-path"), CONNECT_MS);
    } catch (/** @type {any} */ error) {
      this.end("page", error.problem ? error : { problem: `The browser refused: ${error.name} (${error.message})` });
    }
  }

  async openMicrophone() {
    this.at("permission to use the microphone");
    const problem = obstacle();
    if (problem) throw problem;
    const { stream } = await openDevice("", {}).catch((error) => Promise.reject(explain(error)));
    const [track] = stream.getAudioTracks();
    track.enabled = !this.peer.model.get("muted");
    track.onended = () => this.end("page", explain("ended"));
    return track;
  }

  listen() {
    const { pc, events, peer } = this;
    pc.ontrack = ({ track }) => {
      peer.audio.srcObject = new MediaStream([track]);
      this.play();
    };
    pc.onconnectionstatechange = () => pc.connectionState === "failed" && this.end(events.readyState === "open" ? "ice" : "no-path");
    events.onopen = () => {
      clearTimeout(this.timer);
      this.timer = setInterval(() => this.measure(), 250);
      this.send("open", { largest_bytes: Math.min(pc.sctp?.maxMessageSize ?? 0, Number.MAX_SAFE_INTEGER) });
    };
    events.onmessage = ({ data }) => {
      const bytes = typeof data === "string" ? new TextEncoder().encode(data).buffer : data;
      if (this.send("event", {}, [bytes]) === false) this.end("backlog");
    };
    events.onclose = () => this.end("channel");
    const options = { signal: this.ended.signal, capture: true };
    for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, () => this.unblock(), options);
  }

  /** Post the offer with the key, which lives in this function alone. Without a key, or without access, the kernel posts. */
  async exchange(/** @type {string} */ sdp) {
    const { key, url } = await this.request("key");
    const signal = AbortSignal.any([this.ended.signal, AbortSignal.timeout(REPLY_MS)]);
    const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/sdp" };
    /** @type {RequestInit} */
    const post = { method: "POST", body: sdp, headers, signal, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer" };
    const answer = key ? await fetch(url, post).catch(() => null) : null; // browsers name no reason
    this.ended.signal.throwIfAborted();
    if (!answer) return this.request("offer", { sdp });
    return this.request("answered", { url, status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text() });
  }

  async play() {
    this.blocked = await this.peer.audio.play().then(() => false, (/** @type {Error} */ error) => error.name === "NotAllowedError");
    this.peer.draw();
  }

  /** After a click or a key the browser lets sound through. */
  unblock() {
    this.mixer?.context.resume();
    if (this.blocked) this.play();
  }

  /** Pass an event on to the service. */
  sendEvent(/** @type {DataView} */ data) {
    if (this.events.bufferedAmount + data.byteLength > BACKLOG_BYTES) this.end("backlog");
    else if (this.events.readyState === "open") this.events.send(new TextDecoder().decode(data));
  }

  /** Play 16-bit samples of the kernel in place of the microphone. */
  async playTrack(/** @type {number} */ id, /** @type {DataView} */ data) {
    const { context, output, track } = (this.mixer ??= makeMixer(this.peer.draw));
    const source = new AudioBufferSourceNode(context, { buffer: makeBuffer(context, int16(data)) });
    source.connect(output);
    await this.sender?.replaceTrack(track);
    source.onended = async () => {
      if (!this.ended.signal.aborted) await this.sender?.replaceTrack(this.track);
      this.send("played", { id });
    };
    source.start();
  }

  async measure() {
    const time_s = Math.floor((performance.now() - this.began_ms) / 1000);
    const stats = { time_s, ...figures(await this.pc.getStats()) };
    if (this.ended.signal.aborted) return;
    if (time_s !== this.stats?.time_s) this.send("figures", { figures: stats });
    this.stats = stats;
    this.peer.draw();
  }

  /** End for a reason that the kernel words, or (why: "page") for a problem of this page. */
  end(/** @type {string} */ why, problem = {}) {
    if (!this.ended.signal.aborted) this.send("ended", { why, ...problem });
    this.close();
  }

  /** Close everything; the kernel learns when that is done. */
  close() {
    if (this.ended.signal.aborted) return;
    this.ended.abort();
    this.peer.call = null;
    clearTimeout(this.timer);
    for (const track of [this.track, this.mixer?.track]) track?.stop();
    this.pc.close();
    this.mixer?.context.close();
    this.peer.audio.srcObject = null;
    this.send("released");
    this.peer.draw();
  }
}
