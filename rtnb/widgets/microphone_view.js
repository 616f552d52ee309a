/** What a microphone looks like; stands before microphone.js, in one module with it. */

const SWITCHES = { echo_cancellation: "Echo cancellation", noise_suppression: "Noise suppression", auto_gain_control: "Automatic gain" };

/** The level in words and as 0 … 1: the meter shows −60 to 0 dB. */
export function level(peak) {
  const db = 20 * Math.log10(Math.max(peak, 1e-3));
  return { share: Math.round(((db + 60) / 60) * 50) / 50, words: peak ? `${Math.round(db)} dB` : "silent" };
}

/** The status line. */
export function describe({ own, shown, level: heard, judged, talking, model }) {
  const on = own.state === "on" || shown.state === "on";
  if (own.state === "starting") return "Starting… the browser may ask for permission";
  if (shown.state === "on" && own.state !== "on") return shown.text || "Listening on another page";
  if (own.text) return own.text;
  if (!on) return shown.text || "The microphone is off";
  if (model.get("muted")) return "Muted: only silence leaves the page";
  if (!talking) return `Hold the button or ${model.get("talk_key")} to talk`;
  if (judged === "clipping") return "Clipping: speak softer, or further away";
  if (judged === "too quiet") return "Too quiet: come closer, or choose another microphone";
  return "Listening";
}

