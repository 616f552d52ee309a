"""The line's WebSocket: who gets in, and that nothing is lost, doubled or left behind."""

from __future__ import annotations

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
from rtnb.widgets import _frames, _socket
from rtnb.widgets._frames import prepare
from rtnb.widgets.channel import Channel
from tests.widgets.page import Page, Socket, eventually

Heard = list[tuple[str, dict[str, Any], list[bytes]]]


@pytest.fixture
async def line() -> AsyncIterator[Channel]:
    line = Channel()
    yield line
    line.close()
    await asyncio.to_thread(
        shared_loop().run, _ended(), 30
    )  # the pages of the test live on this loop: they say goodbye


async def _ended() -> None:
    """Wait until nothing runs on this loop."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


@pytest.fixture
def heard() -> Heard:
    return []


@pytest.fixture
def channel(line: Channel, heard: Heard) -> Any:
    return line.open_stream("chat", lambda kind, header, buffers: heard.append((kind, header, buffers)))


# --- the door ---------------------------------------------------------------------------------------------------------


async def test_a_page_with_its_token_gets_in(line: Channel, channel: Any) -> None:
    page = Page(line)
    await page.open("chat")
    assert line.status.kind == "direct"
    assert channel.pages == line.status.pages == 1


@pytest.mark.usefixtures("channel")
@pytest.mark.parametrize("case", ["wrong", "none", "of another page", "as another page", "not JSON", "a list"])
async def test_no_other_token_is_taken(line: Channel, case: str) -> None:
    page, other = Page(line), Page(line)
    offer, others = await page.hello(), await other.hello()
    door = await Socket.dial(offer)
    if case == "wrong":
        await door.show("x" * 43, page.id)
    elif case == "none":
        await door.connection.send("{}")
    elif case == "of another page":
        await door.show(others["token"], page.id)
    elif case == "as another page":
        await door.show(offer["token"], other.id)
    else:
        await door.connection.send("hello" if case == "not JSON" else "[]")
    assert await door.close_code() == 4401


@pytest.mark.usefixtures("channel")
async def test_a_token_works_once(line: Channel) -> None:
    page = Page(line)
    offer = await page.hello()
    first = await Socket.dial(offer)
    await page.hello()  # so that this origin is expected again
    await first.show(offer["token"], page.id)
    assert await first.close_code() == 4401, "a newer token makes the older one worthless"
    offer = await page.hello()
    second, third = await Socket.dial(offer), await Socket.dial(offer)
    await second.show(offer["token"], page.id)
    await second.until("resume")
    await third.show(offer["token"], page.id)
    assert await third.close_code() == 4401
    assert line.status.kind == "direct", "the first is not disturbed"


@pytest.mark.usefixtures("channel")
async def test_a_token_dies_soon(line: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(line)
    offer = await page.hello()
    door = await Socket.dial(offer)
    now = time.monotonic
    monkeypatch.setattr(_socket.time, "monotonic", lambda: now() + _socket.TOKEN_S)
    await door.show(offer["token"], page.id)
    assert await door.close_code() == 4401
    with pytest.raises(InvalidStatus, match="403"):
        await Socket.dial(offer)


@pytest.mark.usefixtures("channel")
@pytest.mark.parametrize(
    "origin", [None, "null", "http://localhost:8889", "https://localhost:8888", "http://evil.test"]
)
async def test_no_other_origin_is_let_in(line: Channel, origin: str | None) -> None:
    offer = await Page(line).hello()
    with pytest.raises(InvalidStatus, match="403"):
        await Socket.dial(offer, origin=origin)


@pytest.mark.usefixtures("channel")
async def test_the_origin_must_be_that_of_the_page_with_the_token(line: Channel) -> None:
    page, elsewhere = Page(line), Page(line, origin="http://elsewhere.test")
    offer = await page.hello()
    await elsewhere.hello()
    door = await Socket.dial(offer, origin="http://elsewhere.test")
    await door.show(offer["token"], page.id)
    assert await door.close_code() == 4401


@pytest.mark.usefixtures("channel")
async def test_a_page_without_an_origin_is_offered_no_socket(line: Channel) -> None:
    assert "token" not in await Page(line, origin="null").hello()


@pytest.mark.usefixtures("channel")
async def test_strangers_are_few(line: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_socket, "_FIRST_WORD_S", 60.0)  # so that none is sent away while the others come
    offer = await Page(line).hello()
    strangers = [await Socket.dial(offer) for _ in range(_socket._STRANGERS)]
    with pytest.raises(InvalidStatus, match="503"):
        await Socket.dial(offer)
    for stranger in strangers:
        await stranger.connection.close()


@pytest.mark.usefixtures("channel")
async def test_a_silent_stranger_is_sent_away(line: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    offer = await Page(line).hello()  # it listens now, with the patience for handshakes that it has
    monkeypatch.setattr(_socket, "_FIRST_WORD_S", 0.05)
    stranger = await Socket.dial(offer)
    assert await stranger.close_code() == 4401


@pytest.mark.usefixtures("channel")
async def test_it_listens_on_loopback_only(line: Channel) -> None:
    offer = await Page(line).hello()
    with sockets.socket(sockets.AF_INET, sockets.SOCK_DGRAM) as probe:
        with contextlib.suppress(OSError):
            probe.connect(("192.0.2.1", 9))  # sends nothing; tells our address
        address = probe.getsockname()[0]
    if address in ("0.0.0.0", "127.0.0.1"):
        pytest.skip("this machine has no other address")
    with pytest.raises(ConnectionRefusedError):
        sockets.create_connection((address, offer["port"]), timeout=2)


@pytest.mark.usefixtures("channel")
@pytest.mark.parametrize("switch, expected", [("messages", None), ("proxy", False), ("", True)])
async def test_the_user_can_switch_ways_off(
    line: Channel, monkeypatch: pytest.MonkeyPatch, switch: str, expected: bool | None
) -> None:
    monkeypatch.setenv(_socket.SWITCH, switch)
    assert (await Page(line).hello()).get("direct") is expected


@pytest.mark.usefixtures("channel")
async def test_a_token_is_in_no_trait_and_no_repr(line: Channel) -> None:
    page = Page(line)
    token = (await page.hello())["token"]
    assert token not in repr(line) + str(line.get_state()) + repr(line._hub.pages)


# --- what travels -----------------------------------------------------------------------------------------------------


async def test_messages_travel_both_ways_in_order(line: Channel, channel: Any, heard: Heard) -> None:
    socket = await Page(line).open("chat")
    for i in range(100):
        channel.publish("count", {"i": i}, [bytes([i])])
    frames = [await socket.until("count") for _ in range(100)]
    assert [(frame.number, frame.header, frame.buffers) for frame in frames] == [
        (i + 1, {"i": i}, [bytes([i])]) for i in range(100)
    ]
    for i in range(100):
        await socket.send("chat", i + 1, "up", {"i": i}, [b"x" * i])
    await eventually(lambda: len(heard) == 100)
    assert [(header["i"], len(buffers[0])) for _, header, buffers in heard] == [(i, i) for i in range(100)]


async def test_a_batch_travels_in_few_frames(line: Channel, channel: Any) -> None:
    socket = await Page(line).open("chat")
    channel.publish_batch("rows", [({"i": i}, [b"abc"]) for i in range(2500)])
    frames = [await socket.until("rows") for _ in range(3)]
    assert [header["i"] for frame in frames for header, _ in frame.messages()] == list(range(2500))


async def test_large_batches_are_cut(line: Channel, channel: Any) -> None:
    socket = await Page(line).open("chat")
    channel.publish_batch("rows", [({"i": i}, [bytes(700_000)]) for i in range(20)])
    headers: list[int] = []
    while len(headers) < 20:
        headers += [header["i"] for header, _ in (await socket.until("rows")).messages()]
    assert headers == list(range(20))


async def test_handlers_run_on_the_background_loop(line: Channel) -> None:
    where: list[str] = []
    channel = line.open_stream("where", lambda *_: where.append(threading.current_thread().name))
    channel.on_page(lambda *_: where.append(threading.current_thread().name))
    page = Page(line)
    await page.hello({"where": {"seen": None, "first": 1}})
    page.send(prepare("where", "k", {}).numbered(1))
    await eventually(lambda: len(where) == 2)
    assert set(where) == {"rtnb-loop"}


async def test_publishing_works_from_any_thread(line: Channel, channel: Any) -> None:
    socket = await Page(line).open("chat")
    threads = [
        threading.Thread(target=lambda: [channel.publish("n", {}) for _ in range(50)], name="rtnb-test")
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    numbers = [(await socket.until("n")).number for _ in range(200)]
    assert numbers == list(range(1, 201))


async def test_a_request_gets_the_handlers_answer(line: Channel) -> None:
    async def answer(kind: str, header: dict[str, Any], buffers: list[bytes]) -> dict[str, Any]:
        if kind == "fail":
            raise WidgetError("no device")
        if kind == "leak":
            raise RuntimeError("key sk-secret")
        return {"twice": 2 * header["i"]}

    shared_loop().call_soon(lambda: asyncio.get_running_loop().set_exception_handler(lambda *_: None))
    line.open_stream("ask", answer)
    socket = await Page(line).open("ask")
    replies = []
    for number, kind in enumerate(("double", "fail", "leak"), start=1):
        await socket.send("ask", number, kind, {"i": 21}, r=number)
        replies.append((await socket.until("reply")).header)
    assert replies == [{"twice": 42}, {"error": "no device"}, {"error": "RuntimeError"}]


async def test_a_handler_that_fails_stops_nobody(line: Channel, channel: Any, heard: Heard) -> None:
    told: list[str] = []
    shared_loop().call_soon(
        lambda: asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    )
    line.open_stream("bad", lambda *_: 1 / 0)  # type: ignore[arg-type, return-value]
    socket = await Page(line).open("bad", "chat")
    await socket.send("bad", 1, "k", {})
    await socket.send("chat", 1, "k", {})
    await eventually(lambda: heard)
    assert told == ["the handler of channel 'bad' failed on 'k'"]


async def test_stale_frames_are_dropped_and_counted(line: Channel, channel: Any, heard: Heard) -> None:
    socket = await Page(line).open("chat")
    await socket.send("chat", 1, "audio", {}, d=20_000)
    old = prepare("chat", "audio", {}, d=20_000)
    object.__setattr__(old, "stamp_ms", old.stamp_ms - 60_000)  # as if it had waited for a minute
    await socket.connection.send(old.numbered(2))
    await socket.send("chat", 3, "end", {})
    await eventually(lambda: len(heard) == 2)
    assert [kind for kind, _, _ in heard] == ["audio", "end"]
    assert line.status.late == 1


# --- gaps, breaks and slow pages --------------------------------------------------------------------------------------


async def test_what_a_page_misses_is_sent_again(line: Channel, channel: Any) -> None:
    socket = await Page(line).open("chat")
    for i in range(5):
        channel.publish("n", {"i": i})
    [await socket.until("n") for _ in range(5)]
    await socket.say("resend", name="chat", first=3)
    assert [(await socket.until("n")).number for _ in range(3)] == [3, 4, 5]


async def test_a_ping_that_overtakes_names_what_was_sent(line: Channel, channel: Any) -> None:
    """Else the page would ask again for what is on its way, and count it as missing."""
    socket = await Page(line).open("chat")

    async def ping_first() -> None:
        for i in range(3):
            line._hub.send(channel, prepare("chat", "n", {"i": i}))
        assert line._hub._pinging is not None
        line._hub._pinging.cancel()  # now, in place of the one that is due
        line._hub._ping()

    shared_loop().run(ping_first())
    assert (await socket.until("ping")).header["last"] == {"chat": 0}
    assert [(await socket.until("n")).number for _ in range(3)] == [1, 2, 3]


async def test_what_the_kernel_misses_is_asked_for(line: Channel, channel: Any, heard: Heard) -> None:
    socket = await Page(line).open("chat")
    await socket.send("chat", 1, "n", {"i": 1})
    await socket.send("chat", 4, "n", {"i": 4})
    assert (await socket.until("resend")).header == {"name": "chat", "first": 2}
    for number in (2, 3, 4):
        await socket.send("chat", number, "n", {"i": number})
    await eventually(lambda: len(heard) == 4)
    assert [header["i"] for _, header, _ in heard] == [1, 2, 3, 4]
    assert line.status.resent == 2
    await socket.send("chat", 7, "n", {"i": 7})
    await socket.say("lost", name="chat", last=6)
    await eventually(lambda: len(heard) == 5)
    assert line.status.lost == 2


async def test_a_broken_socket_falls_back_to_messages_and_resumes(line: Channel, channel: Any) -> None:
    page = Page(line)
    told: list[str] = []
    channel.on_page(lambda _, what: told.append(what))
    socket = await page.open("chat")
    channel.publish("n", {"i": 1})
    await socket.until("n")
    socket.connection.transport.abort()
    await eventually(lambda: line.status.kind == "messages")
    channel.publish("n", {"i": 2})
    assert (await page.until("n")).number == 2, "the page hears it at once, by message"

    offer = await page.hello({"chat": {"seen": 1, "first": 1}})
    again = await Socket.dial(offer)
    await again.show(offer["token"], page.id, {"chat": {"seen": 1, "first": 1}})
    channel.publish("n", {"i": 3})
    assert [(await again.until("n")).number for _ in range(2)] == [2, 3]
    assert line.status.kind == "direct"
    assert told == ["joined"], "the page was never gone"


async def test_a_slow_page_costs_bounded_memory_and_is_told(
    line: Channel, channel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_frames, "KEPT_BYTES", 2**20)
    socket = await Page(line).open("chat")
    socket.connection.transport.pause_reading()
    for i in range(3000):
        channel.publish("n", {"i": i}, [bytes(10_000)])
    shared_loop().run(asyncio.sleep(0))
    assert channel.outbox._bytes <= 2**20
    socket.connection.transport.resume_reading()
    numbers: list[int] = []
    gone = reached = 0
    while not numbers or numbers[-1] < 3000:
        frame = await socket.frame()
        if frame.kind == "lost":
            gone += frame.header["last"] - reached
            reached = frame.header["last"]
        elif frame.kind == "n":
            numbers.append(frame.number)
            reached = frame.number
    assert gone > 0
    assert len(numbers) + gone == 3000


@pytest.mark.usefixtures("channel")
async def test_a_frame_too_large_closes_the_socket(line: Channel) -> None:
    socket = await Page(line).open("chat")
    await socket.connection.send(bytes(_frames.MAX_FRAME_BYTES + 1))
    assert await socket.close_code() == 1009


@pytest.mark.usefixtures("channel")
@pytest.mark.parametrize("nonsense", [b"", b"\0" * 64, "text"])
async def test_nonsense_closes_the_socket(line: Channel, nonsense: bytes | str) -> None:
    socket = await Page(line).open("chat")
    await socket.connection.send(nonsense)
    assert await socket.close_code() == 1007


# --- messages ---------------------------------------------------------------------------------------------------------


async def test_a_burst_by_message_is_few_messages(line: Channel, channel: Any) -> None:
    page = Page(line)
    sent: list[int] = []
    before = line.comm.publish_msg
    line.comm.publish_msg = lambda kind, buffers=None, **more: (
        sent.append(len(buffers or ())),
        before(kind, buffers=buffers, **more),
    )
    await page.hello({"chat": {"seen": None, "first": 1}})
    for i in range(500):
        channel.publish("n", {"i": i})
    numbers = [(await page.until("n")).number for _ in range(500)]
    assert numbers == list(range(1, 501))
    assert len(sent) < 25


async def test_pages_are_told_of_when_they_come_and_go(line: Channel, channel: Any) -> None:
    told: list[tuple[str, str]] = []
    channel.on_page(lambda page_id, what: told.append((page_id, what)))
    one, two = Page(line), Page(line)
    socket = await one.open("chat")
    await two.hello({"chat": {"seen": None, "first": 1}})
    await eventually(lambda: channel.pages == 2)
    await socket.connection.close(1001)  # as a browser does when its tab is closed or reloaded
    await eventually(lambda: channel.pages == 1)
    two.say("bye")
    await eventually(lambda: len(told) == 4)
    assert channel.pages == 0
    assert told == [(one.id, "joined"), (two.id, "joined"), (one.id, "left"), (two.id, "left")]


async def test_one_page_is_active_and_another_can_claim_it(line: Channel, channel: Any) -> None:
    one, two = Page(line), Page(line)
    assert (await one.hello())["active"] == one.id
    assert (await two.hello())["active"] == one.id
    two.say("claim")
    assert (await one.until("active")).header == {"active": two.id}
    two.say("bye")
    await eventually(lambda: line._hub.active == one.id)
    assert channel.pages == 0


async def test_an_unknown_page_is_asked_to_say_hello(line: Channel, channel: Any) -> None:
    page = Page(line)
    page.send(prepare("chat", "n", {}).numbered(1))
    assert (await page.until("who")).number == 0
    assert channel.pages == 0


async def test_a_page_asking_for_a_closed_channel_is_told(line: Channel, channel: Any) -> None:
    page = Page(line)
    await page.hello({"gone": {"seen": 3, "first": 1}})
    assert [frame.header for frame in page.by_message if frame.kind == "closed"] == [{"name": "gone"}]
    assert channel.pages == 0


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_closing_the_last_channel_leaves_nothing_behind(line: Channel, channel: Any) -> None:
    page = Page(line)
    socket = await page.open("chat")
    other = line.open_stream("other", lambda *_: None)
    channel.close()
    channel.close()
    assert line.status.kind == "direct"
    other.close()
    assert await socket.close_code() in (1000, 1001)

    await asyncio.to_thread(shared_loop().run, _ended(), 30)
    with pytest.raises(OSError):
        await Socket.dial({"port": socket.connection.remote_address[1]})
    assert line.status == ("none", 0, 0, 0, 0)


async def test_a_channel_closed_by_another_thread_disturbs_no_other(line: Channel, channel: Any) -> None:
    """Its name is gone at once, its place at the pages a little later."""
    other = line.open_stream("other", lambda *_: None)
    socket = await Page(line).open("other", "chat")
    line._hub.channels.pop("other")  # as far as `close` has come when the loop looks
    channel.publish("n", {"i": 1})
    assert (await socket.until("n")).header == {"i": 1}
    assert set((await socket.until("ping")).header["last"]) == {"chat"}
    other.close()


async def test_a_new_channel_opens_the_line_again(line: Channel, channel: Any) -> None:
    page = Page(line)
    await page.open("chat")
    channel.close()
    await eventually(lambda: line.status.pages == 0)
    line.open_stream("chat", lambda *_: None)
    await page.open("chat")
    assert line.status.kind == "direct"


@pytest.mark.usefixtures("channel")
async def test_the_line_survives_a_restart_of_the_loop(line: Channel) -> None:
    page = Page(line)
    socket = await page.open("chat")
    await asyncio.to_thread(shared_loop().stop)
    assert await socket.close_code()
    await page.open("chat")
    assert line.status == ("direct", 1, 0, 0, 0)


def test_a_name_is_used_once(line: Channel) -> None:
    line.open_stream("a", lambda *_: None)
    for name in ("a", ""):
        with pytest.raises(ValueError, match="stream name"):
            line.open_stream(name, lambda *_: None)
