/**
 * Capture page: the notebook's channel and microphone on a separate page, with a hand-made model. See microphone.py.
 */
const facts = JSON.parse(document.querySelector("#facts")?.textContent ?? "");
const { traits } = facts;
const load = (/** @type {string} */ text) => import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
const [{ PageChannel }, { default: widget }] = await Promise.all([facts.channel, facts.microphone].map(load));
const el = /** @type {HTMLElement} */ (document.querySelector("#widget"));
const noMessages = { on() {}, off() {}, send() {} }; // the page got the kernel's welcome in advance
const channel = new PageChannel(noMessages, { pageId: facts.page, offer: facts.offer });

const { signal } = new AbortController();
const changes = new EventTarget();
const model = {
  get: (/** @type {string} */ name) => traits[name],
  set(/** @type {string} */ name, /** @type {any} */ value) {
    if (traits[name] === value) return;
    traits[name] = value;
    changes.dispatchEvent(new Event(`change:${name}`));
  },
  save_changes: () => stream.send("traits", traits),
  on: (/** @type {string} */ name, /** @type {() => void} */ fn) => changes.addEventListener(name, fn),
  off: (/** @type {string} */ name, /** @type {() => void} */ fn) => changes.removeEventListener(name, fn),
};
const stream = channel.openStream(traits.stream_name, (/** @type {string} */ kind, /** @type {Record<string, any>} */ header) => {
  if (kind === "traits") Object.entries(header).forEach(([name, value]) => model.set(name, value));
}, signal);

el.textContent = "Connecting to the kernel…";
let connected = false;
channel.addEventListener("status", async () => {
  const { kind } = channel;
  if (connected && kind === "none") el.textContent = "The kernel does not answer any more. Close this page, and take a new link in the notebook.";
  if (connected || kind === "none") return;
  connected = true;
  el.replaceChildren();
  const { initialize, render } = widget();
  initialize({ model });
  await render({ model, el, host: { getWidget: async () => ({ exports: channel }) }, signal });
});

export {};
