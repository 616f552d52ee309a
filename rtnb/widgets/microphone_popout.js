/**
 * The capture page: the notebook's channel and microphone on a page of their own, with a model made by hand.
 *
 * To the kernel, besides what microphone.js says: set {name: value} of a knob. From it: knobs {name: value}.
 */

const facts = JSON.parse(document.getElementById("facts").textContent);
const load = (text) => import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
const [channel, microphone] = await Promise.all([load(facts.channel), load(facts.microphone)]);

/** Enough of a widget's model: values, and who wants to know of changes. */
function makeModel(traits, save = () => {}) {
  const handlers = new Map();
  const tell = (name, ...what) => [...(handlers.get(name) ?? [])].forEach((fn) => fn(...what));
  let changed = {};
  return {
    get: (name) => traits[name],
    set(name, value) {
      if (traits[name] === value) return;
      traits[name] = changed[name] = value;
      tell(`change:${name}`);
    },
    save_changes() {
      save(changed);
      changed = {};
    },
    on: (name, fn) => handlers.set(name, (handlers.get(name) ?? new Set()).add(fn)),
    off: (name, fn) => handlers.get(name)?.delete(fn),
    tell,
  };
}

// There are no widget messages here: the page was given its welcome in advance.
const offer = { port: facts.port, token: facts.token, direct: true };
const joined = new channel.PageChannel({ ...makeModel({}), send() {} }, { pageId: facts.page, offer });
const model = makeModel(facts.traits, (changed) => stream.send("set", changed));
const stream = joined.openStream(facts.traits.stream_name, (kind, header) => {
  if (kind === "knobs") for (const [name, value] of Object.entries(header)) model.set(name, value);
});
const el = document.getElementById("widget");
el.textContent = "Connecting to the kernel…";
await new Promise((resolve) => {
  const leave = joined.onStatus(({ kind }) => kind === "direct" && (leave(), resolve())); // a click before it would be lost
});
el.replaceChildren();
const host = { getWidget: async () => ({ exports: joined }) };
await microphone.default().render({ model, el, host, signal: new AbortController().signal });
let met = false;
joined.onStatus(({ kind }) => {
  met ||= kind === "direct";
  if (!met || kind === "direct") return;
  el.replaceChildren();
  el.textContent = "The kernel does not answer any more. Close this page, and take a new link in the notebook.";
});
