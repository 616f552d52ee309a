/** One call: microphone, peer connection, data channel, loudspeaker. Stands before webrtc.js, in one module with it. */

const STANDS_MS = 15000; // from the answer to a connection
const ANSWER_MS = 30000; // the kernel asks the service within this
const LOOK_MS = 250;

/** Names only this network's multicast could resolve: the service would wait for them in vain. */
export const withoutLocalNames = (sdp) => sdp.replace(/^a=candidate:.* \S+\.local \d+ .*\r?\n/gm, "");

/** What matters of RTCPeerConnection.getStats(). */
export function figures(report) {
  const all = [...report.values()];
  const find = (type, more = () => true) => all.find((one) => one.type === type && more(one)) ?? {};
  const pair = find("candidate-pair", (one) => one.id === find("transport").selectedCandidatePairId);
  const [here, there, sent] = [find("inbound-rtp"), find("remote-inbound-rtp"), find("outbound-rtp")];
  const ms = (seconds) => (seconds === undefined ? null : Math.round(1e6 * seconds) / 1000);
  const local = find("local-candidate", (one) => one.id === pair.localCandidateId);
  const remote = find("remote-candidate", (one) => one.id === pair.remoteCandidateId);
  return {
    round_trip_ms: ms(pair.currentRoundTripTime),
    jitter_ms: ms(here.jitter),
    buffer_ms: here.jitterBufferEmittedCount ? ms(here.jitterBufferDelay / here.jitterBufferEmittedCount) : null,
    received: here.packetsReceived ?? 0,
    lost: here.packetsLost ?? 0,
    lost_there: there.packetsLost ?? null,
    concealed_ms: ms((here.concealedSamples ?? 0) / 48000),
    bytes_received: pair.bytesReceived ?? 0,
    bytes_sent: pair.bytesSent ?? 0,
    sent: sent.packetsSent ?? 0,
    path: local.candidateType ? `${local.candidateType} → ${remote.candidateType}, ${local.protocol}` : "",
    level_here: find("media-source").audioLevel ?? 0,
    level_there: here.audioLevel ?? 0,
  };
}

/** A call from its first to its last moment; `changed` is called whenever there is something new to show. */
export class Call {
  constructor({ number, model, stream, audio, changed }) {
    Object.assign(this, { number, model, stream, audio, changed, step: "", over: false, blocked: false, stats: null, looks: 0 });
    this.abort = new AbortController();
    this.began = performance.now();
  }

  tell(kind, header = {}, buffers = []) {
    this.stream.send(kind, { call: this.number, ...header }, buffers);
  }

  at(step) {
    this.step = step;
    this.tell("step", { step });
    this.changed();
  }

  /** Bring it up; what goes wrong ends it with a word for the reason. */
  async run() {
    try {
      if (!window.RTCPeerConnection) throw new Refused("no-webrtc");
      const track = await this.source();
      if (this.over) return track.stop();
      this.connect(track);
      const offer = await this.pc.createOffer();
      await this.pc.setLocalDescription(offer);
      this.at("the service's answer to the offer");
      const sdp = await this.exchange(withoutLocalNames(offer.sdp));
      if (sdp === undefined || this.over) return this.close(); // the kernel knows why
      this.at("a way to the service");
      await this.pc.setRemoteDescription({ type: "answer", sdp });
      this.late = setTimeout(() => this.end("no-path"), STANDS_MS);
    } catch (error) {
      this.end(error instanceof Refused ? error.message : error.name, error instanceof Refused ? "" : error.message);
    }
  }

