/**
 * Time axis of a session: waveforms of both sides, speech turns, responses and the playback position.
 *
 * Kernel to page: reset {bin_ms}, bins {lane, index} [int16 min/max pairs], marks {marks, now_ms, cursor: [at_ms, until_ms] or null}.
 * Page to kernel: play {start_ms, length_ms} → {held_from_ms} [PCM16 at 24 kHz].
 *
 * @typedef {object} State
 * @property {string} channel reference to the page's channel
 * @property {string} stream_name name of its stream
 * @property {?number} selected_ms the selected moment
 * @property {number} height_px height of the whole widget
 * @typedef {import("./waveform_recording.js").Paper} Paper
 */
import { ClipPlayer, TimeCanvas, add, axis, button, clock, int16, onChannel, put, save, toggleButton, watch } from "./shared.js";
import { Recording, moment, paintMarks } from "./waveform_recording.js";

const LEFT = 54; // px for the names of the lanes
const TICKS = 26; // px above the lanes; the tools stand there, too
const SPEECH = 26; // px of the lane with turns and responses
const FOOTER = 20;
const KEYS = "Arrow keys select a moment, Enter plays from there, plus and minus zoom.";

class View extends TimeCanvas {
  recording = new Recording();
  left = LEFT;
  follow = true;
  note = "";
  timer = 0;
  /** @type {?number} */
  hover_ms = null;
  /** @type {?ClipPlayer} */
  player = null;

  /** @param {import("./types").ViewProps<State>} props */
  constructor({ model, el, channel, signal }) {
    const root = add(el, "div", { className: "rtnb rtnb-waveform", role: "group", "aria-label": "Time axis" });
    const slider = { role: "slider", "aria-description": KEYS, "aria-valuemin": 0 };
    super(root, model.get("height_px") - FOOTER, "Moment of the session", signal, slider);
    this.model = model;
    this.signal = signal;
    this.stream = channel.openStream(model.get("stream_name"), (...message) => this.onMessage(...message), signal);
    const tools = add(root, "div", { className: "rtnb-tools" });
    this.play = button(tools, "▶", () => this.toggle(), { title: "Play from the selected moment, or stop (Enter)" });
    button(tools, "−", () => this.zoom(2), { title: "Zoom out", "aria-label": "Zoom out" });
    button(tools, "+", () => this.zoom(0.5), { title: "Zoom in", "aria-label": "Zoom in" });
    this.live = toggleButton(tools, "Live", (follow) => Object.assign(this, { follow }).draw(), { title: "Follow the newest moment" });
    const footer = add(root, "div", { className: "rtnb-footer" });
    for (const name of ["turn", "response", "cut short"]) add(footer, "span", { className: "rtnb-legend", textContent: name });
    this.readout = add(footer, "span", { className: "rtnb-readout" });
    this.canvas.onpointerleave = () => this.hover(null);
    this.canvas.ondblclick = ({ offsetX }) => this.playFrom(this.timeAt(offsetX));
    watch(model, ["selected_ms", "height_px"], () => this.onTraits(), signal);
    signal.addEventListener("abort", () => clearTimeout(this.timer));
  }

  get moment_ms() { return this.model.get("selected_ms") ?? this.start_ms; }

  go(/** @type {?number} */ ms) { this.pick(ms); }

  enter() { this.toggle(); }

  hover(/** @type {?number} */ ms) {
    this.hover_ms = ms;
    this.draw();
  }

  get longest_ms() { return Math.max(60000, this.recording.end_ms); }

  /** Take changed traits over: the height, and the selected moment, which comes into view. */
  onTraits() {
    this.setHeight(this.model.get("height_px") - FOOTER);
    const ms = this.model.get("selected_ms");
    if (ms === null || (ms >= this.start_ms && ms <= this.start_ms + this.span_ms)) return;
    this.follow = false;
    this.look(ms - this.span_ms / 2);
  }

  pick(/** @type {?number} */ ms) {
    this.note = "";
    save(this.model, { selected_ms: ms === null ? null : Math.min(Math.max(0, ms), this.recording.end_ms) });
    this.draw();
  }

  toggle() {
    if (this.player?.clip) this.player.stop();
    else this.playFrom(this.model.get("selected_ms") ?? this.start_ms);
  }

  playFrom(/** @type {number} */ ms) {
    this.player ??= new ClipPlayer(this.signal, () => this.draw()); // a click or a key came first, so the browser lets it play
    this.player.stop();
    const start_ms = Math.max(0, ms);
    const clip = this.stream.request("play", { start_ms, length_ms: 60_000 });
    clip.then((reply) => this.onClip(start_ms, reply), ({ message }) => (this.note = message)).then(() => this.draw());
  }

