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
from rtnb.widgets._frames import now_ms
from rtnb.widgets._upload import Upload
from rtnb.widgets.channel import SWITCH, Channel
from tests.widgets.browser.bridge import Tab, tabs_of
from tests.widgets.page import eventually

LISTEN = """() => {
    window.sockets = [];
    window.WebSocket = class extends WebSocket {
        constructor(...given) { super(...given); sockets.push(this); }
    };
    Object.assign(window, { heard: [], kinds: [], active: [], view: new AbortController() });
    channel.addEventListener("status", () => (kinds.push(channel.kind), active.push(channel.isActivePage())));
    const hear = (kind, header, buffers) => heard.push([kind, header, buffers.map((b) => b.byteLength)]);
    window.stream = channel.openStream("chat", hear, view.signal);
}"""

both_ways = pytest.mark.parametrize("kind", ["direct", "messages"], indirect=True)
by_messages = pytest.mark.parametrize("kind", ["messages"], indirect=True)


class Chat:
    """A stream in this process, with a snapshot for each page that joins, and its tabs."""

    def __init__(self, kind: str, channel: Channel, opened: Callable[..., Awaitable[Tab]]) -> None:
        self.channel = channel
        self.received: list[Any] = []
        self.answer: Callable[..., Any] = lambda kind, header, buffers: {"ok": 1}
        self.last = 0
        self.stream = channel.open_stream("chat", self._on_message)
        self.stream.on_page = lambda page_id, _: self.stream.publish("snapshot", {"i": self.last}, to=page_id)
        self.kind = kind
        self._opened = opened

    def _on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> Any:
        self.received.append((kind, header, [len(buffer) for buffer in buffers]))
        return self.answer(kind, header, buffers)

    def numbers(self) -> list[int]:
        return [header["i"] for _, header, _ in self.received]

    def publish(self, *numbers: int) -> None:
        for self.last in numbers:
            self.stream.publish("n", {"i": self.last}, [bytes(self.last)])

    async def tab(self, **options: Any) -> Tab:
        """Open a tab that listens, and wait for its snapshot."""
        tab = await self._opened(**options)
        await tab.run(LISTEN)
        await tab.until(f"channel.kind === '{self.kind}' && heard.length")
        return tab