  async source() {
    if (!this.model.get("microphone")) return (this.track = this.mixer().stream.getAudioTracks()[0]);
    this.at("permission to use the microphone");
    if (!navigator.mediaDevices?.getUserMedia) throw new Refused("insecure");
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true } });
    this.track = stream.getAudioTracks()[0];
    this.track.onended = () => this.end("unplugged");
    this.mute();
    return this.track;
  }

  /** Where audio of the kernel becomes a track; between, it is silent: without any source nothing would be sent. */
  mixer() {
    if (this.output) return this.output;
    this.context = new AudioContext();
    this.output = this.context.createMediaStreamDestination();
    const silence = new ConstantSourceNode(this.context, { offset: 0 });
    silence.connect(this.output);
    silence.start();
    this.context.onstatechange = () => this.look();
    return this.output;
  }

  connect(track) {
    const pc = (this.pc = new RTCPeerConnection());
    this.sender = pc.addTrack(track);
    pc.ontrack = ({ track: remote }) => {
      this.audio.srcObject = new MediaStream([remote]);
      this.play();
    };
    pc.onconnectionstatechange = () => {
      if (pc.connectionState === "connected") clearTimeout(this.late);
      if (pc.connectionState === "failed") this.end(this.opened ? "ice" : "no-path");
      this.changed();
    };
    pc.oniceconnectionstatechange = () => this.changed();
    const events = (this.events = pc.createDataChannel(this.model.get("label")));
    events.onopen = () => {
      this.opened = true;
      clearTimeout(this.late);
      this.tell("open", { largest_bytes: Math.min(pc.sctp?.maxMessageSize ?? 0, Number.MAX_SAFE_INTEGER) });
      this.timer = setInterval(() => this.measure(), LOOK_MS);
      this.changed();
    };
    events.onmessage = ({ data }) => this.tell("event", {}, [typeof data === "string" ? new TextEncoder().encode(data) : data]);
    events.onclose = () => this.end("channel");
  }

  /** Post the offer with the key, which lives in this function alone; where the page may not, the kernel does it. */
  async exchange(sdp) {
    let why = "wanted";
    if (!this.model.get("through_kernel")) {
      const { key, url } = await this.ask("key");
      if (key === undefined) return undefined;
      const signal = AbortSignal.any([this.abort.signal, AbortSignal.timeout(ANSWER_MS)]);
      const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/sdp" };
      let answer = null;
      try {
        answer = await fetch(url, { method: "POST", body: sdp, headers, signal, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer" });
      } catch (error) {
        if (this.over) return undefined;
        why = "cors"; // browsers do not say why they could not
      }
      if (answer) return (await this.ask("answered", { url, status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text() })).sdp;
    }
    return (await this.ask("offer", { sdp, why })).sdp;
  }

  ask(kind, header = {}) {
    return this.stream.request(kind, { call: this.number, ...header }, { timeout_ms: ANSWER_MS });
  }

  async play() {
    try {
      await this.audio.play();
      this.blocked = false;
    } catch (error) {
      this.blocked = error.name === "NotAllowedError";
    }
    this.look();
  }

  /** A click: the browser now lets sound out (and in, where the kernel's audio takes the microphone's place). */
  unblock() {
    this.context?.resume();
    if (this.blocked && !this.over) this.play();
  }

  look() {
    this.waits = this.blocked || this.context?.state === "suspended";
    this.changed();
  }

  mute() {
    if (this.model.get("microphone") && this.track) this.track.enabled = !this.model.get("muted");
  }

  send(data) {
    if (this.events?.readyState === "open") this.events.send(data);
  }

  /** Say what the kernel sends, in place of the microphone. */
  async speak(id, pcm) {
    const samples = Float32Array.from(new Int16Array(pcm), (value) => value / 32768);
    const output = this.mixer();
    const buffer = this.context.createBuffer(1, Math.max(1, samples.length), 24000);
    buffer.copyToChannel(samples, 0);
    const node = new AudioBufferSourceNode(this.context, { buffer });
    node.connect(output);
    const [stand_in] = output.stream.getAudioTracks();
    if (this.track !== stand_in) await this.sender.replaceTrack(stand_in);
    node.onended = async () => {
      if (this.over) return;
      if (this.track !== stand_in) await this.sender.replaceTrack(this.track);
      this.tell("said", { id });
    };
    node.start();
  }

  async measure() {
    const stats = figures(await this.pc.getStats());
    if (this.over) return;
    this.stats = stats;
    const { level_here, level_there, ...figured } = stats;
    const time_s = Math.round(performance.now() - this.began) / 1000;
    if (this.looks++ % 4 === 0) this.tell("stats", { figures: { time_s, ...figured } });
    this.changed();
  }

  end(why, detail = "") {
    if (this.over) return;
    this.tell("ended", { why, detail });
    this.close();
  }

  /** Let go of everything; the kernel hears that it is done. */
  close() {
    if (this.over) return;
    this.over = true;
    clearTimeout(this.late);
    clearInterval(this.timer);
    this.abort.abort();
    if (this.events) this.events.onclose = null;
    this.track?.stop();
    this.output?.stream.getTracks().forEach((track) => track.stop());
    this.events?.close();
    this.pc?.close();
    this.context?.close();
    this.audio.srcObject = null;
    this.tell("released");
    this.changed();
  }
}

/** Something the kernel has words for. */
class Refused extends Error {}
