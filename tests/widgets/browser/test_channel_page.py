"""`channel.js` in Chromium against `Channel` in this process: framing, gaps, fallback, tabs, the end."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import groupby
from typing import Any

import pytest

from rtnb._loop import shared_loop
from rtnb.widgets._frames import prepare, unpack
from rtnb.widgets._socket import SWITCH
from rtnb.widgets.channel import Channel
from tests.widgets.browser.bridge import Tab, tabs_of
from tests.widgets.page import eventually

LISTEN = """() => {
    window.heard = [];
    window.ch = line.openStream("chat", (kind, header, buffers) => {
        heard.push([kind, header, buffers.map(b => b.byteLength)]);
    });
}"""


def once(heard: list[Any]) -> list[Any]:
    """Without what is repeated: a page whose welcome is slow says hello again, and the state is published again."""
    return [one for one, _ in groupby(heard)]


@pytest.fixture
async def tabs(browser: Any) -> AsyncIterator[tuple[Channel, Callable[..., Awaitable[Tab]]]]:
    line = Channel()
    async with tabs_of(line, browser) as opened:
        yield line, opened
    line.close()


async def test_the_page_reads_what_python_writes_and_back(tabs: Any) -> None:
    _, opened = tabs
    tab = await opened()
    header = {"text": "grüße 🎧", "n": [1, 2.5, None]}
    frame = prepare("c", "k", header, [b"", b"abc", bytes(range(16))], d=5).numbered(9)
    seen = await tab.run(
        """bytes => {
            const head = module.unpack(new Uint8Array(bytes).buffer);
            const floats = new Float32Array(head.buffers[2].buffer, head.buffers[2].byteOffset, 4);
            const back = module.pack({ c: head.c, n: head.n, s: head.s, k: head.k, h: head.h }, head.buffers);
            return [head.n, head.d, head.h, head.buffers.map(b => b.byteLength), floats.length, [...back]];
        }""",
        list(frame),
    )
    assert seen[:5] == [9, 5, header, [0, 3, 16], 4]
    again = unpack(bytes(seen[5]))
    assert (again.number, again.header, again.buffers) == (9, header, [b"", b"abc", bytes(range(16))])


async def test_the_pages_boxes_keep_the_laws(tabs: Any) -> None:
    _, opened = tabs
    tab = await opened()
    order = [*range(1, 41), *range(5, 20)]
    random.Random(7).shuffle(order)
    out = await tab.run(
        """order => {
            const counts = { late: 0, lost: 0, resent: 0 };
            const inbox = new module.Inbox(counts);
            inbox.expected = 1;
            const out = order.flatMap(n => inbox.take({ n })).map(head => head.n);
            const missing = [inbox.missing(), inbox.missing(44)];
            const skipped = [inbox.skip(1e15).length, inbox.expected, counts.lost];
            const delay = new module.Delay();
            const late = [[0, 100], [10, 105], [20, 620]].map(([sent, now]) => delay.late(sent, now));
            return [out, missing, skipped, late];
        }""",
        order,
    )
    assert out[0] == list(range(1, 41))
    assert out[1] == [None, 41]
    assert out[2] == [0, 10**15 + 1, 10**15 - 40]
    assert out[3][:2] == [0, 0]
    assert 504 < out[3][2] <= 505


async def test_it_goes_direct_and_both_ways(tabs: Any) -> None:
    line, opened = tabs
    heard: list[Any] = []

    def answer(kind: str, header: dict[str, Any], buffers: list[bytes]) -> dict[str, Any]:
        heard.append((kind, header, [len(buffer) for buffer in buffers]))
        return {"twice": 2 * header.get("i", 0)}

    channel = line.open_stream("chat", answer)
    channel.on_page(lambda _, what: channel.publish("state", {"what": what}, [b"12345"]))
    tab = await opened()
    await tab.run(LISTEN)
    await tab.until("line.status().kind === 'direct' && heard.length")
    assert once(await tab.run("heard")) == [["state", {"what": "joined"}, [5]]]
    await tab.run("ch.send('up', { i: 1 }, [new Float32Array(3), new ArrayBuffer(2)])")
    assert await tab.run("ch.request('ask', { i: 21 })") == {"twice": 42}
    assert heard == [("up", {"i": 1}, [12, 2]), ("ask", {"i": 21}, [])]
    channel.publish_batch("rows", [({"i": i}, [bytes(i)]) for i in range(3)])
    await tab.until("heard.filter(([kind]) => kind === 'rows').length === 3")
    assert once(await tab.run("heard"))[1:] == [["rows", {"i": i}, [i]] for i in range(3)]
    assert line.status == ("direct", 1, 0, 0, 0)
    assert await tab.run("line.isActivePage()")


async def test_a_request_nobody_answers_times_out(tabs: Any) -> None:
    line, opened = tabs

    async def never(kind: str, header: dict[str, Any], buffers: list[bytes]) -> None:
        await asyncio.get_running_loop().create_future()

    line.open_stream("chat", never)
    tab = await opened()
    await tab.run(LISTEN)
    told = await tab.run("ch.request('ask', {}, { timeout_ms: 50 }).catch(error => error.message)")
    assert told == "no answer to ask within 50 ms"

    async def cancel() -> None:
        for task in line._hub._tasks:
            task.cancel()

    shared_loop().run(cancel())


async def test_lost_messages_are_asked_for_and_counted(tabs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third is lost, every ninth twice; each counts once."""
    monkeypatch.setenv(SWITCH, "messages")
    line, opened = tabs
    to_lose = Counter({number: 2 if number % 9 == 0 else 1 for number in range(3, 200, 3)})

    def lossy(buffers: list[bytes]) -> list[bytes]:
        arrive = []
        for buffer in buffers:
            frame = unpack(buffer)
            if frame.channel and to_lose[frame.number]:
                to_lose[frame.number] -= 1
            else:
                arrive.append(buffer)
        return arrive

    channel = line.open_stream("chat", lambda *_: None)
    tab = await opened(pass_on=lossy)
    await tab.run(LISTEN)
    await tab.until("line.status().kind === 'messages'")
    await eventually(lambda: channel.pages)

    async def publish() -> None:  # at once, so that all go in one widget message and its last arrives
        for i in range(200):
            channel.publish("n", {"i": i})

    shared_loop().run(publish())
    await tab.until("heard.length >= 200", timeout_s=30)
    assert [header["i"] for _, header, _ in await tab.run("heard")] == list(range(200))
    assert to_lose.total() == 0
    status = await tab.run("line.status()")
    assert (status["lost"], status["resent"]) == (0, 66)


