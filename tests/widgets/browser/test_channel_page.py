"""`channel.js` in Chromium against `Channel` in this process: delivery, loss, reconnections, bounds, uploads, tabs."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from rtnb._loop import shared_loop
from rtnb.widgets import _upload
from rtnb.widgets import channel as channels
from rtnb.widgets._base import bundle
from rtnb.widgets._frames import now_ms, pack, unpack
from rtnb.widgets._upload import Upload
from rtnb.widgets.channel import SWITCH, Channel
from tests.widgets.browser.bridge import Tab, tabs_of
from tests.widgets.page import eventually

LISTEN = """() => {
    window.heard = [];
    window.view = new AbortController();
    window.stream = channel.openStream("chat", (kind, header, buffers) => {
        heard.push([kind, header, buffers.map(b => b.byteLength)]);
    }, view.signal);
}"""
COUNT_SOCKETS = """() => {
    window.sockets = [];
    window.WebSocket = class extends WebSocket {
        constructor(...given) { super(...given); sockets.push(this); }
    };
}"""


@pytest.fixture
async def tabs(browser: Any) -> AsyncIterator[tuple[Channel, Callable[..., Awaitable[Tab]]]]:
    channel = Channel()
    async with tabs_of(channel, browser) as opened:
        yield channel, opened
    channel.close()


@pytest.fixture
def messages_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "messages")


async def listening(opened: Callable[..., Awaitable[Tab]], kind: str, **options: Any) -> Tab:
    """Open a tab with a stream, and wait for its connection."""
    tab = await opened(**options)
    await tab.run(LISTEN)
    await tab.until(f"channel.kind === '{kind}'")
    return tab


async def test_page_and_kernel_read_each_others_frames(tabs: Any) -> None:
    _, opened = tabs
    tab = await opened()
    header = {"text": "grüße 🎧", "n": [1, 2.5, None]}
    frame = pack("c", "k", header, [b"", b"abc", bytes(range(16))], r=9)
    seen = await tab.run(
        """bytes => {
            const head = module.unpack(new Uint8Array(bytes).buffer);
            const floats = new Float32Array(head.buffers[2].buffer, head.buffers[2].byteOffset, 4);
            const back = module.pack({ c: head.c, k: head.k, h: head.h, r: head.r }, head.buffers);
            return [head.r, head.h, head.buffers.map(b => b.byteLength), floats.length, [...back]];
        }""",
        list(frame),
    )
    assert seen[:4] == [9, header, [0, 3, 16], 4]
    again = unpack(bytes(seen[4]))
    assert (again.request, again.header, again.buffers) == (9, header, [b"", b"abc", bytes(range(16))])


async def test_a_frame_over_the_limit_is_a_clear_error(tabs: Any) -> None:
    channel, opened = tabs
    channel.open_stream("chat", lambda *_: None)
    tab = await listening(opened, "direct")
    error = await tab.run(
        "() => { try { stream.send('k', {}, [new ArrayBuffer(9e6)]) } catch (e) { return e.message } }"
    )
    assert error == "The frame has 9000048 bytes; allowed are 8388608: send it in pieces."


@pytest.mark.parametrize("kind", ["direct", "messages"])
async def test_messages_and_requests_travel_both_ways(tabs: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "" if kind == "direct" else kind)
    channel, opened = tabs
    received: list[Any] = []

    def answer(kind: str, header: dict[str, Any], buffers: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
        received.append((kind, header, [len(buffer) for buffer in buffers]))
        return {"twice": 2 * header.get("i", 0)}, [b"1", b"123"]

    stream = channel.open_stream("chat", answer)
    stream.on_page = lambda page_id, change: stream.publish("state", {"change": change}, [b"12345"], to=page_id)
    tab = await opened()
    await tab.run(LISTEN)
    assert await tab.run("stream.send('up', { i: 1 }, [new Float32Array(3), new ArrayBuffer(2)])"), (
        "held back until then"
    )
    await tab.until(f"channel.kind === '{kind}' && heard.length")
    assert await tab.run("heard") == [["state", {"change": "joined"}, [5]]]
    ask = """async () => {
        const { twice, buffers } = await stream.request("ask", { i: 21 }, { buffers: [new ArrayBuffer(3)] });
        return [twice, ...buffers.map(b => b.byteLength)];
    }"""
    assert await tab.run(ask) == [42, 1, 3]
    assert received == [("up", {"i": 1}, [12, 2]), ("ask", {"i": 21}, [3])]
    for i in range(3):
        stream.publish("rows", {"i": i}, [bytes(i)])
    await tab.until("heard.length === 4")
    assert (await tab.run("heard"))[1:] == [["rows", {"i": i}, [i]] for i in range(3)]
    assert channel.status == (kind, 1)
    assert await tab.run("channel.isActivePage()")


async def test_a_request_without_a_reply_times_out_or_is_cancelled(tabs: Any) -> None:
    channel, opened = tabs

    async def never(kind: str, header: dict[str, Any], buffers: list[bytes]) -> None:
        await asyncio.get_running_loop().create_future()

    channel.open_stream("chat", never)
    tab = await listening(opened, "direct")
    error = await tab.run("stream.request('ask', {}, { timeout_ms: 50 }).catch(error => error.message)")
    assert error == 'No reply to "ask" within 50 ms.'
    name = await tab.run("stream.request('ask', {}, { signal: AbortSignal.timeout(50) }).catch(error => error.name)")
    assert name == "TimeoutError"
    assert await tab.run("channel.requests.size") == 0

    async def cancel() -> None:
        for task in channel._tasks:
            if "_reply" in repr(task):
                task.cancel()

    shared_loop().run(cancel())


async def test_clocks_are_related_by_a_measured_offset(tabs: Any) -> None:
    channel, opened = tabs
    channel.open_stream("chat", lambda kind, header, buffers: {"page_ms": header["t"], "kernel_ms": now_ms()})
    tab = await listening(opened, "direct")
    await tab.until("channel.trips.length > 1")
    assert await tab.run("Number.isFinite(channel.offset_ms)")
    late_ms, trip_ms = await tab.run(
        """async () => {
            const late = [];
            for (let i = 0; i < 20; i++) {
                const { page_ms, kernel_ms } = await stream.request("ask", { t: channel.now() });
                late.push(kernel_ms - page_ms);
            }
            return [late, Math.max(...channel.trips.map(({ trip_ms }) => trip_ms))];
        }"""
    )
    error_ms = 1 + trip_ms / 2  # a busy machine measures worse, and knows by how much
    assert -error_ms < min(late_ms) < 20 + error_ms, "a message cannot arrive before it was sent"


@pytest.mark.usefixtures("messages_only")
async def test_a_lost_widget_message_brings_a_new_snapshot(tabs: Any) -> None:
    channel, opened = tabs
    lost: list[int] = []

    def lossy(content: dict[str, Any]) -> bool:
        if stream.joined and channel.sent == 5 and not lost:
            lost.append(content["number"])
            return False
        return True

    stream = channel.open_stream("chat", lambda *_: None)
    channel.sent = 0
    stream.on_page = lambda page_id, _: stream.publish("snapshot", {"i": channel.sent}, to=page_id)
    tab = await listening(opened, "messages", pass_on=lossy)
    await tab.until("heard.length === 1")
    for i in range(1, 11):
        channel.sent = i
        stream.publish("n", {"i": i})
        if i < 5:
            await tab.until(f"heard.length === {i + 1}")
        elif i == 5:
            await eventually(lambda: lost)
    await tab.until("heard.at(-1)[0] === 'snapshot' && heard.length > 4")
    seen = [(kind, header["i"]) for kind, header, _ in await tab.run("heard")]
    assert lost
    assert seen == [("snapshot", 0), *[("n", i) for i in range(1, 5)], ("snapshot", 10)], "nothing after the gap"


@pytest.mark.usefixtures("messages_only")
async def test_a_lost_welcome_is_asked_for_again(tabs: Any) -> None:
    channel, opened = tabs
    lost: list[int] = []

    def lossy(content: dict[str, Any]) -> bool:
        if content["connection"] == 1:
            lost.append(content["number"])
        return content["connection"] > 1

    channel.open_stream("chat", lambda *_: {"ok": 1})
    tab = await listening(opened, "messages", pass_on=lossy)
    assert lost
    assert await tab.run("stream.request('ask', {})") == {"ok": 1, "buffers": []}


async def test_without_a_socket_it_uses_widget_messages(tabs: Any) -> None:
    """Neither way reaches the kernel: the case of a page on another machine without jupyter-server-proxy."""
    channel, opened = tabs
    offer = channel.server.offer

    def wrong_port(page: Any) -> dict[str, Any]:
        return {**offer(page), "port": 9}

    channel.server.offer = wrong_port
    channel.open_stream("chat", lambda *_: {"ok": 1})
    tab = await listening(opened, "messages", base_url="/nowhere/")
    assert await tab.run("stream.request('ask', {})") == {"ok": 1, "buffers": []}
    assert channel.status.kind == "messages"


@pytest.mark.parametrize("address", ["http://localhost:1/", "http://127.0.0.1:1/lab", "https://hub.test/user/x/lab"])
async def test_ways_to_try(tabs: Any, address: str) -> None:
    _, opened = tabs
    tab = await opened()
    found = await tab.run(
        """address => {
            const document = { getElementById: () => ({ textContent: '{"baseUrl": "/user/x/"}' }) };
            return module.ways({ port: 5, direct: true }, { location: new URL(address), document });
        }""",
        address,
    )
    own = address.replace("http", "ws", 1).split("/", 3)[:3]
    proxy = ["proxy", "/".join([*own, "user/x/proxy/5/"])]
    assert found == ([proxy] if "hub" in address else [["direct", "ws://127.0.0.1:5/"], proxy])


async def test_a_broken_socket_is_replaced_and_requests_fail_at_once(tabs: Any) -> None:
    channel, opened = tabs
    received: list[Any] = []

    async def answer(kind: str, header: dict[str, Any], buffers: list[bytes]) -> dict[str, Any]:
        received.append(header["i"])
        if kind == "never":
            await asyncio.sleep(60)
        return {}

    stream = channel.open_stream("chat", answer)
    stream.on_page = lambda page_id, _: stream.publish("snapshot", {}, to=page_id)
    tab = await opened()
    await tab.run(COUNT_SOCKETS)
    await tab.run(LISTEN)
    await tab.until("heard.length === 1")
    await tab.run("() => { window.kinds = []; channel.addEventListener('status', () => kinds.push(channel.kind)); }")
    failed = asyncio.create_task(tab.run("stream.request('never', { i: 0 }).catch(error => error.message)"))
    await eventually(lambda: received)
    await tab.run("sockets[0].close(4000)")
    assert await asyncio.wait_for(failed, 0.9) == "The connection to the kernel was lost."
    assert await tab.run("stream.send('up', { i: 1 })"), "held back until the next connection"
    await tab.until("heard.length === 2 && sockets.length === 2")
    await eventually(lambda: received == [0, 1])
    assert await tab.run("kinds") == []
    assert channel.status == ("direct", 1)


async def test_nothing_is_sent_on_a_closing_socket(tabs: Any) -> None:
    channel, opened = tabs
    received: list[int] = []
    channel.open_stream("chat", lambda _, header, __: received.append(header["i"]))
    tab = await opened()
    await tab.run(COUNT_SOCKETS)
    await tab.run(LISTEN)
    await tab.until("channel.kind === 'direct'")
    sent = await tab.run(
        """() => {
            let sent = 0;
            sockets[0].send = () => (sent += 1);
            Object.defineProperty(sockets[0], "readyState", { value: WebSocket.CLOSING });
            for (let i = 0; i < 3; i++) stream.send("up", { i });
            return sent;
        }"""
    )
    assert sent == 0
    await tab.run("sockets[0].close(4000)")
    await eventually(lambda: received == [0, 1, 2])


async def test_send_refuses_while_the_socket_is_full(tabs: Any) -> None:
    channel, opened = tabs
    received: list[int] = []
    channel.open_stream("chat", lambda _, header, __: received.append(header["i"]))
    tab = await listening(opened, "direct")
    accepted = await tab.run(
        """() => {
            const accepted = [];
            for (let i = 0; i < 100; i++) if (stream.send("up", { i }, [new ArrayBuffer(1e5)])) accepted.push(i);
            return accepted;
        }"""
    )
    assert 10 <= len(accepted) < 100
    await eventually(lambda: len(received) >= len(accepted))
    assert received == accepted, "what was accepted arrives, and nothing else"


@pytest.mark.usefixtures("messages_only")
async def test_send_refuses_while_the_kernel_is_busy(tabs: Any) -> None:
    channel, opened = tabs
    received: list[int] = []
    channel.open_stream("chat", lambda _, header, __: received.append(header["i"]))
    tab = await listening(opened, "messages")
    tab.kernel_hears = False
    accepted = await tab.run(
        """async () => {
            const accepted = [];
            for (let i = 0; i < 30; i++) {
                if (stream.send("up", { i }, [new ArrayBuffer(1e5)])) accepted.push(i);
                await new Promise((done) => setTimeout(done, 20)); // some leave in a widget message
            }
            return accepted;
        }"""
    )
    assert accepted == list(range(11)), "1 MiB waits, wherever it waits"
    tab.release()
    await eventually(lambda: received == accepted)
    await tab.until("stream.send('up', { i: 100 })", timeout_s=10)  # after the next ping


async def test_a_page_that_falls_behind_gets_a_new_snapshot(tabs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "QUEUE_BYTES", 2**20)
    channel, opened = tabs
    waiting = []

    async def never(*message: Any) -> None:
        waiting.append(asyncio.current_task())
        await asyncio.sleep(60)

    stream = channel.open_stream("chat", never)
    stream.on_page = lambda page_id, _: stream.publish("snapshot", {}, to=page_id)
    tab = await listening(opened, "direct")
    await tab.until("heard.length === 1")
    failed = asyncio.create_task(tab.run("stream.request('ask', {}, { timeout_ms: 60000 }).catch(e => e.message)"))
    await eventually(lambda: waiting)

    async def publish() -> None:  # at once: none leaves meanwhile
        for i in range(200):
            stream.publish("n", {"i": i}, [bytes(10_000)])

    shared_loop().run(publish())
    assert await asyncio.wait_for(failed, 20) == "The connection to the kernel was lost."
    await tab.until("heard.length === 2")
    assert [kind for kind, *_ in await tab.run("heard")] == ["snapshot", "snapshot"]
    shared_loop().call_soon(waiting[0].cancel)


# --- uploads ----------------------------------------------------------------------------------------------------------

UPLOAD = """async ([size, cancelAt]) => {
    const data = new Uint8Array(size);
    for (let at = 0; at < size; at += 65536) crypto.getRandomValues(data.subarray(at, at + 65536));
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
    const cancel = new AbortController();
    window.progress = [];
    const onProgress = (sent, all) => (progress.push(sent), all === size && sent >= cancelAt && cancel.abort());
    const options = { onProgress, signal: cancel.signal };
    const outcome = await shared
        .upload(stream, "file", size % 2 ? data.buffer : new Blob([data]), { name: "x.wav" }, options)
        .catch((error) => ({ error: error.message, name: error.name }));
    return [[...digest].map((b) => b.toString(16).padStart(2, "0")).join(""), outcome];
}"""


class Receiver:
    """A widget's part of an upload."""

    def __init__(self, channel: Channel) -> None:
        self.files: list[Any] = []
        self.upload = Upload()
        channel.open_stream("chat", self.on_message)

    def on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> dict[str, Any]:
        if (data := self.upload.receive(header, buffers)) is None:
            return {}
        self.files.append((header["name"], len(data), hashlib.sha256(data).hexdigest()))
        return {"done": True}


