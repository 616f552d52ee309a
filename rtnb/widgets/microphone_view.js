/** Look of the microphone: one row, and below it the next step where something is wrong. */
import { add, button, fileButton, levelMeter, put, save, toggleButton } from "./shared.js";

/** @type {Record<string, string>} */
const WARNINGS = {
  clipping: "Clipping: speak more softly, or move away",
  "too quiet": "Too quiet: come closer, or choose another microphone",
};

/** Format the state of the microphone as one line. */
export function formatStatus(/** @type {any} */ { model, own, shown, state, talking, level, uploadStatus }) {
  if (uploadStatus) return uploadStatus;
  if (own.state === "starting") return "Starting: the browser may ask for permission";
  if (own.state === "off" && state !== "off") return model.get("sample") ? shown.status : "The microphone is on in another tab";
  if (own.state === "off") return own.problem || shown.problem || "Microphone off";
  if (model.get("muted")) return "Muted: only silence is sent";
  if (!talking) return `Hold the button or ${model.get("talk_key")} to talk`;
  return WARNINGS[level.warning] ?? "Listening";
}

/**
 * Build one view.
 * @param {import("./types").ViewProps<any>} props
 * @param {any} controller
 * @returns {() => void} draws it
 */
export function createView({ model, el, signal }, controller) {
  const root = add(el, "div", { className: "rtnb rtnb-microphone", role: "group", "aria-label": "Microphone" });
  const row = add(root, "div", { className: "rtnb-row" });
  const start = button(row, "", () => controller.toggle(), { className: "rtnb-start" });
  const talk = button(row, "", () => {}, { className: "rtnb-talk-key" });
  talk.onpointerup = talk.onpointercancel = () => controller.hold(false);
  talk.onpointerdown = (/** @type {PointerEvent} */ event) => {
    talk.setPointerCapture(event.pointerId);
    controller.hold(true);
  };
  const meter = levelMeter(row, "Level");
  const mute = toggleButton(row, "Mute", (muted) => save(model, { muted }), { className: "rtnb-mute" });
  const status = add(row, "span", { className: "rtnb-status", role: "status" });
  const help = add(root, "div", { className: "rtnb-row rtnb-help" });
  const step = add(help, "span");
  const { choose, isSending } = fileButton(help, controller.stream, "file", signal, (text, failed) => {
    controller.onUpload(text, failed !== undefined);
  });

  const onKey = (/** @type {any} */ event) => {
    const used = event.key === model.get("talk_key") || (event.target === talk && [" ", "Enter"].includes(event.key));
    if (!used || model.get("mode") !== "push to talk" || !controller.capture) return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab listens in the capture phase on the document: be earlier
    controller.hold(event.type === "keydown");
  };
  for (const name of ["keydown", "keyup"]) window.addEventListener(name, onKey, { capture: true, signal });

  const drawRow = (/** @type {boolean} */ off, /** @type {string} */ problem) => {
    const { held, shown, capture, level } = controller;
    const sample = Boolean(model.get("sample"));
    const label = capture ? "Stop microphone" : "Start microphone"; // also takes it over from another page
    const dropped = off ? 0 : Math.max(controller.dropped, shown.dropped);
    const title = problem || (capture || sample ? "" : "The browser asks for permission");
    put(start, { textContent: !sample ? label : off ? "Play the sample recording" : "Stop", title });
    put(talk, { hidden: sample || model.get("mode") !== "push to talk", disabled: !capture, "aria-pressed": held });
    put(talk, { textContent: held ? "Talking…" : `Hold to talk (${model.get("talk_key")})` });
    put(mute, { "aria-pressed": model.get("muted") });
    meter(off ? 0 : level.peak);
    put(status, { textContent: ((!off && problem) || formatStatus(controller)) + (dropped ? ` · ${dropped} frames dropped` : "") });
  };
  return () => {
    const { own, shown, state } = controller, sending = isSending();
    const problem = (state === "off" && own.problem) || shown.problem;
    put(root, { "data-state": state, "data-warning": problem ? "problem" : controller.level.warning });
    put(root, { "data-sample": Boolean(model.get("sample")) });
    drawRow(state === "off", problem);
    put(help, { hidden: !own.next_step && !sending });
    put(step, { textContent: own.next_step });
    put(choose, { hidden: !sending && !own.problem, textContent: sending ? "Cancel" : "Send an audio file instead…" });
  };
}