  /** @type {import("./types").OnMessage} */
  onMessage(...message) {
    this.recording.take(...message);
    this.draw();
  }

  onClip(/** @type {number} */ start_ms, /** @type {any} */ { held_from_ms, buffers }) {
    const [gone, pcm] = [start_ms < held_from_ms, int16(buffers[0])];
    this.note = gone ? `The audio before ${clock(held_from_ms)} is no longer held.` : pcm.length ? "" : "No audio after this moment.";
    this.player?.play(pcm, start_ms);
  }

  paint(/** @type {import("./shared.js").Drawing} */ { g, width, color }) {
    const { height, recording, player, ms_per_px: px } = this;
    const newest_ms = Math.max(0, (recording.cursor_ms ?? recording.now_ms) - 0.9 * this.span_ms);
    const start_ms = Math.round((this.follow ? newest_ms : this.start_ms) / px) * px;
    Object.assign(this, { start_ms }); // whole pixels: the columns stay as they are while they move
    const x = (/** @type {number} */ ms) => LEFT + (ms - this.start_ms) / px;
    const paper = { g, width, color, x };
    const room = (height - TICKS - SPEECH) / 2;
    axis(g, this, { left: LEFT, right: width, labelsTo: width - 130, top: 4, height, line: color("grid"), text: color("faint") });
    this.paintLane(paper, "you", TICKS, room);
    this.paintLane(paper, "model", TICKS + room, room);
    paintMarks(paper, recording, { lane: TICKS + room, room, bars: height - SPEECH + 4 });
    g.clearRect(0, 0, LEFT, height);
    g.fillStyle = color("text");
    ["You", "Model", "Speech"].forEach((name, i) => g.fillText(name, 0, 4 + (i < 2 ? TICKS + (i + 0.5) * room : height - SPEECH / 2)));
    const line = (/** @type {?number} */ ms, /** @type {string} */ name, w = 2) => {
      g.fillStyle = color(name);
      if (ms !== null && x(ms) >= LEFT) g.fillRect(x(ms) - w / 2, TICKS - 6, w, height);
    };
    const cursor_ms = player?.position_ms ?? recording.cursor_ms;
    line(this.hover_ms, "faint", 1);
    line(this.model.get("selected_ms"), "text");
    line(cursor_ms, "bad");
    this.describe(cursor_ms);
    clearTimeout(this.timer);
    const moves = cursor_ms !== null && cursor_ms !== recording.cursor?.[1]; // paint again where it has moved by a pixel
    if (moves) this.timer = setTimeout(() => this.draw(), Math.min(px, 100));
  }

  /** @type {(paper: Paper, name: "you" | "model", top: number, height: number) => void} */
  paintLane({ g, color, width }, name, top, height) {
    const { lanes, bin_ms } = this.recording;
    const middle = top + height / 2;
    const scale = (height / 2 - 1) / Math.max(lanes[name].peak, 1600); // as loud as the loudest so far, at most 20 times
    g.fillStyle = color(name);
    lanes[name].columns(this.start_ms / bin_ms, this.ms_per_px / bin_ms, width - LEFT, (i, low, high) => {
      if (low || high) g.fillRect(LEFT + i, middle - high * scale, 1, Math.max(1, (high - low) * scale));
    });
    g.fillRect(LEFT, middle - 0.25, width, 0.5);
  }

  describe(/** @type {?number} */ cursor_ms) {
    const { canvas, recording } = this;
    const selected = this.model.get("selected_ms");
    const words = (/** @type {number} */ ms) => [clock(ms, 2), moment(recording, ms)].filter(Boolean).join(" · ");
    const ms = this.hover_ms ?? cursor_ms ?? selected ?? recording.now_ms;
    put(this.readout, { textContent: this.note || words(Math.min(Math.max(0, ms), recording.end_ms)) });
    const plays = Boolean(this.player?.clip);
    put(this.play, { textContent: plays ? "■" : "▶", "aria-label": plays ? "Stop" : "Play" });
    put(this.live, { "aria-pressed": this.follow });
    const value = { "aria-valuemax": Math.round(recording.end_ms), "aria-valuenow": Math.round(selected ?? 0) };
    put(canvas, { ...value, "aria-valuetext": selected === null ? "no moment selected" : words(selected) });
  }
}

export default onChannel((/** @type {import("./types").ViewProps<State>} */ props) => void new View(props));
