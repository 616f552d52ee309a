/**
 * The connection's state, its buttons, and a field for a key. A key leaves by message at once and stays nowhere.
 *
 * @typedef {object} State
 * @property {"closed"|"connecting"|"open"|"failed"} state
 * @property {string} target where to, without secrets
 * @property {string} dialect "ga" or "preview"
 * @property {string} noun "deployment" or "model"
 * @property {string} model
 * @property {string} session_id
 * @property {number} expires_at Unix seconds; 0 where the service did not say
 * @property {string} message what went wrong
 * @property {boolean} takes_key
 * @property {boolean} can_connect
 */

const TRAITS = ["state", "target", "dialect", "noun", "model", "session_id", "expires_at", "message", "takes_key", "can_connect"];
const WORDS = { closed: "not connected", connecting: "connecting…", open: "connected", failed: "not connected" };
const SOON_S = 60;

/** What is left of a session, as m:ss; empty where nobody knows. */
export function countdown(expires_at, now_s) {
  if (!expires_at) return "";
  const left = Math.max(0, Math.floor(expires_at - now_s));
  return `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
}

function make(tag, className, text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

function keyField(model, part) {
  const form = make("form", "rtnb-key");
  const field = make("input", "");
  Object.assign(field, { type: "password", autocomplete: "off", spellcheck: false, placeholder: "Key, if not signed in" });
  field.setAttribute("aria-label", "Key of the service");
  const use = make("button", "", "Use key");
  use.type = "submit";
  form.append(field, use);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const key = field.value;
    field.value = "";
    if (key.trim()) model.send({ kind: "key", key });
  });
  form.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation(); // what is typed here is no shortcut of JupyterLab's
  });
  part.append(form);
  return form;
}

function render({ model, el }) {
  el.classList.add("rtnb", "rtnb-connection");
  const line = make("div", "rtnb-connection-line");
  const dot = make("span", "rtnb-state");
  dot.setAttribute("role", "status");
  const dialect = make("span", "rtnb-chip");
  const name = make("span", "rtnb-mono");
  const id = make("span", "rtnb-mono rtnb-faint rtnb-cut");
  const left = make("span", "rtnb-chip");
  left.setAttribute("role", "timer");
  const button = make("button", "rtnb-connect");
  const message = make("div", "rtnb-error rtnb-message");
  message.setAttribute("role", "alert");
  line.append(dot, dialect, name, id, left, button);
  el.append(line);
  const form = keyField(model, el);
  el.append(message);

  const show = () => {
    const state = model.get("state");
    el.dataset.state = dot.dataset.state = state;
    dot.textContent = WORDS[state] ?? state;
    dialect.textContent = { ga: "GA", preview: "preview" }[model.get("dialect")] ?? "";
    dialect.title = "The dialect of the protocol that is spoken";
    name.textContent = model.get("model");
    name.title = `${model.get("noun")} at ${model.get("target")}`;
    id.textContent = id.title = state === "open" ? model.get("session_id") : model.get("target");
    button.textContent = { open: "Disconnect", connecting: "Cancel" }[state] ?? "Connect";
    button.hidden = !model.get("can_connect") && state !== "open";
    form.hidden = !model.get("takes_key") || state === "open" || state === "connecting";
    message.textContent = model.get("message");
    message.hidden = !message.textContent;
    for (const node of [dialect, name, id]) node.hidden = !node.textContent;
    tick();
  };
  const tick = () => {
    const ends = model.get("state") === "open" ? model.get("expires_at") : 0;
    left.textContent = countdown(ends, Date.now() / 1000);
    left.hidden = !ends;
    left.title = "Time until the service ends the session";
    left.classList.toggle("rtnb-error", ends - Date.now() / 1000 < SOON_S);
  };
  button.addEventListener("click", () => {
    model.send({ kind: ["open", "connecting"].includes(model.get("state")) ? "disconnect" : "connect" });
  });
  const timer = setInterval(tick, 1000);
  for (const trait of TRAITS) model.on(`change:${trait}`, show);
  show();
  return () => {
    clearInterval(timer);
    for (const trait of TRAITS) model.off(`change:${trait}`, show);
  };
}

export default { render };