async def test_a_lost_word_is_said_again(tabs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without "joined" the page would not know where its channel stands, and would show nothing for ever."""
    monkeypatch.setenv(SWITCH, "messages")
    line, opened = tabs
    lost: list[str] = []

    def lossy(buffers: list[bytes]) -> list[bytes]:
        for buffer in list(buffers):
            if unpack(buffer).kind == "joined" and not lost:
                buffers.remove(buffer)
                lost.append("joined")
        return buffers

    channel = line.open_stream("chat", lambda *_: None)
    channel.on_page(lambda _, what: channel.publish("state", {}))
    tab = await opened(pass_on=lossy)
    await tab.run(LISTEN)
    await tab.until("heard.length > 0")
    assert lost == ["joined"]


async def test_without_a_socket_it_stays_on_messages(tabs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The direct port answers nobody: what a page on another machine's loopback meets."""
    line, opened = tabs
    offer = line._hub.offer

    async def wrong_port(page: Any) -> dict[str, Any]:
        return {**await offer(page), "port": 9}

    line._hub.offer = wrong_port
    channel = line.open_stream("chat", lambda *_: {"ok": 1})
    tab = await opened(base_url="/nowhere/")
    await tab.run(LISTEN)
    await eventually(lambda: channel.pages)
    channel.publish("n", {})
    await tab.until("heard.length === 1")
    assert await tab.run("ch.request('ask', {})") == {"ok": 1}
    assert await tab.run("line.status().kind") == line.status.kind == "messages"


@pytest.mark.parametrize("place", ["http://localhost:1/", "http://127.0.0.1:1/lab", "https://hub.test/user/x/lab"])
async def test_where_it_tries(tabs: Any, place: str) -> None:
    _, opened = tabs
    tab = await opened()
    found = await tab.run(
        """place => {
            const document = { getElementById: () => ({ textContent: '{"baseUrl": "/user/x/"}' }) };
            return module.ways({ port: 5, direct: true }, { location: new URL(place), document });
        }""",
        place,
    )
    own = place.replace("http", "ws", 1).split("/", 3)[:3]
    proxy = ["proxy", "/".join([*own, "user/x/proxy/5/"])]
    assert found == ([proxy] if "hub" in place else [["direct", "ws://127.0.0.1:5/"], proxy])


async def test_a_broken_socket_is_mended_and_nothing_is_lost(tabs: Any) -> None:
    line, opened = tabs
    up: list[int] = []
    channel = line.open_stream("chat", lambda _, header, __: up.append(header["i"]))
    tab = await opened()
    await tab.run(LISTEN)
    await tab.until("line.status().kind === 'direct'")
    await eventually(lambda: channel.pages)
    await tab.run("() => { window.kinds = []; line.onStatus(({ kind }) => kinds.push(kind)); }")
    for i in range(300):
        channel.publish("n", {"i": i})
        if i == 150:
            (page,) = line._hub.pages.values()
            shared_loop().call_soon(line._hub.detach, page)
            await tab.run("() => { for (let i = 0; i < 50; i++) ch.send('up', { i }); }")
    await tab.until("heard.length >= 300 && line.status().kind === 'direct' && kinds.includes('messages')")
    await eventually(lambda: len(up) == 50)
    assert [header["i"] for _, header, _ in await tab.run("heard")] == list(range(300))
    assert up == list(range(50))
    assert line.status.lost == 0


async def test_nothing_is_sent_on_a_socket_that_closes(tabs: Any) -> None:
    line, opened = tabs
    up: list[int] = []
    channel = line.open_stream("chat", lambda _, header, __: up.append(header["i"]))
    tab = await opened()
    await tab.run(
        """() => {
            window.sockets = [];
            window.WebSocket = class extends WebSocket {
                constructor(...given) { super(...given); sockets.push(this); }
            };
        }"""
    )
    await tab.run(LISTEN)
    await tab.until("line.status().kind === 'direct'")
    await eventually(lambda: channel.pages)
    sent = await tab.run(
        """async () => {
            let sent = 0;
            sockets[0].send = () => (sent += 1);
            Object.defineProperty(sockets[0], "readyState", { value: WebSocket.CLOSING });
            for (let i = 0; i < 3; i++) ch.send("up", { i });
            await new Promise((done) => setTimeout(done, 200)); // a flush may be due later
            return sent;
        }"""
    )
    assert sent == 0
    await tab.run("sockets[0].close(4000)")
    await eventually(lambda: up == [0, 1, 2])


async def test_a_kernel_that_hears_nothing_gets_no_flood(tabs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "messages")
    line, opened = tabs
    up: list[int] = []
    line.open_stream("chat", lambda _, header, __: up.append(header["i"]))
    tab = await opened()
    await tab.run(LISTEN)
    await tab.until("line.status().kind === 'messages'")
    tab.kernel_hears = False
    await tab.run("() => { for (let i = 0; i < 3000; i++) ch.send('up', { i }); }")
    await eventually(lambda: tab.held)
    tab.kernel_hears = True
    for content, texts in tab.held:
        await tab.run("([content, texts]) => toKernel(content, texts)", [content, texts])
    await tab.run("ch.send('up', { i: 3000 })")
    await eventually(lambda: up and up[-1] == 3000, timeout_s=30)  # with each ping, every 2 s, 257 more may go
    held = sum(len(texts) for _, texts in tab.held)
    assert held < 300
    assert up == sorted(set(up))
    assert len(up) + line.status.lost == 3001


async def test_two_tabs_both_hear_and_one_is_active(tabs: Any) -> None:
    line, opened = tabs
    channel = line.open_stream("chat", lambda *_: None)
    one, two = await opened(), await opened()
    for tab in (one, two):
        await tab.run("() => { window.was = []; line.onActivePage(is => was.push(is)); }")
        await tab.run(LISTEN)
        await tab.until("line.status().kind === 'direct'")
    await eventually(lambda: channel.pages == 2)
    channel.publish("n", {"i": 1})
    for tab in (one, two):
        await tab.until("heard.length === 1")
    assert [await tab.run("line.isActivePage()") for tab in (one, two)] == [True, False]
    await two.run("line.claimActivePage()")
    await two.until("line.isActivePage()")
    await one.until("!line.isActivePage()")
    await two.page.close()
    await one.until("line.isActivePage()")
    assert await one.run("was") == [True, False, True]
    assert channel.pages == 1


async def test_the_badge_says_which_way(tabs: Any) -> None:
    line, opened = tabs
    line.open_stream("chat", lambda *_: None)
    tab = await opened()
    await tab.run("() => { window.remove = widget.render({ el: document.body }); }")
    badge = tab.page.get_by_role("status")
    assert await badge.text_content() == "channel: none · late 0 · lost 0 · resent 0"
    await tab.run(LISTEN)
    await tab.page.get_by_text("channel: direct").wait_for()
    await tab.run("ch.close()")
    await tab.page.get_by_text("channel: none").wait_for()
    await eventually(lambda: line.status.pages == 0)


async def test_two_views_share_a_place_and_both_get_the_state(tabs: Any) -> None:
    line, opened = tabs
    channel = line.open_stream("chat", lambda *_: None)
    channel.on_page(lambda _, what: channel.publish("state", {"what": what}))
    tab = await opened()
    await tab.run(LISTEN)
    await tab.until("heard.length >= 1")
    await tab.run("() => { window.second = []; window.ch2 = line.openStream('chat', kind => second.push(kind)); }")
    await tab.until("second.length >= 1")
    await tab.run("ch.close()")
    channel.publish("n", {})
    await tab.until("second.at(-1) === 'n'")
    kinds = [kind for kind, *_ in await tab.run("heard")]
    assert len(kinds) >= 2, "its own joining and the second view's"
    assert set(kinds) == {"state"}, "and nothing after it was closed"
    assert channel.pages == 1


async def test_a_kernel_that_is_gone_is_noticed(tabs: Any) -> None:
    line, opened = tabs
    line.open_stream("chat", lambda *_: None)
    tab = await opened()
    await tab.run(LISTEN)
    await tab.until("line.status().kind === 'direct' && line.isActivePage()")
    tab.kernel_hears = False
    line._hub._send_messages = lambda _: None
    await asyncio.to_thread(shared_loop().stop)
    await tab.until("line.status().kind === 'none' && !line.isActivePage()", timeout_s=30)


async def test_the_widgets_end_ends_the_line(tabs: Any) -> None:
    line, opened = tabs
    line.open_stream("chat", lambda *_: None)
    tab = await opened()
    await tab.run(LISTEN)
    await tab.until("line.status().kind === 'direct'")
    await tab.run("abort.abort()")
    await eventually(lambda: line.status.pages == 0)
    assert await tab.run("line.status().kind") == "none"


async def test_one_widgets_mistake_does_not_stop_the_others(tabs: Any) -> None:
    line, opened = tabs
    channel = line.open_stream("chat", lambda *_: None)
    tab = await opened()
    errors: list[str] = []
    tab.page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    await tab.run("line.openStream('chat', () => { throw new Error('mine'); })")
    await tab.run(LISTEN)
    await eventually(lambda: channel.pages)
    await tab.until("line.status().kind === 'direct'")
    channel.publish("n", {})
    await tab.until("heard.length === 1")
    assert any("mine" in text for text in errors)
