"""One widget's module on an empty page, with a model and a line made by hand."""

from typing import Any

from rtnb.widgets._base import FOLDER, bundle, styles

HAND_MADE = """
window.made = async (source, traits) => {
  window.module = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  const handlers = new Set();
  window.model = {
    traits,
    asked: new Set(),
    get(name) { this.asked.add(name); return this.traits[name]; },
    set(name, value) { this.traits[name] = value; handlers.forEach(([on, fn]) => on === `change:${name}` && fn()); },
    save_changes() {},
    send(message) { sent.push(["message", message]); },
    on(name, fn) { this.asked.add(name.replace("change:", "")); handlers.add([name, fn]); },
    off(name, fn) { handlers.forEach((pair) => pair[1] === fn && handlers.delete(pair)); },
    handlers,
  };
  window.sent = [];
  window.answers = {};
  let listener = null;
  const stream = {
    send: (kind, header) => (sent.push([kind, header]), !window.refuse),
    request: async (kind, header) => (sent.push([kind, header]), answers[kind]),
  };
  const openStream = (name, fn, signal) => {
    listener = fn;
    signal.addEventListener("abort", () => { listener = null; });
    return stream;
  };
  const facts = { openStream, pageId: "p", kind: "direct", isActivePage: () => true, claimActivePage: async () => {} };
  const channel = Object.assign(new EventTarget(), facts);
  window.say = (kind, header, buffers = []) => listener(kind, header, buffers.map((b) => new DataView(b)));
  window.listening = () => listener !== null;
  const widget = typeof module.default === "function" ? module.default() : module.default;
  const host = { getWidget: async () => ({ exports: channel }) };
  const ended = new AbortController();
  const el = document.body.appendChild(document.createElement("div"));
  widget.initialize?.({ model, signal: ended.signal });
  await widget.render({ model, el, host, signal: ended.signal });
  window.unrender = () => { ended.abort(); el.remove(); };
};
"""


async def shown(browser: Any, name: str, traits: dict[str, Any], *, script: str = "") -> Any:
    """A secure page that shows the widget whose module is `name`.js; `script` runs between its import and `render`."""
    page = await (await browser.new_context(viewport={"width": 900, "height": 600})).new_page()
    page.failures = []
    page.on("pageerror", lambda error: page.failures.append(str(error)))
    await page.route("http://localhost/", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
    await page.goto("http://localhost/")
    own = [f"{name}.css"] if (FOLDER / f"{name}.css").exists() else []
    await page.add_style_tag(content=styles(*own))
    await page.add_script_tag(content=HAND_MADE)
    source = f"{bundle(f'{name}.js')}\n{script}"
    await page.evaluate("([s, t]) => made(s, t)", [source, {"channel": "anywidget:1", "stream_name": "s", **traits}])
    return page