async def with_shared(tab: Tab) -> None:
    await tab.run(
        """async esm => {
            window.shared = await import(URL.createObjectURL(new Blob([esm], { type: "text/javascript" })));
        }""",
        bundle("shared.js"),
    )


@pytest.mark.parametrize("kind", ["direct", "messages"])
@pytest.mark.parametrize("size", [5 * 2**20, 2**20 + 1, 0])
async def test_an_upload_arrives_whole(tabs: Any, kind: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "" if kind == "direct" else kind)
    channel, opened = tabs
    receiver = Receiver(channel)
    tab = await listening(opened, kind)
    await with_shared(tab)
    digest, reply = await tab.run(UPLOAD, [size, 2 * size + 1])
    assert reply == {"done": True, "buffers": []}
    assert receiver.files == [("x.wav", size, digest)]
    steps = [min(at, size) for at in range(2**20, size + 2**20, 2**20)] or [0]
    assert await tab.run("progress") == steps


async def test_an_upload_can_be_cancelled_and_is_refused_when_too_large(
    tabs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, opened = tabs
    receiver = Receiver(channel)
    monkeypatch.setattr(_upload, "MAX_UPLOAD_BYTES", 4 * 2**20)
    tab = await listening(opened, "direct")
    await with_shared(tab)
    _, outcome = await tab.run(UPLOAD, [4 * 2**20, 2 * 2**20])
    assert outcome["name"] == "AbortError"
    assert await tab.run("progress") == [2**20, 2 * 2**20]
    await eventually(lambda: not receiver.upload.data)
    shared_loop().call_soon(lambda: asyncio.get_running_loop().set_exception_handler(lambda *_: None))
    _, outcome = await tab.run(UPLOAD, [5 * 2**20, 2 * 2**30])
    assert outcome["error"] == "The file has 5 MiB; allowed are 4 MiB.\nSend a shorter recording."
    assert await tab.run("progress") == []
    assert receiver.files == []


# --- tabs and views ---------------------------------------------------------------------------------------------------


async def test_two_tabs_both_receive_and_one_is_active(tabs: Any) -> None:
    channel, opened = tabs
    stream = channel.open_stream("chat", lambda *_: None)
    one, two = await opened(), await opened()
    for tab in (one, two):
        await tab.run(
            "() => { window.was = []; channel.addEventListener('status', () => was.push(channel.isActivePage())); }"
        )
        await tab.run(LISTEN)
        await tab.until("channel.kind === 'direct'")
    await eventually(lambda: len(stream.joined) == 2)
    stream.publish("n", {"i": 1})
    for tab in (one, two):
        await tab.until("heard.length === 1")
    assert [await tab.run("channel.isActivePage()") for tab in (one, two)] == [True, False]
    await two.run("channel.claimActivePage()")
    await two.until("channel.isActivePage()")
    await one.until("!channel.isActivePage()")
    await two.page.close()
    await one.until("channel.isActivePage()")
    assert (await one.run("was"))[-2:] == [False, True]
    assert len(stream.joined) == 1


async def test_the_badge_shows_the_connection(tabs: Any) -> None:
    channel, opened = tabs
    channel.open_stream("chat", lambda *_: None)
    tab = await opened()
    await tab.run("() => { widget.render({ el: document.body, signal: abort.signal }); }")
    badge = tab.page.get_by_role("status")
    assert await badge.text_content() == "channel: none"
    await tab.run(LISTEN)
    await tab.page.get_by_text("channel: direct").wait_for()
    await tab.run("view.abort()")
    await tab.page.get_by_text("channel: none").wait_for()
    await eventually(lambda: channel.status.pages == 0)


async def test_each_view_of_a_widget_gets_a_snapshot(tabs: Any) -> None:
    channel, opened = tabs
    stream = channel.open_stream("chat", lambda *_: None)
    stream.on_page = lambda page_id, change: stream.publish("state", {"change": change}, to=page_id)
    tab = await listening(opened, "direct")
    await tab.until("heard.length === 1")
    await tab.run("window.second = []; channel.openStream('chat', kind => second.push(kind), abort.signal)")
    await tab.until("second.length === 1")
    await tab.run("view.abort()")
    stream.publish("n", {})
    await tab.until("second.at(-1) === 'n'")
    assert [kind for kind, *_ in await tab.run("heard")] == ["state", "state"], "its own and the second view's"
    assert len(stream.joined) == 1


@pytest.mark.parametrize("kind", ["direct", "messages"])
async def test_a_message_before_the_end_still_arrives(tabs: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "" if kind == "direct" else kind)
    channel, opened = tabs
    received: list[str] = []
    channel.open_stream("chat", lambda kind, *_: received.append(kind))
    tab = await listening(opened, kind)
    await tab.run("() => { stream.send('a', {}); stream.send('off', {}); view.abort(); }")
    await eventually(lambda: channel.status.pages == 0)
    assert received == ["a", "off"]


async def test_a_stopped_kernel_is_noticed(tabs: Any) -> None:
    channel, opened = tabs
    channel.open_stream("chat", lambda *_: None)
    tab = await listening(opened, "direct")
    await tab.until("channel.isActivePage()")
    await tab.run("() => { window.kinds = []; channel.addEventListener('status', () => kinds.push(channel.kind)); }")
    tab.kernel_hears = False
    await asyncio.to_thread(shared_loop().stop)
    await tab.until("channel.kind === 'none' && !channel.isActivePage()", timeout_s=30)
    assert (await tab.run("kinds"))[-1] == "none"


async def test_the_end_of_the_widget_ends_the_connection(tabs: Any) -> None:
    channel, opened = tabs
    channel.open_stream("chat", lambda *_: None)
    tab = await listening(opened, "direct")
    await tab.run("abort.abort()")
    await eventually(lambda: channel.status.pages == 0)
    assert await tab.run("channel.kind") == "none"


async def test_the_mistake_of_one_widget_stops_no_other(tabs: Any) -> None:
    channel, opened = tabs
    stream = channel.open_stream("chat", lambda *_: None)
    tab = await opened()
    errors: list[str] = []
    tab.page.on("pageerror", lambda error: errors.append(str(error)))
    await tab.run("channel.openStream('chat', () => { throw new Error('mine'); }, abort.signal)")
    await tab.run(LISTEN)
    await eventually(lambda: stream.joined)
    stream.publish("n", {})
    await tab.until("heard.length === 1")
    assert any("mine" in text for text in errors)
