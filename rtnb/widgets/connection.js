/**
 * The state of the connection, its button, and a field for a key. A key leaves by message at once and stays nowhere.
 *
 * @typedef {object} State
 * @property {"closed"|"connecting"|"open"|"failed"} state
 * @property {string} target address, without secrets
 * @property {string} dialect "ga" or "preview"
 * @property {string} noun "deployment" or "model"
 * @property {string} model
 * @property {string} transport "WebSocket" or "WebRTC"
 * @property {string} session_id
 * @property {number} expires_at Unix seconds; 0 if unknown
 * @property {string} usage turns, tokens and cost
 * @property {string} message the last problem
 * @property {boolean} takes_key
 * @property {boolean} can_connect
 */
import { add, button, clock, put, watch } from "./shared.js";

const TRAITS = ["state", "target", "dialect", "noun", "model", "transport", "session_id", "expires_at", "usage", "message", "takes_key", "can_connect"];
const STATES = { closed: "Not connected", connecting: "Connecting…", open: "Connected", failed: "Not connected" };
/** @type {Record<string, string>} */
const DIALECTS = { ga: "GA", preview: "Preview" };
const SOON_MS = 60_000;

/** @param {import("./types").Model<State>} model */
function keyField(model, /** @type {Element} */ line) {
  const form = add(line, "form", { className: "rtnb-key" });
  const field = add(form, "input", { type: "password", autocomplete: "off", placeholder: "API key", "aria-label": "API key of the service" });
  add(form, "button", { type: "submit", textContent: "Use key" });
  form.onsubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (field.value.trim()) model.send({ kind: "key", key: field.value });
    field.value = "";
  };
  return form;
}

/** @param {import("./types").RenderProps<State>} props */
function render({ model, el, signal }) {
  const root = add(el, "section", { className: "rtnb rtnb-connection", "aria-label": "Connection" });
  const line = add(root, "div", { className: "rtnb-connection-line" });
  const dot = add(line, "b", { className: "rtnb-state", role: "status" });
  const target = add(line, "span", { className: "rtnb-connection-target" });
  const form = keyField(model, line);
  const left = add(line, "span", { role: "timer", title: "Time until the service ends the session" });
  const usage = add(line, "span", { className: "rtnb-usage", title: "Of this session. The cost is an estimate: the service bills on its own meters." });
  const connect = button(line, "", () => {
    model.send({ kind: ["open", "connecting"].includes(model.get("state")) ? "disconnect" : "connect" });
  }, { className: "rtnb-connect" });
  const message = add(root, "div", { className: "rtnb-error rtnb-message", role: "alert" });

  const tick = () => {
    const left_ms = 1000 * model.get("expires_at") - Date.now();
    const hidden = model.get("state") !== "open" || !model.get("expires_at");
    put(left, { textContent: `${clock(Math.floor(left_ms / 1000) * 1000)} left`, hidden });
    left.classList.toggle("rtnb-error", left_ms < SOON_MS);
  };
  watch(model, TRAITS, () => {
    const state = model.get("state");
    const isOpen = state === "open";
    put(root, { "data-state": state });
    put(dot, { "data-state": state, textContent: STATES[state] ?? state });
    const facts = [model.get("model"), DIALECTS[model.get("dialect")], model.get("transport")];
    const title = [`${model.get("noun")} at ${model.get("target")}`, model.get("session_id")].filter(Boolean).join("\n");
    put(target, { textContent: facts.filter(Boolean).join(" · "), title });
    put(usage, { textContent: model.get("usage") });
    const action = isOpen ? "Disconnect" : state === "connecting" ? "Cancel" : "Connect";
    put(connect, { textContent: action, hidden: !model.get("can_connect") && !isOpen });
    put(form, { hidden: !model.get("takes_key") || isOpen || state === "connecting" });
    put(message, { textContent: model.get("message"), hidden: !model.get("message") });
    tick();
  }, signal);
  const timer = setInterval(tick, 1000);
  signal.addEventListener("abort", () => clearInterval(timer));
}

export default { render };