export function view(model, controller, el, signal) {
  const make = (parent, tag, attributes = {}) => {
    const node = parent.appendChild(document.createElement(tag));
    for (const [name, value] of Object.entries(attributes)) {
      if (name in node) node[name] = value;
      else node.setAttribute(name, value);
    }
    return node;
  };
  const root = make(el, "div", { className: "rtnb rtnb-microphone", role: "group", "aria-label": "Microphone" });
  const row = () => make(root, "div", { className: "rtnb-row" });
  const top = row();
  const fold = make(root, "details");
  make(fold, "summary", { textContent: "Device and processing", className: "rtnb-faint" });
  const [knobs, other] = [make(fold, "div", { className: "rtnb-row" }), row()];
  const toggle = make(top, "button", { type: "button", className: "rtnb-start" });
  const talk = make(top, "button", { type: "button", className: "rtnb-talk-key" });
  const mute = make(top, "button", { type: "button", textContent: "Mute" });
  const meter = make(top, "div", { className: "rtnb-meter", role: "meter", "aria-label": "Level", "aria-valuemin": "-60", "aria-valuemax": "0" });
  const bar = make(meter, "div");
  const status = make(top, "span", { className: "rtnb-status", role: "status" });
  const label = (parent, text) => make(parent, "label", { textContent: text });
  const devices = make(label(knobs, "Device "), "select", { "aria-label": "Device" });
  const mode = make(top, "select", { "aria-label": "Mode" });
  for (const value of ["open", "push to talk"]) make(mode, "option", { value, textContent: value === "open" ? "open microphone" : value });
  const switches = Object.entries(SWITCHES).map(([name, text]) => {
    const box = make(knobs, "label");
    const input = make(box, "input", { type: "checkbox" });
    box.append(` ${text}`);
    input.addEventListener("change", () => set(name, input.checked));
    return [name, input];
  });
  const hint = make(other, "span", { className: "rtnb-hint" });
  const popout = make(other, "a", { target: "_blank", rel: "noopener", textContent: "Open the capture page (where the kernel runs on this machine)" });
  const file = make(label(other, "File to say instead "), "input", { type: "file", accept: "audio/*,.wav" });
  const counts = make(root, "div", { className: "rtnb-counts rtnb-faint" });

  const set = (name, value) => (model.set(name, value), model.save_changes());
  toggle.addEventListener("click", () => controller.toggle());
  mute.addEventListener("click", () => set("muted", !model.get("muted")));
  devices.addEventListener("change", () => set("device", devices.value));
  mode.addEventListener("change", () => set("mode", mode.value));
  file.addEventListener("change", () => file.files[0] && controller.send(file.files[0]));
  talk.addEventListener("pointerdown", (e) => (talk.setPointerCapture(e.pointerId), controller.hold(true)));
  for (const name of ["pointerup", "pointercancel"]) talk.addEventListener(name, () => controller.hold(false));
  const key = (e) => {
    const own = e.key === model.get("talk_key") || (e.target === talk && (e.key === " " || e.key === "Enter"));
    if (!own || model.get("mode") !== "push to talk" || !controller.capture) return;
    e.preventDefault();
    e.stopPropagation(); // JupyterLab takes some keys for itself, in the capture phase on the document: be earlier
    controller.hold(e.type === "keydown");
  };
  for (const name of ["keydown", "keyup"]) window.addEventListener(name, key, { capture: true, signal });

  const put = (node, name, value) => node[name] !== value && (node[name] = value); // a change repaints the page
  const attribute = (node, name, value) => node.getAttribute(name) !== String(value) && node.setAttribute(name, value);
  let listed = null;
  function choices() {
    const labels = [...new Set([model.get("device"), ...controller.devices.map((one) => one.label)])].filter(Boolean);
    if (listed !== labels.join()) {
      listed = labels.join();
      devices.replaceChildren();
      make(devices, "option", { value: "", textContent: "the browser's choice" });
      for (const value of labels) make(devices, "option", { value, textContent: value });
    }
    put(devices, "value", model.get("device"));
  }
  return function draw() {
    const { own, shown, talking } = controller;
    const standIn = model.get("stand_in");
    const on = own.state === "on" || shown.state === "on";
    const stopped = !controller.capture && !(standIn && on);
    attribute(root, "data-state", own.state === "off" ? shown.state : own.state);
    attribute(root, "data-hint", on ? controller.judged : own.text ? "problem" : "");
    put(toggle, "textContent", stopped ? (standIn ? "Play the stand-in" : "Start") : "Stop");
    attribute(toggle, "aria-pressed", !stopped);
    put(talk, "hidden", model.get("mode") !== "push to talk");
    put(talk, "disabled", !controller.capture);
    put(talk, "textContent", controller.held ? "Talking…" : `Hold to talk (${model.get("talk_key")})`);
    attribute(talk, "aria-pressed", controller.held);
    attribute(mute, "aria-pressed", model.get("muted"));
    put(mute, "textContent", model.get("muted") ? "Unmute" : "Mute");
    const { share, words } = level(on && talking ? (controller.level?.peak ?? 0) : 0);
    const scale = `scaleX(${share})`;
    if (bar.style.transform !== scale) bar.style.transform = scale;
    attribute(meter, "aria-valuetext", words);
    const told = describe(controller);
    put(status, "textContent", standIn && !on ? `No microphone: ${standIn} stands in` : told);
    put(fold, "hidden", Boolean(standIn));
    put(mode, "hidden", Boolean(standIn));
    choices();
    put(devices.parentElement, "hidden", Boolean(model.get("stream")));
    put(mode, "value", model.get("mode"));
    for (const [name, input] of switches) {
      put(input, "checked", model.get(name));
      put(input.parentElement, "hidden", Boolean(model.get("stream")));
    }
    const stuck = ["insecure", "policy", "NotAllowedError", "NotFoundError", "file"].includes(own.code);
    put(other, "hidden", !own.hint);
    put(hint, "textContent", own.hint);
    put(popout, "hidden", !controller.popout);
    if (controller.popout) attribute(popout, "href", controller.popout);
    put(file.parentElement, "hidden", !stuck);
    const { captured = 0, sent = 0, late = 0, dropped = 0, lost = 0, unused = 0 } = controller.counts;
    put(counts, "hidden", !captured);
    put(counts, "textContent", `20 ms frames: captured ${captured} · sent ${sent} · late ${late} · dropped ${dropped + lost} · not used ${unused}`);
  };
}
