"""The kernel's side of the channel: who gets in, delivery, reconnections, bounds, and the end."""

import asyncio
import contextlib
import socket as sockets
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from rtnb._loop import shared_loop
from rtnb.errors import WidgetError
from rtnb.widgets import channel as channels
from rtnb.widgets._frames import MAX_FRAME_BYTES, now_ms, pack
from rtnb.widgets.channel import Channel, Stream
from tests.widgets.page import Page, Socket, eventually

Received = list[tuple[str, dict[str, Any], list[bytes]]]


@pytest.fixture
async def channel() -> AsyncIterator[Channel]:
    channel = Channel()
    yield channel
    channel.close()
    await asyncio.to_thread(shared_loop().run, _ended(), 30)  # its sockets close on this loop


async def _ended() -> None:
    """Wait until nothing runs on this loop."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


@pytest.fixture
def received() -> Received:
    return []


@pytest.fixture
def chat(channel: Channel, received: Received) -> Stream:
    return channel.open_stream("chat", lambda kind, header, buffers: received.append((kind, header, buffers)))


@pytest.fixture
def changes(chat: Stream) -> list[tuple[str, str]]:
    changes: list[tuple[str, str]] = []
    chat.on_page = lambda page_id, change: changes.append((page_id, change))
    return changes


# --- who gets in ------------------------------------------------------------------------------------------------------


async def test_a_page_with_its_token_gets_in(channel: Channel, chat: Stream) -> None:
    await Page(channel).open("chat")
    await eventually(lambda: chat.joined)
    assert channel.status == ("direct", 1)


@pytest.mark.usefixtures("chat")
@pytest.mark.parametrize("case", ["wrong", "none", "of another page", "as another page", "older connection"])
async def test_no_other_token_is_accepted(channel: Channel, case: str) -> None:
    page, other = Page(channel), Page(channel)
    mine, others = await page.hello(), await other.hello()
    shown = {"wrong": "x" * 43, "none": "", "of another page": others["token"]}.get(case, mine["token"])
    if case == "older connection":
        shown = (await page.hello())["token"]
    with pytest.raises(InvalidStatus, match="403"):
        await Socket.dial({**mine, "token": shown}, other if case == "as another page" else page, connection=1)


@pytest.mark.usefixtures("chat")
async def test_a_token_works_once(channel: Channel) -> None:
    page = Page(channel)
    first = await page.hello()
    second = await page.hello()
    with pytest.raises(InvalidStatus, match="403"):  # a newer token makes the older one worthless
        await Socket.dial(first, page)
    socket = await Socket.dial(second, page)
    await socket.until("open")
    with pytest.raises(InvalidStatus, match="403"):
        await Socket.dial(second, page)
    assert channel.status.kind == "direct", "the first one is not disturbed"


@pytest.mark.usefixtures("chat")
async def test_a_token_expires(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(channel)
    welcome = await page.hello()
    now = time.monotonic
    monkeypatch.setattr(channels.time, "monotonic", lambda: now() + channels.TOKEN_S)
    with pytest.raises(InvalidStatus, match="403"):
        await Socket.dial(welcome, page)


@pytest.mark.usefixtures("chat")
@pytest.mark.parametrize(
    "origin", [None, "null", "http://localhost:8889", "https://localhost:8888", "http://evil.test"]
)
async def test_another_origin_is_refused(channel: Channel, origin: str | None) -> None:
    page = Page(channel)
    welcome = await page.hello()
    with pytest.raises(InvalidStatus, match="403"):
        await Socket.dial(welcome, page, origin=origin)


@pytest.mark.usefixtures("chat")
async def test_the_origin_must_be_that_of_the_page_with_the_token(channel: Channel) -> None:
    page, elsewhere = Page(channel), Page(channel, origin="http://elsewhere.test")
    welcome = await page.hello()
    await elsewhere.hello()
    with pytest.raises(InvalidStatus, match="403"):
        await Socket.dial(welcome, page, origin="http://elsewhere.test")


@pytest.mark.usefixtures("chat")
async def test_a_page_without_an_origin_is_offered_no_socket(channel: Channel) -> None:
    assert "token" not in await Page(channel, origin="null").hello()


@pytest.mark.usefixtures("chat")
async def test_it_listens_on_loopback_only(channel: Channel) -> None:
    welcome = await Page(channel).hello()
    with sockets.socket(sockets.AF_INET, sockets.SOCK_DGRAM) as probe:
        with contextlib.suppress(OSError):
            probe.connect(("192.0.2.1", 9))  # sends nothing; chooses our address
        address = probe.getsockname()[0]
    if address in ("0.0.0.0", "127.0.0.1"):
        pytest.skip("this machine has no other address")
    with pytest.raises(ConnectionRefusedError):
        sockets.create_connection((address, welcome["port"]), timeout=2)


@pytest.mark.usefixtures("chat")
async def test_a_token_is_in_no_trait_and_no_repr(channel: Channel) -> None:
    page = Page(channel)
    token = (await page.hello())["token"]
    assert token not in repr(channel) + str(channel.get_state()) + repr(channel.pages)


# --- what the user forbids --------------------------------------------------------------------------------------------


@pytest.fixture
def listeners(monkeypatch: pytest.MonkeyPatch) -> set[Any]:
    """Addresses on which this process began to listen."""
    opened: set[Any] = set()
    listen = sockets.socket.listen

    def note(socket: sockets.socket, *backlog: int) -> None:
        opened.add(socket.getsockname())
        listen(socket, *backlog)

    monkeypatch.setattr(sockets.socket, "listen", note)
    return opened


@pytest.mark.usefixtures("chat")
async def test_messages_only_opens_no_listening_socket(
    channel: Channel, monkeypatch: pytest.MonkeyPatch, listeners: set[Any]
) -> None:
    monkeypatch.setenv(channels.SWITCH, "messages")
    assert "port" not in await Page(channel).hello()
    assert listeners == set()


@pytest.mark.usefixtures("chat")
async def test_proxy_only_offers_no_direct_socket(
    channel: Channel, monkeypatch: pytest.MonkeyPatch, listeners: set[Any]
) -> None:
    assert (await Page(channel).hello())["direct"] is True
    monkeypatch.setenv(channels.SWITCH, "proxy")
    assert (await Page(channel).hello())["direct"] is False
    assert len(listeners) == 1


async def test_a_misspelt_switch_is_named_in_the_cell(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(channels.SWITCH, "message")
    with pytest.raises(WidgetError, match="RTNB_CHANNEL is 'message'; allowed: direct, proxy, messages"):
        channel.open_stream("new", lambda *_: None)
    assert not channel.streams


# --- delivery ---------------------------------------------------------------------------------------------------------


async def test_messages_arrive_once_and_in_order(channel: Channel, chat: Stream, received: Received) -> None:
    socket = await Page(channel).open("chat")
    await eventually(lambda: chat.joined)
    for i in range(100):
        chat.publish("count", {"i": i}, [bytes([i])])
    frames = [await socket.until("count") for _ in range(100)]
    assert [(frame.header, frame.buffers) for frame in frames] == [({"i": i}, [bytes([i])]) for i in range(100)]
    for i in range(100):
        await socket.send("chat", "up", {"i": i}, [b"x" * i])
    await eventually(lambda: len(received) == 100)
    assert [(header["i"], len(buffers[0])) for _, header, buffers in received] == [(i, i) for i in range(100)]


async def test_a_message_can_go_to_one_page_only(channel: Channel, chat: Stream) -> None:
    one, two = Page(channel), Page(channel)
    sockets_of = [await one.open("chat"), await two.open("chat")]
    await eventually(lambda: len(chat.joined) == 2)
    chat.publish("mine", {}, to=one.id)
    chat.publish("mine", {}, to=two.id)
    chat.publish("end", {})
    for socket in sockets_of:
        await socket.until("mine")
        assert (await socket.frame()).kind == "end"


async def test_handlers_run_on_the_background_loop(channel: Channel) -> None:
    threads: list[str] = []
    stream = channel.open_stream("where", lambda *_: threads.append(threading.current_thread().name))
    stream.on_page = lambda *_: threads.append(threading.current_thread().name)
    page = Page(channel)
    await page.join("where")
    page.send(pack("where", "k", {}))
    await eventually(lambda: len(threads) == 2)
    assert set(threads) == {"rtnb-loop"}


async def test_publishing_works_from_any_thread(channel: Channel, chat: Stream) -> None:
    socket = await Page(channel).open("chat")
    await eventually(lambda: chat.joined)
    threads = [
        threading.Thread(target=lambda: [chat.publish("n", {}) for _ in range(50)], name="rtnb-test") for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    assert {(await socket.until("n")).stream for _ in range(200)} == {"chat"}


async def test_a_request_gets_the_handlers_reply(channel: Channel) -> None:
    async def answer(kind: str, header: dict[str, Any], buffers: list[bytes]) -> dict[str, Any]:
        if kind == "fail":
            raise WidgetError("no device").with_hint("Plug one in.")
        if kind == "leak":
            raise RuntimeError("key sk-secret")
        return {"twice": 2 * header["i"] if kind == "double" else "x" * MAX_FRAME_BYTES}

    shared_loop().call_soon(lambda: asyncio.get_running_loop().set_exception_handler(lambda *_: None))
    channel.open_stream("ask", answer)
    socket = await Page(channel).open("ask")
    replies = []
    for number, kind in enumerate(("double", "fail", "leak", "large"), start=1):
        await socket.send("ask", kind, {"i": 21}, r=number)
        reply = await socket.until("reply")
        assert reply.request == number
        replies.append(reply.header)
    assert replies[:3] == [{"twice": 42}, {"error": "no device\nPlug one in."}, {"error": "RuntimeError"}]
    assert "allowed are 8388608" in replies[3]["error"]
    await socket.send("gone", "ask", {}, r=5)
    assert (await socket.until("reply")).header == {"error": "The widget was closed."}


async def test_a_failing_handler_stops_no_other(channel: Channel, chat: Stream, received: Received) -> None:
    reported: list[str] = []
    shared_loop().call_soon(
        lambda: asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))
    )
    channel.open_stream("bad", lambda *_: 1 / 0).on_page = lambda *_: 1 / 0  # type: ignore[arg-type, return-value]
    socket = await Page(channel).open("bad", "chat")
    await socket.send("bad", "k", {})
    await socket.send("chat", "k", {})
    await eventually(lambda: received)
    failed = "the handler of stream 'bad' failed on "
    assert reported == [f"{failed}'joined'", f"{failed}'k'"]
    assert len(chat.joined) == 1


async def test_the_kernels_clock_is_given_to_the_page(channel: Channel, chat: Stream) -> None:
    socket = await Page(channel).open("chat")
    before = now_ms()
    await socket.say("clock", page_ms=5.0)
    clock = (await socket.until("clock")).header
    assert clock["page_ms"] == 5.0
    assert before <= clock["kernel_ms"] <= now_ms()


# --- widget messages --------------------------------------------------------------------------------------------------


async def test_a_burst_leaves_in_few_numbered_widget_messages(channel: Channel, chat: Stream) -> None:
    page = Page(channel)
    await page.join("chat")
    await eventually(lambda: chat.joined)
    for i in range(500):
        chat.publish("n", {"i": i})
    assert [(await page.until("n")).header["i"] for _ in range(500)] == list(range(500))
    assert page.numbers == [(1, number) for number in range(1, len(page.numbers) + 1)]
    assert len(page.numbers) < 25


async def test_a_widget_message_that_overtook_another_ends_the_connection(
    channel: Channel, chat: Stream, received: Received, changes: list[Any]
) -> None:
    page = Page(channel)
    await page.join("chat")
    page.send(pack("chat", "n", {"i": 0}))
    page.sent_bytes += 100  # another message is still under way, in another of the kernel's shells
    page.send(pack("chat", "n", {"i": 2}))
    await eventually(lambda: (1, 0) in page.numbers)  # a wrong number: the page connects again
    page.send(pack("chat", "n", {"i": 1}))
    await page.join("chat")
    page.send(pack("chat", "n", {"i": 3}))
    await eventually(lambda: len(received) == 2)
    assert [header["i"] for _, header, _ in received] == [0, 3]
    assert changes == [(page.id, "joined")] * 2


async def test_an_unknown_page_is_made_to_connect_again(channel: Channel, chat: Stream) -> None:
    page = Page(channel)
    page.connection = 7
    page.send(pack("chat", "n", {}))
    await eventually(lambda: page.numbers == [(7, 0)])
    assert len(chat.joined) == 0


# --- reconnections ----------------------------------------------------------------------------------------------------


async def test_a_page_that_connects_again_joins_again(channel: Channel, chat: Stream, changes: list[Any]) -> None:
    page = Page(channel)
    other = channel.open_stream("other", lambda *_: None)
    other.on_page = lambda page_id, change: changes.append((page_id, f"other {change}"))
    socket = await page.open("chat", "other")
    await eventually(lambda: other.joined)
    socket.connection.transport.abort()
    await eventually(lambda: len(chat.joined) == 0)
    chat.publish("n", {"i": 1})
    again = await page.open("chat")
    await eventually(lambda: chat.joined)
    chat.publish("n", {"i": 2})
    assert (await again.until("n")).header == {"i": 2}, "nothing is kept; the snapshot replaces it"
    assert changes == [(page.id, what) for what in ("joined", "other joined", "other left", "joined")]
    assert channel.status == ("direct", 1)


async def test_a_new_connection_replaces_the_last(channel: Channel, chat: Stream, received: Received) -> None:
    page = Page(channel)
    socket = await page.open("chat")
    await page.join("chat")
    assert await socket.close_code() == 1000
    page.connection -= 1
    page.send(pack("chat", "old", {}))
    page.connection += 1
    page.sent_bytes = page.sent_bytes - len(pack("chat", "old", {}))
    page.send(pack("chat", "new", {}))
    await eventually(lambda: received)
    assert [kind for kind, *_ in received] == ["new"]
    assert channel.status == ("messages", 1)


async def test_a_slow_page_costs_bounded_memory_and_joins_again(
    channel: Channel, chat: Stream, changes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "QUEUE_BYTES", 2**20)
    page = Page(channel)
    socket = await page.open("chat")
    await eventually(lambda: chat.joined)
    socket.connection.transport.pause_reading()
    for i in range(3000):
        chat.publish("n", {"i": i}, [bytes(10_000)])
        await asyncio.sleep(0)
    await eventually(lambda: len(chat.joined) == 0)
    assert channel.pages[page.id].queued_bytes < 1000
    socket.connection.transport.resume_reading()
    await socket.until("rejoin")
    await socket.say("join", names=["chat"], all=["chat"])
    await eventually(lambda: chat.joined)
    chat.publish("snapshot", {})
    assert (await socket.frame()).kind == "snapshot"
    assert changes == [(page.id, "joined")] * 2


@pytest.mark.usefixtures("chat")
async def test_a_frame_too_large_closes_the_socket(channel: Channel) -> None:
    socket = await Page(channel).open("chat")
    await socket.connection.send(bytes(MAX_FRAME_BYTES + 1))
    assert await socket.close_code() == 1009


@pytest.mark.usefixtures("chat")
@pytest.mark.parametrize("nonsense", [b"", b"\0" * 64, "text"])
async def test_nonsense_closes_the_socket(channel: Channel, nonsense: bytes | str) -> None:
    socket = await Page(channel).open("chat")
    await socket.connection.send(nonsense)
    assert await socket.close_code() == 1007


# --- pages ------------------------------------------------------------------------------------------------------------


async def test_listeners_know_when_pages_join_and_leave(channel: Channel, chat: Stream, changes: list[Any]) -> None:
    one, two = Page(channel), Page(channel)
    socket = await one.open("chat")
    await two.join("chat")
    await eventually(lambda: len(chat.joined) == 2)
    await socket.connection.close(1001)  # as a browser does when its tab is closed or reloaded
    await eventually(lambda: len(chat.joined) == 1)
    two.say("bye")
    await eventually(lambda: len(changes) == 4)
    assert len(chat.joined) == 0
    assert changes == [(one.id, "joined"), (two.id, "joined"), (one.id, "left"), (two.id, "left")]


async def test_one_page_is_active_and_another_can_claim_it(channel: Channel, chat: Stream) -> None:
    one, two = Page(channel), Page(channel)
    assert (await one.hello())["active"] == one.id
    assert (await two.hello())["active"] == one.id == channel.active_page
    two.say("claim")
    while (await one.until("active")).header != {"active": two.id}:
        pass
    two.say("bye")
    await eventually(lambda: channel.active_page == one.id)


@pytest.mark.parametrize("others, patience_s", [(True, 25), (False, 120)])
async def test_a_silent_page_is_forgotten(
    channel: Channel, chat: Stream, changes: list[Any], others: bool, patience_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel waits longer where it hears no page at all: it may be blocked itself."""
    monkeypatch.setattr(channels, "PING_S", 0.02)
    page = Page(channel)
    await page.join("chat")
    await eventually(lambda: chat.joined)
    channel.pages[page.id].heard_s -= patience_s - 10
    channel.heard_s -= 0 if others else patience_s - 10
    pinged = len(page.numbers)
    await eventually(lambda: len(page.numbers) > pinged + 3)
    channel.pages[page.id].heard_s -= 11
    await eventually(lambda: len(chat.joined) == 0)
    assert changes == [(page.id, "joined"), (page.id, "left")]


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_closing_the_last_stream_leaves_nothing_behind(channel: Channel, chat: Stream) -> None:
    page = Page(channel)
    socket = await page.open("chat")
    by_message = Page(channel)
    await by_message.join("chat")
    other = channel.open_stream("other", lambda *_: None)
    chat.close()
    chat.close()
    assert channel.status.kind == "direct"
    other.close()
    assert await socket.close_code() in (1000, 1001)
    await asyncio.to_thread(shared_loop().run, _ended(), 30)
    with pytest.raises(OSError):
        await Socket.dial({"port": socket.connection.remote_address[1]}, Page(channel))
    assert channel.status == ("none", 0)


async def test_a_new_stream_opens_the_channel_again(channel: Channel, chat: Stream) -> None:
    page = Page(channel)
    await page.open("chat")
    chat.close()
    await eventually(lambda: channel.status.pages == 0)
    channel.open_stream("chat", lambda *_: None)
    await page.open("chat")
    assert channel.status.kind == "direct"


async def test_the_channel_survives_a_restart_of_the_loop(channel: Channel, chat: Stream) -> None:
    page = Page(channel)
    socket = await page.open("chat")
    await asyncio.to_thread(shared_loop().stop)
    assert await socket.close_code()
    await page.open("chat")
    await eventually(lambda: len(chat.joined) == 1)
    assert channel.status == ("direct", 1)


def test_a_name_is_used_once(channel: Channel) -> None:
    channel.open_stream("a", lambda *_: None)
    for name in ("a", ""):
        with pytest.raises(ValueError, match="stream name"):
            channel.open_stream(name, lambda *_: None)
