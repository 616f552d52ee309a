"""The kernel's side of the channel: frames and uploads, who gets in, delivery, reconnections, bounds, and the end."""

import asyncio
import contextlib
import secrets
import socket as sockets
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus

from rtnb._loop import shared_loop
from rtnb.errors import WidgetError
from rtnb.widgets import channel as channels
from rtnb.widgets._frames import MAX_FRAME_BYTES, now_ms, pack, unpack
from rtnb.widgets._upload import Upload
from rtnb.widgets.channel import Channel
from tests.widgets.page import ORIGIN, Page, Socket, eventually
from tests.widgets.scene import on_loop

# --- frames and uploads -----------------------------------------------------------------------------------------------

headers = st.dictionaries(
    st.text(max_size=5), st.one_of(st.integers(), st.text(), st.booleans(), st.none()), max_size=3
)


@given(st.text(min_size=1), st.text(), headers, st.lists(st.binary(max_size=30), max_size=4))
def test_unpack_returns_what_was_packed(stream: str, kind: str, header: dict[str, Any], buffers: list[bytes]) -> None:
    data = pack(stream, kind, header, buffers, r=7)
    frame = unpack(data)
    assert (frame.stream, frame.kind, frame.header, frame.buffers) == (stream, kind, header, buffers)
    assert frame.request == 7
    assert len(data) % 8 == 0


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a frame"):
        unpack(data)


def test_a_truncated_frame_is_refused() -> None:
    data = pack("c", "k", {}, [b"12345678"])
    for end in range(len(data)):
        with pytest.raises(ValueError, match="not a frame"):
            unpack(data[:end])


def test_pack_refuses_what_is_too_large_or_not_json() -> None:
    with pytest.raises(ValueError, match="allowed are"):
        pack("c", "k", {}, [bytes(MAX_FRAME_BYTES)])
    with pytest.raises(TypeError):
        pack("c", "k", {"x": b""})
    with pytest.raises(ValueError, match="JSON"):
        pack("c", "k", {"x": float("nan")})


def piece(upload_id: str, at: int, size: int) -> dict[str, Any]:
    return {"upload": {"id": upload_id, "at": at, "size": size}}


@pytest.fixture
def upload() -> Upload:
    """An upload of which three bytes of nine have come."""
    upload = Upload()
    upload.receive(piece("a", 0, 9), [b"abc"])
    return upload


def test_an_upload_returns_all_its_bytes() -> None:
    data, upload = secrets.token_bytes(10_000), Upload()
    pieces = [upload.receive(piece("a", at, 10_000), [data[at : at + 3000]]) for at in range(0, 10_000, 3000)]
    assert pieces == [None, None, None, data]
    assert not upload.data
    assert upload.receive(piece("b", 0, 0), [b""]) == b""


@pytest.mark.parametrize(
    "at, size, data", [(6, 9, b"ghi"), (0, 9, b"abcdefghijk"), (3, 8, b"def"), (3, 9, b"defghijk")]
)
def test_a_piece_out_of_order_ends_the_upload(upload: Upload, at: int, size: int, data: bytes) -> None:
    with pytest.raises(WidgetError, match="The upload broke"):
        upload.receive(piece("a", at, size), [data])
    with pytest.raises(WidgetError, match="cancelled"):
        upload.receive(piece("a", 3, 9), [b"def"])


def test_a_cancelled_or_replaced_upload_takes_no_more_pieces(upload: Upload) -> None:
    upload.receive(piece("b", 0, 6), [b"abc"])
    with pytest.raises(WidgetError, match="cancelled"):
        upload.receive(piece("a", 3, 9), [b"def"])
    upload.receive({"upload": {"id": "a", "cancel": True}}, [])
    assert len(upload.data) == 3, "the page of the replaced upload cancels its own only"
    upload.receive({"upload": {"id": "b", "cancel": True}}, [])
    with pytest.raises(WidgetError, match="cancelled"):
        upload.receive(piece("b", 3, 6), [b"def"])


