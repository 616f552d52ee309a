"""Widgets in this process and their modules in Chromium, joined by hand-made models in place of Jupyter's comms."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from playwright.async_api import Browser, Page

from rtnb.widgets._base import FOLDER, bundle, styles
from rtnb.widgets.channel import Channel

_PAGE = "<!doctype html><title>channel</title><script id='jupyter-config-data' type='application/json'>{}</script>"

_CONNECT = """async (esm) => {
    const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const text = (buffer) => { // in pieces: so many arguments are too many
        let binary = "";
        for (let at = 0; at < buffer.byteLength; at += 32768) {
            binary += String.fromCharCode(...new Uint8Array(buffer.slice(at, at + 32768)));
        }
        return btoa(binary);
    };
    const load = (source) => import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    const heard = {};
    const modelOf = (name, traits) => {
        const handlers = new Set();
        let changed = {};
        const fire = (event, ...given) => [...handlers].forEach(([on, fn]) => on === event && fn(...given));
        const assign = (state) => {
            Object.assign(traits, state);
            Object.keys(state).forEach((trait) => fire(`change:${trait}`));
        };
        heard[name] = ({ method, content, state }, buffers) =>
            method === "update" ? assign(state) : fire("msg:custom", content, buffers);
        return {
            asked: new Set(),
            get(trait) {
                this.asked.add(trait);
                return traits[trait];
            },
            set: (trait, value) => {
                changed[trait] = value;
                assign({ [trait]: value });
            },
            save_changes: () => {
                toKernel(name, { method: "update", state: changed }, []);
                changed = {};
            },
            send: (content, _, buffers = []) => toKernel(name, { method: "custom", content }, buffers.map(text)),
            on(event, fn) {
                if (event.startsWith("change:")) this.asked.add(event.slice(7));
                handlers.add([event, fn]);
            },
            off: (event, fn) => handlers.forEach((one) => one[0] === event && one[1] === fn && handlers.delete(one)),
        };
    };
    window.fromKernel = (name, data, texts) => heard[name](data, texts.map((one) => new DataView(bytes(one).buffer)));
    window.module = await load(esm);
    window.abort = new AbortController();
    window.widget = module.default();
    window.channel = widget.initialize({ model: modelOf("channel", {}), signal: abort.signal });
    window.show = async (name, source, traits) => {
        const shown = await load(source);
        const { initialize, render } = typeof shown.default === "function" ? shown.default() : shown.default;
        const end = new AbortController();
        const el = document.body.appendChild(document.createElement("div"));
        const host = { getWidget: async () => ({ exports: channel }) };
        const model = modelOf(name, traits);
        initialize?.({ model, signal: end.signal });
        await render({ model, el, host, signal: end.signal });
        Object.assign(window, { model, unrender: () => { end.abort(); el.remove(); } });
        return [...model.asked];
    };
}"""

PassOn = Callable[[dict[str, Any]], bool]


class Tab:
    """One browser tab of a channel."""

    def __init__(self, channel: Channel, page: Page, pass_on: PassOn) -> None:
        self.page = page
        self.kernel_hears = True
        """False holds back what the page sends, as a busy cell does."""
        self.held: list[tuple[str, Any, list[str]]] = []
        self._pass_on = pass_on
        self._widgets: dict[str, Any] = {}
        self._queue: asyncio.Queue[tuple[str, Any, list[bytes]]] = asyncio.Queue()
        self._join("channel", channel)

    def _join(self, name: str, widget: Any) -> None:
        """Listen to the kernel's end of a widget's comm; there is no kernel."""
        self._widgets[name] = widget
        loop, before = asyncio.get_running_loop(), widget.comm.publish_msg

        def publish(kind: str, data: Any = None, metadata: Any = None, buffers: Any = None, **more: Any) -> None:
            if data and data.get("method") in ("custom", "update"):
                message = (name, data, [bytes(buffer) for buffer in buffers or ()])
                loop.call_soon_threadsafe(self._queue.put_nowait, message)
            before(kind, data=data, metadata=metadata, buffers=buffers, **more)

        widget.comm.publish_msg = publish

    async def show(self, widget: Any) -> None:
        """Show a widget below the others; traits and messages go both ways, and its module asks for synced traits."""
        name = f"{type(widget).__name__} {len(self._widgets)}"
        css = f"{type(widget).__module__.rpartition('.')[2]}.css"
        await self.page.add_style_tag(content=styles(*[css] if (FOLDER / css).exists() else []))
        self._join(name, widget)
        traits = {trait: value for trait, value in widget.get_state().items() if trait not in ("_esm", "_css")}
        asked = await self.run("([name, source, traits]) => show(name, source, traits)", [name, widget._esm, traits])
        assert set(asked) <= traits.keys(), "every name that a module asks for is a synced trait"

    def to_kernel(self, name: str, data: Any, texts: list[str]) -> None:
        """Pass a message of the page on."""
        if not self.kernel_hears:
            self.held.append((name, data, texts))
        elif data["method"] == "update":
            self._widgets[name].set_state(data["state"])
        else:
            buffers = [memoryview(base64.b64decode(text)) for text in texts]
            self._widgets[name]._handle_custom_msg(data["content"], buffers)

    def release(self) -> None:
        """Pass on what was held back."""
        self.kernel_hears = True
        held, self.held = self.held, []
        for message in held:
            self.to_kernel(*message)

    async def run(self, script: str, argument: Any = None) -> Any:
        """Evaluate a script on the page."""
        return await self.page.evaluate(script, argument)

    async def until(self, condition: str, timeout_s: float = 20.0) -> None:
        """Wait until a condition is true on the page."""
        await self.page.wait_for_function(condition, timeout=1000 * timeout_s)

    async def deliver(self) -> None:
        """Bring the kernel's messages to the page, in order, until cancelled."""
        while True:
            name, data, buffers = await self._queue.get()
            if self._pass_on(data):
                texts = [base64.b64encode(buffer).decode() for buffer in buffers]
                await self.run("([name, data, texts]) => fromKernel(name, data, texts)", [name, data, texts])


@asynccontextmanager
async def tabs_of(
    channel: Channel, browser: Browser, *, script: str = ""
) -> AsyncIterator[Callable[..., Awaitable[Tab]]]:
    """Open pages of `channel`: ``await opened(base_url=…, pass_on=…)``.

    ``pass_on(data)`` returns False for a message of the kernel that is lost; `base_url` is the address of the page's
    Jupyter server; `script` runs first on every page.
    """
    # A real server: a page from anywhere else may not reach loopback (Chromium's local network access).
    app = web.Application()
    app.router.add_get("/", _page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    (address,) = runner.addresses
    delivering: list[asyncio.Task[None]] = []

    async def opened(*, base_url: str = "", pass_on: PassOn = lambda data: True, host: str = "localhost") -> Tab:
        page = await (await browser.new_context()).new_page()
        await page.add_init_script(script)
        tab = Tab(channel, page, pass_on)
        await page.expose_function("toKernel", tab.to_kernel)
        await page.goto(f"http://{host}:{address[1]}/?{urlencode({'base': base_url})}")
        await tab.run(_CONNECT, bundle("channel.js"))
        delivering.append(asyncio.create_task(tab.deliver()))
        return tab

    try:
        yield opened
    finally:
        for task in delivering:
            task.cancel()
        await asyncio.gather(*delivering, return_exceptions=True)
        await runner.cleanup()


async def _page(request: web.Request) -> web.Response:
    base = request.query["base"]
    return web.Response(text=_PAGE.format(json.dumps({"baseUrl": base}) if base else ""), content_type="text/html")
