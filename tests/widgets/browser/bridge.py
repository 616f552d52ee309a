"""`channel.js` in Chromium and `Channel` in this process, joined by a hand-made model in place of Jupyter's comm."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from playwright.async_api import Browser, Page

from rtnb.widgets._base import bundle
from rtnb.widgets.channel import Channel

_PAGE = "<!doctype html><title>channel</title><script id='jupyter-config-data' type='application/json'>{}</script>"

_CONNECT = """async esm => {
    const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
    const text = buffer => { // in pieces: so many arguments are too many
        let binary = "";
        for (let at = 0; at < buffer.byteLength; at += 32768) {
            binary += String.fromCharCode(...new Uint8Array(buffer.slice(at, at + 32768)));
        }
        return btoa(binary);
    };
    const listeners = new Set();
    const view = text => new DataView(bytes(text).buffer);
    window.fromKernel = (content, buffers) => listeners.forEach(fn => fn(content, buffers.map(view)));
    const model = {
        get: () => undefined,
        on: (name, fn) => listeners.add(fn),
        off: (name, fn) => listeners.delete(fn),
        send: (content, _, buffers) => window.toKernel(content, buffers.map(text)),
    };
    const url = URL.createObjectURL(new Blob([esm], { type: "text/javascript" }));
    window.module = await import(url);
    window.abort = new AbortController();
    window.widget = module.default();
    window.channel = widget.initialize({ model, signal: abort.signal });
}"""

PassOn = Callable[[dict[str, Any]], bool]


class Tab:
    """One browser tab of a channel."""

    def __init__(self, channel: Channel, page: Page, pass_on: PassOn) -> None:
        self.page = page
        self.kernel_hears = True
        """False holds back what the page sends, as a busy cell does."""
        self.held: list[tuple[Any, list[str]]] = []
        self._channel = channel
        self._pass_on = pass_on
        self._queue: asyncio.Queue[tuple[Any, list[bytes]]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        before = channel.comm.publish_msg

        def publish(kind: str, data: Any = None, metadata: Any = None, buffers: Any = None, **more: Any) -> None:
            if data and data.get("method") == "custom":
                message = (data["content"], [bytes(buffer) for buffer in buffers or ()])
                loop.call_soon_threadsafe(self._queue.put_nowait, message)
            before(kind, data=data, metadata=metadata, buffers=buffers, **more)

        channel.comm.publish_msg = publish

    def to_kernel(self, content: Any, texts: list[str]) -> None:
        """Pass a widget message of the page on."""
        if self.kernel_hears:
            self._channel._handle_custom_msg(content, [memoryview(base64.b64decode(text)) for text in texts])
        else:
            self.held.append((content, texts))

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
        """Bring the kernel's widget messages to the page, in order, until cancelled."""
        while True:
            content, buffers = await self._queue.get()
            if self._pass_on(content):
                texts = [base64.b64encode(buffer).decode() for buffer in buffers]
                await self.run("([content, buffers]) => fromKernel(content, buffers)", [content, texts])


@asynccontextmanager
async def tabs_of(
    channel: Channel, browser: Browser, *, script: str = ""
) -> AsyncIterator[Callable[..., Awaitable[Tab]]]:
    """Open pages of `channel`: ``await opened(base_url=…, pass_on=…)``.

    ``pass_on(content)`` returns False for a widget message of the kernel that is lost; `base_url` is the address of the
    page's Jupyter server; `script` runs first on every page.
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

    async def opened(*, base_url: str = "", pass_on: PassOn = lambda content: True, host: str = "localhost") -> Tab:
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