def test_an_upload_over_the_limit_is_refused_at_its_first_piece() -> None:
    upload = Upload()
    with pytest.raises(WidgetError, match="129 MiB; allowed are 128 MiB"):
        upload.receive(piece("a", 0, 129 * 2**20), [bytes(2**20)])
    assert not upload.data


# --- channel, stream and page -----------------------------------------------------------------------------------------


@pytest.fixture
async def channel() -> AsyncIterator[Channel]:
    channel = Channel()
    yield channel
    channel.close()
    await asyncio.to_thread(on_loop, _ended)  # its sockets close on this loop


async def _ended() -> None:
    """Wait until nothing runs on this loop."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


class Chat:
    """A stream that keeps what it receives, and which pages join and leave."""

    def __init__(self, channel: Channel) -> None:
        self.received: list[tuple[str, dict[str, Any], list[bytes]]] = []
        self.changes: list[tuple[str, str]] = []
        self.stream = channel.open_stream("chat", lambda *message: self.received.append(message))
        self.stream.on_page = lambda *change: self.changes.append(change)
        self.publish = self.stream.publish

    @property
    def joined(self) -> int:
        """Number of pages that show it."""
        return len(self.stream.joined)


@pytest.fixture
def chat(channel: Channel) -> Chat:
    return Chat(channel)


@pytest.fixture
async def page(channel: Channel, chat: Chat) -> Page:
    """A page that is not connected yet."""
    return Page(channel)


@pytest.fixture
async def socket(page: Page, chat: Chat) -> Socket:
    """The socket of the page, over which it has joined the chat."""
    return await page.open("chat")


# --- who gets in ------------------------------------------------------------------------------------------------------


async def test_a_page_gets_in_once_with_its_token_which_is_shown_nowhere(page: Page) -> None:
    welcome = await page.hello()
    await (await Socket.dial(welcome, page)).until("open")
    channel = page.channel
    assert welcome["token"] not in repr(channel) + str(channel.get_state()) + repr(channel.pages)
    with pytest.raises(InvalidStatus, match="403"):
        await Socket.dial(welcome, page)
    assert channel.status == ("direct", 1), "the first one is not disturbed"


ELSEWHERE = "http://elsewhere.test"


@pytest.mark.parametrize(
    "origin", [None, "null", "http://localhost:8889", "https://localhost:8888", "http://evil.test", ELSEWHERE]
)
async def test_another_origin_than_that_of_the_page_is_refused(page: Page, origin: str | None) -> None:
    await Page(page.channel, origin=ELSEWHERE).hello()
    with pytest.raises(InvalidStatus, match="403"):
        await Socket.dial(await page.hello(), page, origin=origin)


@pytest.mark.parametrize(
    "caller, token, connection",
    [
        ("page", "wrong", 2),
        ("page", "", 2),
        ("page", "of the other page", 2),
        ("page", "older", 2),
        ("page", "newest", 1),
        ("other page", "newest", 2),
    ],
)
async def test_no_other_token_is_accepted(page: Page, caller: str, token: str, connection: int) -> None:
    other = Page(page.channel)
    tokens = {"wrong": "x" * 43, "": "", "older": (await page.hello())["token"]}
    await other.hello()
    welcome = await page.hello()
    tokens |= {"newest": welcome["token"], "of the other page": (await other.hello())["token"]}
    pages = {"page": page, "other page": other}
    with pytest.raises(InvalidStatus, match="403"):
        await Socket.dial({**welcome, "token": tokens[token]}, pages[caller], connection=connection)


async def test_a_token_expires(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    welcome = await page.hello()
    now = time.monotonic
    monkeypatch.setattr(channels.time, "monotonic", lambda: now() + channels.TOKEN_S)
    with pytest.raises(InvalidStatus, match="403"):
        await Socket.dial(welcome, page)


async def test_it_listens_on_loopback_only(page: Page) -> None:
    welcome = await page.hello()
    with sockets.socket(sockets.AF_INET, sockets.SOCK_DGRAM) as probe:
        with contextlib.suppress(OSError):
            probe.connect(("192.0.2.1", 9))  # sends nothing; chooses our address
        address = probe.getsockname()[0]
    if address in ("0.0.0.0", "127.0.0.1"):
        pytest.skip("this machine has no other address")
    with pytest.raises(ConnectionRefusedError):
        sockets.create_connection((address, welcome["port"]), timeout=2)


@pytest.mark.parametrize(
    "switch, origin, direct, n_listening",
    [("", ORIGIN, True, 1), ("", "null", None, 0), ("proxy", ORIGIN, False, 1), ("messages", ORIGIN, None, 0)],
)
async def test_the_switch_or_an_opaque_origin_forbids_sockets(
    page: Page, switch: str, origin: str, direct: bool | None, n_listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: set[Any] = set()
    listen = sockets.socket.listen

    def note(socket: sockets.socket, *backlog: int) -> None:
        opened.add(socket.getsockname())
        listen(socket, *backlog)

    monkeypatch.setattr(sockets.socket, "listen", note)
    monkeypatch.setenv(channels.SWITCH, switch)
    page.origin = origin
    assert (await page.hello()).get("direct") is direct
    assert len(opened) == n_listening


async def test_a_misspelt_switch_is_named_in_the_cell(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(channels.SWITCH, "message")
    with pytest.raises(WidgetError, match="RTNB_CHANNEL is 'message'; allowed: direct, proxy, messages"):
        channel.open_stream("new", lambda *_: None)
    assert not channel.streams


# --- delivery ---------------------------------------------------------------------------------------------------------


async def test_messages_arrive_once_and_in_order(socket: Socket, chat: Chat) -> None:
    for i in range(100):
        chat.publish("count", {"i": i}, [bytes([i])])
    frames = [await socket.until("count") for _ in range(100)]
    assert [(frame.header, frame.buffers) for frame in frames] == [({"i": i}, [bytes([i])]) for i in range(100)]
    for i in range(100):
        await socket.send("chat", "up", {"i": i}, [b"x" * i])
    await eventually(lambda: len(chat.received) == 100)
    assert [(header["i"], len(buffers[0])) for _, header, buffers in chat.received] == [(i, i) for i in range(100)]


async def test_a_message_can_go_to_one_page_only(page: Page, socket: Socket, chat: Chat) -> None:
    other = Page(page.channel)
    sockets_of = [socket, await other.open("chat")]
    chat.publish("mine", {}, to=page.id)
    chat.publish("mine", {}, to=other.id)
    chat.publish("end", {})
    for one in sockets_of:
        await one.until("mine")
        assert (await one.frame()).kind == "end"


async def test_handlers_run_on_the_background_loop(page: Page) -> None:
    threads: list[str] = []
    stream = page.channel.open_stream("where", lambda *_: threads.append(threading.current_thread().name))
    stream.on_page = lambda *_: threads.append(threading.current_thread().name)
    await page.join("where")
    page.send(pack("where", "k", {}))
    await eventually(lambda: len(threads) == 2)
    assert set(threads) == {"rtnb-loop"}


async def test_publishing_works_from_any_thread(socket: Socket, chat: Chat) -> None:
    await asyncio.gather(*(asyncio.to_thread(lambda: [chat.publish("n", {}) for _ in range(50)]) for _ in range(4)))
    assert {(await socket.until("n")).stream for _ in range(200)} == {"chat"}


@pytest.mark.usefixtures("reported")
async def test_a_request_gets_the_handlers_reply(page: Page) -> None:
    async def answer(kind: str, header: dict[str, Any], buffers: list[bytes]) -> dict[str, Any]:
        if kind == "fail":
            raise WidgetError("no device").with_hint("Plug one in.")
        if kind == "leak":
            raise RuntimeError("key sk-secret")
        return {"twice": 2 * header["i"] if kind == "double" else "x" * MAX_FRAME_BYTES}

    page.channel.open_stream("ask", answer)
    socket = await page.open("ask")
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


async def test_a_failing_handler_stops_no_other(page: Page, chat: Chat, reported: list[Any]) -> None:
    page.channel.open_stream("bad", lambda *_: 1 / 0).on_page = lambda *_: 1 / 0  # type: ignore[arg-type, return-value]
    socket = await page.open("bad", "chat")
    await socket.send("bad", "k", {})
    await socket.send("chat", "k", {})
    await eventually(lambda: chat.received)
    failed = "the handler of stream 'bad' failed on "
    assert [context["message"] for context in reported] == [f"{failed}'joined'", f"{failed}'k'"]
    assert chat.joined == 1


async def test_the_kernels_clock_is_given_to_the_page(socket: Socket) -> None:
    before = now_ms()
    await socket.say("clock", page_ms=5.0)
    clock = (await socket.until("clock")).header
    assert clock["page_ms"] == 5.0
    assert before <= clock["kernel_ms"] <= now_ms()


# --- widget messages --------------------------------------------------------------------------------------------------


async def test_a_burst_leaves_in_few_numbered_widget_messages(page: Page, chat: Chat) -> None:
    await page.join("chat")
    for i in range(500):
        chat.publish("n", {"i": i})
    assert [(await page.until("n")).header["i"] for _ in range(500)] == list(range(500))
    assert page.numbers == [(1, number) for number in range(1, len(page.numbers) + 1)]
    assert len(page.numbers) < 25


async def test_a_widget_message_that_overtook_another_ends_the_connection(page: Page, chat: Chat) -> None:
    await page.join("chat")
    page.send(pack("chat", "n", {"i": 0}))
    page.sent_bytes += 100  # another message is still under way, in another of the kernel's shells
    page.send(pack("chat", "n", {"i": 2}))
    await eventually(lambda: (1, 0) in page.numbers)  # a wrong number: the page connects again
    page.send(pack("chat", "n", {"i": 1}))
    await page.join("chat")
    page.send(pack("chat", "n", {"i": 3}))
    await eventually(lambda: len(chat.received) == 2)
    assert [header["i"] for _, header, _ in chat.received] == [0, 3]
    assert chat.changes == [(page.id, "joined")] * 2


async def test_an_unknown_page_is_made_to_connect_again(page: Page, chat: Chat) -> None:
    page.connection = 7
    page.send(pack("chat", "n", {}))
    await eventually(lambda: page.numbers == [(7, 0)])
    assert chat.joined == 0


# --- reconnections ----------------------------------------------------------------------------------------------------


async def test_a_page_that_connects_again_joins_again(page: Page, chat: Chat) -> None:
    other = page.channel.open_stream("other", lambda *_: None)
    other.on_page = lambda page_id, change: chat.changes.append((page_id, f"other {change}"))
    socket = await page.open("chat", "other")
    socket.connection.transport.abort()
    await eventually(lambda: chat.joined == 0)
    chat.publish("n", {"i": 1})
    again = await page.open("chat")
    chat.publish("n", {"i": 2})
    assert (await again.until("n")).header == {"i": 2}, "nothing is kept; the snapshot replaces it"
    assert chat.changes == [(page.id, what) for what in ("joined", "other joined", "other left", "joined")]
    assert page.channel.status == ("direct", 1)


async def test_a_new_connection_replaces_the_last(page: Page, socket: Socket, chat: Chat) -> None:
    await page.join("chat")
    assert await socket.close_code() == 1000
    page.connection -= 1
    page.send(pack("chat", "old", {}))
    page.connection += 1
    page.sent_bytes = page.sent_bytes - len(pack("chat", "old", {}))
    page.send(pack("chat", "new", {}))
    await eventually(lambda: chat.received)
    assert [kind for kind, *_ in chat.received] == ["new"]
    assert page.channel.status == ("messages", 1)


async def test_a_slow_page_costs_bounded_memory_and_joins_again(
    page: Page, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "QUEUE_BYTES", 2**20)
    socket = await page.open("chat")
    socket.connection.transport.pause_reading()
    for i in range(3000):
        chat.publish("n", {"i": i}, [bytes(10_000)])
        await asyncio.sleep(0)
    await eventually(lambda: chat.joined == 0)
    assert page.channel.pages[page.id].queued_bytes < 1000
    socket.connection.transport.resume_reading()
    await socket.until("rejoin")
    await socket.say("join", names=["chat"], all=["chat"])
    await eventually(lambda: chat.joined)
    chat.publish("snapshot", {})
    assert (await socket.frame()).kind == "snapshot"
    assert chat.changes == [(page.id, "joined")] * 2


@pytest.mark.parametrize(
    "nonsense, code",
    [(b"", 1007), (b"\0" * 64, 1007), ("text", 1007), (bytes(MAX_FRAME_BYTES + 1), 1009)],
    ids=["empty", "no frame", "text", "too large"],
)
async def test_nonsense_closes_the_socket(socket: Socket, nonsense: bytes | str, code: int) -> None:
    await socket.connection.send(nonsense)
    assert await socket.close_code() == code


# --- pages ------------------------------------------------------------------------------------------------------------


async def test_listeners_know_when_pages_join_and_leave(page: Page, chat: Chat) -> None:
    two = Page(page.channel)
    socket = await page.open("chat")
    await two.join("chat")
    await socket.connection.close(1001)  # as a browser does when its tab is closed or reloaded
    await eventually(lambda: chat.joined == 1)
    two.say("bye")
    await eventually(lambda: len(chat.changes) == 4)
    assert chat.joined == 0
    assert chat.changes == [(page.id, "joined"), (two.id, "joined"), (page.id, "left"), (two.id, "left")]


async def test_one_page_is_active_and_another_can_claim_it(page: Page) -> None:
    channel, two = page.channel, Page(page.channel)
    assert (await page.hello())["active"] == page.id
    assert (await two.hello())["active"] == page.id == channel.active_page
    two.say("claim")
    while (await page.until("active")).header != {"active": two.id}:
        pass
    two.say("bye")
    await eventually(lambda: channel.active_page == page.id)


@pytest.mark.parametrize("others, patience_s", [(True, 25), (False, 120)])
async def test_a_silent_page_is_forgotten(
    page: Page, chat: Chat, others: bool, patience_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel waits longer where it hears no page at all: it may be blocked itself."""
    monkeypatch.setattr(channels, "PING_S", 0.02)
    channel = page.channel
    await page.join("chat")
    channel.pages[page.id].heard_s -= patience_s - 10
    channel.heard_s -= 0 if others else patience_s - 10
    pinged = len(page.numbers)
    await eventually(lambda: len(page.numbers) > pinged + 3)
    channel.pages[page.id].heard_s -= 11
    await eventually(lambda: chat.joined == 0)
    assert chat.changes == [(page.id, "joined"), (page.id, "left")]


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_closing_the_last_stream_leaves_nothing_behind(page: Page, socket: Socket, chat: Chat) -> None:
    channel = page.channel
    await Page(channel).join("chat")
    other = channel.open_stream("other", lambda *_: None)
    chat.stream.close()
    chat.stream.close()
    assert channel.status.kind == "direct"
    other.close()
    assert await socket.close_code() in (1000, 1001)
    await asyncio.to_thread(on_loop, _ended)
    with pytest.raises(OSError):
        await Socket.dial({"port": socket.connection.remote_address[1]}, Page(channel))
    assert channel.status == ("none", 0)
    channel.open_stream("chat", lambda *_: None)  # and a new stream opens it again
    await page.open("chat")
    assert channel.status.kind == "direct"


async def test_the_channel_survives_a_restart_of_the_loop(page: Page, socket: Socket, chat: Chat) -> None:
    await Page(page.channel).join("chat")
    await asyncio.to_thread(shared_loop().stop)
    chat.publish("n", {})
    assert not shared_loop().running, "a message to a page starts no thread"
    assert await socket.close_code()
    await page.open("chat")
    assert page.channel.status == ("direct", 1)


def test_a_name_is_used_once(channel: Channel) -> None:
    channel.open_stream("a", lambda *_: None)
    for name in ("a", ""):
        with pytest.raises(ValueError, match="stream name"):
            channel.open_stream(name, lambda *_: None)