@pytest.fixture
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How messages travel."""
    kind = str(getattr(request, "param", "direct"))
    monkeypatch.setenv(SWITCH, "" if kind == "direct" else kind)
    return kind


@pytest.fixture
async def chat(kind: str, browser: Any) -> AsyncIterator[Chat]:
    channel = Channel()
    async with tabs_of(channel, browser) as opened:
        yield Chat(kind, channel, opened)
    channel.close()


async def never(*message: Any) -> None:
    """Answer nothing."""
    await asyncio.get_running_loop().create_future()


@pytest.fixture
def unanswered(chat: Chat) -> Any:
    """A stream that never answers; what it waits for is cancelled after the test."""
    chat.answer = never
    yield chat

    async def cancel() -> None:
        for task in chat.channel._tasks:
            if "_reply" in repr(task):
                task.cancel()

    shared_loop().run(cancel())


@both_ways
async def test_messages_and_requests_travel_both_ways(chat: Chat, kind: str) -> None:
    chat.answer = lambda kind, header, buffers: (header, [b"", b"abc", bytes(range(16))])
    tab = await chat.tab()
    header = {"text": "grüße 🎧", "n": [1, 2.5, None]}
    reply = await tab.run(
        """async (header) => {
            stream.send("up", { i: 1 }, [new Float32Array(3), new ArrayBuffer(2)]);
            const { buffers, ...same } = await stream.request("ask", header, { buffers: [new ArrayBuffer(3)] });
            const floats = new Float32Array(buffers[2].buffer, buffers[2].byteOffset, 4); // aligned, or it throws
            return [same, buffers.map((b) => b.byteLength), floats.length];
        }""",
        header,
    )
    assert reply == [header, [0, 3, 16], 4]
    assert chat.received == [("up", {"i": 1}, [12, 2]), ("ask", header, [3])]
    chat.publish(0, 1, 2)
    await tab.until("heard.length === 4")
    assert await tab.run("heard") == [["snapshot", {"i": 0}, []], *[["n", {"i": i}, [i]] for i in range(3)]]
    assert chat.channel.status == (kind, 1)
    assert await tab.run("channel.isActivePage()")


async def test_a_frame_over_the_limit_is_a_clear_error(chat: Chat) -> None:
    tab = await chat.tab()
    error = await tab.run("new Promise(() => stream.send('k', {}, [new ArrayBuffer(9e6)])).catch((e) => e.message)")
    assert error == "The frame has 9000048 bytes; allowed are 8388608: send it in pieces."


async def test_a_request_without_a_reply_times_out_or_is_cancelled(unanswered: Chat) -> None:
    tab = await unanswered.tab()
    error = await tab.run("stream.request('ask', {}, { timeout_ms: 50 }).catch(error => error.message)")
    assert error == 'No reply to "ask" within 50 ms.'
    name = await tab.run("stream.request('ask', {}, { signal: AbortSignal.timeout(50) }).catch(error => error.name)")
    assert name == "TimeoutError"
    assert await tab.run("channel.requests.size") == 0


async def test_clocks_are_related_by_a_measured_offset(chat: Chat) -> None:
    chat.answer = lambda kind, header, buffers: {"page_ms": header["t"], "kernel_ms": now_ms()}
    tab = await chat.tab()
    await tab.until("channel.trips.length > 1")
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


@by_messages
async def test_a_lost_widget_message_brings_a_new_snapshot(chat: Chat) -> None:
    lost: list[int] = []

    def lossy(data: dict[str, Any]) -> bool:
        if chat.last == 5 and not lost:
            lost.append(data["content"]["number"])
            return False
        return True

    tab = await chat.tab(pass_on=lossy)
    for i in range(1, 5):
        chat.publish(i)
        await tab.until(f"heard.length === {i + 1}")
    chat.publish(5)
    await eventually(lambda: lost)
    chat.publish(*range(6, 11))
    await tab.until("heard.at(-1)[0] === 'snapshot' && heard.length > 4")
    seen = [(kind, header["i"]) for kind, header, _ in await tab.run("heard")]
    assert seen == [("snapshot", 0), *[("n", i) for i in range(1, 5)], ("snapshot", 10)], "nothing after the gap"


@by_messages
async def test_a_lost_welcome_is_asked_for_again(chat: Chat) -> None:
    tab = await chat.tab(pass_on=lambda data: data["content"]["connection"] > 1)
    assert await tab.run("stream.request('ask', {})") == {"ok": 1, "buffers": []}


async def test_without_a_socket_it_uses_widget_messages(chat: Chat) -> None:
    """Neither way reaches the kernel: the case of a page on another machine without jupyter-server-proxy."""
    offer = chat.channel.server.offer
    chat.channel.server.offer = lambda page: {**offer(page), "port": 9}  # type: ignore[method-assign]
    chat.kind = "messages"
    tab = await chat.tab(base_url="/nowhere/")
    assert await tab.run("stream.request('ask', {})") == {"ok": 1, "buffers": []}
    assert chat.channel.status.kind == "messages"


@pytest.mark.parametrize("address", ["http://localhost:1/", "http://127.0.0.1:1/lab", "https://hub.test/user/x/lab"])
async def test_ways_to_try(chat: Chat, address: str) -> None:
    tab = await chat.tab()
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


async def test_a_broken_socket_is_replaced_and_requests_fail_at_once(unanswered: Chat) -> None:
    tab = await unanswered.tab()
    await tab.run("kinds.length = 0")
    failed = asyncio.create_task(tab.run("stream.request('never', { i: 0 }).catch(error => error.message)"))
    await eventually(lambda: unanswered.received)
    await tab.run("sockets[0].close(4000)")
    assert await asyncio.wait_for(failed, 0.9) == "The connection to the kernel was lost."
    assert await tab.run("stream.send('up', { i: 1 })"), "held back until the next connection"
    await tab.until("heard.length === 2 && sockets.length === 2")
    await eventually(lambda: unanswered.numbers() == [0, 1])
    assert await tab.run("kinds") == []
    assert unanswered.channel.status == ("direct", 1)


async def test_nothing_is_sent_on_a_closing_socket(chat: Chat) -> None:
    tab = await chat.tab()
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
    await eventually(lambda: chat.numbers() == [0, 1, 2])


FILL = """async ([most, pause_ms]) => {
    const accepted = [];
    for (let i = 0; i < most; i++) {
        if (stream.send("up", { i }, [new ArrayBuffer(1e5)])) accepted.push(i);
        if (pause_ms) await new Promise((done) => setTimeout(done, pause_ms)); // some leave in a widget message
    }
    return accepted;
}"""


async def test_send_refuses_while_the_socket_is_full(chat: Chat) -> None:
    tab = await chat.tab()
    accepted = await tab.run(FILL, [100, 0])
    assert 10 <= len(accepted) < 100
    await eventually(lambda: len(chat.received) >= len(accepted))
    assert chat.numbers() == accepted, "what was accepted arrives, and nothing else"


@by_messages
async def test_send_refuses_while_the_kernel_is_busy(chat: Chat) -> None:
    tab = await chat.tab()
    tab.kernel_hears = False
    assert await tab.run(FILL, [30, 20]) == list(range(11)), "1 MiB waits, wherever it waits"
    tab.release()
    await eventually(lambda: chat.numbers() == list(range(11)))
    await tab.until("stream.send('up', { i: 100 })", timeout_s=10)  # after the next ping


async def test_a_page_that_falls_behind_gets_a_new_snapshot(unanswered: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "QUEUE_BYTES", 2**20)
    tab = await unanswered.tab()
    failed = asyncio.create_task(tab.run("stream.request('ask', {}, { timeout_ms: 60000 }).catch(e => e.message)"))
    await eventually(lambda: unanswered.received)

    async def publish() -> None:  # at once: none leaves meanwhile
        unanswered.publish(*[10_000] * 200)

    shared_loop().run(publish())
    assert await asyncio.wait_for(failed, 20) == "The connection to the kernel was lost."
    await tab.until("heard.length === 2")
    assert [kind for kind, *_ in await tab.run("heard")] == ["snapshot", "snapshot"]


# --- uploads ----------------------------------------------------------------------------------------------------------

UPLOAD = """async ([esm, size, cancelAt]) => {
    const shared = await import(URL.createObjectURL(new Blob([esm], { type: "text/javascript" })));
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
NEVER = 2**40


class Receiver:
    """A widget's part of an upload."""

    def __init__(self, chat: Chat) -> None:
        self.files: list[Any] = []
        self.upload = Upload()
        chat.answer = self.on_message

    def on_message(self, kind: str, header: dict[str, Any], buffers: list[bytes]) -> dict[str, Any]:
        if (data := self.upload.receive(header, buffers)) is None:
            return {}
        self.files.append((header["name"], len(data), hashlib.sha256(data).hexdigest()))
        return {"done": True}


@both_ways
@pytest.mark.parametrize("size", [5 * 2**20, 2**20 + 1, 0])
async def test_an_upload_arrives_whole(chat: Chat, size: int) -> None:
    receiver, tab = Receiver(chat), await chat.tab()
    digest, reply = await tab.run(UPLOAD, [bundle("shared.js"), size, NEVER])
    assert reply == {"done": True, "buffers": []}
    assert receiver.files == [("x.wav", size, digest)]
    steps = [min(at, size) for at in range(2**20, size + 2**20, 2**20)] or [0]
    assert await tab.run("progress") == steps


async def test_an_upload_can_be_cancelled(chat: Chat) -> None:
    receiver, tab = Receiver(chat), await chat.tab()
    _, outcome = await tab.run(UPLOAD, [bundle("shared.js"), 4 * 2**20, 2 * 2**20])
    assert outcome["name"] == "AbortError"
    assert await tab.run("progress") == [2**20, 2 * 2**20]
    await eventually(lambda: not receiver.upload.data)
    assert receiver.files == []


async def test_an_upload_is_refused_when_too_large(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_upload, "MAX_UPLOAD_BYTES", 4 * 2**20)
    receiver, tab = Receiver(chat), await chat.tab()
    shared_loop().call_soon(lambda: asyncio.get_running_loop().set_exception_handler(lambda *_: None))
    _, outcome = await tab.run(UPLOAD, [bundle("shared.js"), 5 * 2**20, NEVER])
    assert outcome["error"] == "The file has 5 MiB; allowed are 4 MiB.\nSend a shorter recording."
    assert await tab.run("progress") == []
    assert receiver.files == []


# --- tabs and views ---------------------------------------------------------------------------------------------------


async def test_two_tabs_both_receive_and_one_is_active(chat: Chat) -> None:
    one, two = await chat.tab(), await chat.tab()
    chat.publish(1)
    for tab in (one, two):
        await tab.until("heard.at(-1)[0] === 'n'")
    assert [await tab.run("channel.isActivePage()") for tab in (one, two)] == [True, False]
    await two.run("channel.claimActivePage()")
    await two.until("channel.isActivePage()")
    await one.until("!channel.isActivePage()")
    await two.page.close()
    await one.until("channel.isActivePage()")
    assert (await one.run("active"))[-2:] == [False, True]
    assert len(chat.stream.joined) == 1


async def test_the_badge_shows_the_connection_and_its_end(chat: Chat) -> None:
    tab = await chat.tab()
    await tab.run("() => { widget.render({ el: document.body, signal: abort.signal }); }")
    await tab.page.get_by_role("status").get_by_text("channel: direct").wait_for()
    await tab.run("view.abort()")
    await tab.page.get_by_text("channel: none").wait_for()
    await eventually(lambda: chat.channel.status.pages == 0)


async def test_each_view_of_a_widget_gets_a_snapshot(chat: Chat) -> None:
    tab = await chat.tab()
    await tab.run("window.second = []; channel.openStream('chat', kind => second.push(kind), abort.signal)")
    await tab.until("second.length === 1")
    await tab.run("view.abort()")
    chat.publish(1)
    await tab.until("second.at(-1) === 'n'")
    assert [kind for kind, *_ in await tab.run("heard")] == ["snapshot", "snapshot"], "its own and the second view's"
    assert len(chat.stream.joined) == 1


@both_ways
async def test_a_message_before_the_end_still_arrives(chat: Chat) -> None:
    tab = await chat.tab()
    await tab.run("() => { stream.send('a', {}); stream.send('off', {}); view.abort(); }")
    await eventually(lambda: chat.channel.status.pages == 0)
    assert [kind for kind, *_ in chat.received] == ["a", "off"]


async def test_a_stopped_kernel_is_noticed(chat: Chat) -> None:
    tab = await chat.tab()
    await tab.until("channel.isActivePage()")
    tab.kernel_hears = False
    await asyncio.to_thread(shared_loop().stop)
    await tab.until("channel.kind === 'none' && !channel.isActivePage()", timeout_s=30)
    assert (await tab.run("kinds"))[-1] == "none"


async def test_the_end_of_the_widget_ends_the_connection(chat: Chat) -> None:
    tab = await chat.tab()
    await tab.run("abort.abort()")
    await eventually(lambda: chat.channel.status.pages == 0)
    assert await tab.run("channel.kind") == "none"


async def test_the_mistake_of_one_widget_stops_no_other(chat: Chat) -> None:
    tab = await chat.tab()
    errors: list[str] = []
    tab.page.on("pageerror", lambda error: errors.append(str(error)))
    await tab.run("channel.openStream('chat', () => { throw new Error('mine'); }, abort.signal)")
    await tab.run("channel.openStream('chat', (kind) => { window.later = kind; }, abort.signal)")
    chat.publish(1)
    await tab.until("window.later === 'n'")
    assert any("mine" in text for text in errors)
