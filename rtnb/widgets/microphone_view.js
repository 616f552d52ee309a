/** Look of the microphone: one row, and below it the next step where something is wrong. */
import { add, put, putAttribute, toggleButton } from "./shared.js";
import { hasNoMicrophone } from "./microphone_capture.js";

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

/** Set properties and attributes where they change. */
function set(/** @type {any} */ node, /** @type {Record<string, any>} */ values) {
  for (const [name, value] of Object.entries(values)) (name in node ? put : putAttribute)(node, name, value);
}

/**
 * Build one view.
 * @param {any} model
 * @param {any} controller
 * @param {Element} el
 * @param {AbortSignal} signal ends it
 * @returns {() => void} draws it
 */
export function createView(model, controller, el, signal) {
  const root = add(el, "div", { className: "rtnb rtnb-microphone", role: "group", "aria-label": "Microphone" });
  const row = add(root, "div", { className: "rtnb-row" });
  const start = add(row, "button", { type: "button", className: "rtnb-start", onclick: () => controller.toggle() });
  const talk = add(row, "button", { type: "button", className: "rtnb-talk-key" });
  talk.onpointerup = talk.onpointercancel = () => controller.hold(false);
  talk.onpointerdown = (/** @type {PointerEvent} */ event) => {
    talk.setPointerCapture(event.pointerId);
    controller.hold(true);
  };
  const meter = add(row, "div", { className: "rtnb-meter", role: "meter", "aria-label": "Level" });
  const bar = add(meter, "div");
  set(meter, { "aria-valuemin": -60, "aria-valuemax": 0, "aria-valuenow": -60 }); // axe refuses a meter without a value
  const mute = toggleButton(row, { className: "rtnb-mute", textContent: "Mute" }, (pressed) => {
    model.set("muted", pressed);
    model.save_changes();
  });
  const status = add(row, "span", { className: "rtnb-status", role: "status" });
  const help = add(root, "div", { className: "rtnb-row rtnb-help" });
  const step = add(help, "span");
  const link = add(help, "a", { target: "_blank", rel: "noopener", textContent: "Open the capture page", title: "Needs a kernel on this machine" });
  const input = add(help, "input", { type: "file", accept: "audio/*,.wav", hidden: true });
  input.onchange = () => input.files[0] && controller.send(input.files[0]);
  const onChoose = () => (controller.upload ? controller.upload.abort() : input.click());
  const choose = add(help, "button", { type: "button", onclick: onChoose });

  const onKey = (/** @type {any} */ event) => {
    const used = event.key === model.get("talk_key") || (event.target === talk && [" ", "Enter"].includes(event.key));
    if (!used || model.get("mode") !== "push to talk" || !controller.capture) return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab listens in the capture phase on the document: be earlier
    controller.hold(event.type === "keydown");
  };
  for (const name of ["keydown", "keyup"]) window.addEventListener(name, onKey, { capture: true, signal });

  const drawRow = (/** @type {boolean} */ off, /** @type {string} */ problem) => {
    const { held, shown, capture } = controller;
    const { peak } = controller.level;
    const sample = Boolean(model.get("sample"));
    const label = capture ? "Stop microphone" : "Start microphone"; // also takes it over from another page
    const level = !off && peak ? Math.max(-60, Math.min(0, Math.round(20 * Math.log10(peak)))) : -60;
    const dropped = Math.max(controller.dropped, shown.dropped);
    set(start, { textContent: !sample ? label : off ? "Play the sample recording" : "Stop" });
    set(start, { title: problem || (capture || sample ? "" : "The browser asks for permission") });
    set(talk, { hidden: sample || model.get("mode") !== "push to talk", disabled: !capture, "aria-pressed": held });
    set(talk, { textContent: held ? "Talking…" : `Hold to talk (${model.get("talk_key")})` });
    set(mute, { "aria-pressed": model.get("muted") });
    put(bar.style, "transform", `scaleX(${(level + 60) / 60})`);
    set(meter, { "aria-valuenow": level, "aria-valuetext": level > -60 ? `${level} dB` : "silent" });
    set(status, { textContent: ((!off && problem) || formatStatus(controller)) + (!off && dropped ? ` · ${dropped} frames dropped` : "") });
  };
  return () => {
    const { own, shown, state, upload: sending } = controller;
    const problem = (state === "off" && own.problem) || shown.problem;
    set(root, { "data-state": state, "data-warning": problem ? "problem" : controller.level.warning, "data-compact": model.get("compact") });
    set(root, { "data-sample": Boolean(model.get("sample")) });
    drawRow(state === "off", problem);
    set(help, { hidden: !own.next_step && !sending });
    set(step, { textContent: own.next_step });
    set(link, { hidden: !controller.capturePage, href: controller.capturePage });
    set(choose, { hidden: !sending && !hasNoMicrophone(own), textContent: sending ? "Cancel" : "Send an audio file instead…" });
  };
}
