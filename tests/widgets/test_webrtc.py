"""`WebRTCPeer` without a browser: what the page is told, what a session over it does, and every way it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest

import rtnb.widgets.webrtc as module
from rtnb._loop import shared_loop
from rtnb.client import Session, open_session
from rtnb.errors import AuthenticationError, ConnectError, ConnectionClosed, LocalProtocolError, WidgetError
from rtnb.protocol import Connection, events
from rtnb.protocol.values import ContentPart, SessionConfig
from rtnb.simulator import Simulator
from rtnb.targets import connect
from rtnb.widgets._data_channel import Called, DataChannel, Sideband
from rtnb.widgets.channel import shared_channel
from rtnb.widgets.webrtc import WebRTCPeer
from tests.client.service import Clock, ScriptedTarget
from tests.memory import memory_pair
from tests.widgets.page import Page, pack

# --- the session over a data channel ----------------------------------------------------------------------------------


class Far:
    """A page that relays texts between a `DataChannel` and the scripted service, and notes the rest."""

    def __init__(self, target: ScriptedTarget) -> None:
        self.near, far = memory_pair()
        self.service = target.service
        self.service.transport, self.service.connection = far, Connection("server", dialect="ga", webrtc=True)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.call = DataChannel(1, "p", self.post)

    def post(self, kind: str, header: dict[str, Any], buffers: Sequence[bytes]) -> None:
        if kind == "event":
            self.relaying = asyncio.ensure_future(self.near.send(buffers[0].decode()))
        else:
            self.told.append((kind, header))
        if kind == "stop":
            self.call.came("released", {}, [])

    async def relay(self) -> None:
        try:
            while True:
                self.call.came("event", {}, [(await self.near.receive()).encode()])
        except ConnectionClosed:
            return


class Talk:
    def __init__(self, session: Session, far: Far, clock: Clock) -> None:
        self.session, self.far, self.clock = session, far, clock


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    clock, target = Clock(), ScriptedTarget(dialect="ga")
    far = Far(target)
    relaying, running = asyncio.create_task(far.relay()), asyncio.create_task(far.service.run())
    await far.service.open()
    session = await open_session(Called(target, far.call), clock=clock, sleep=clock.sleep)
    yield Talk(session, far, clock)
    await session.close()
    await far.near.close()
    await asyncio.gather(relaying, running)


async def playing(talk: Talk) -> tuple[str, str]:
    """A response the service plays since 700 ms."""
    creating = asyncio.create_task(talk.session.response.create())
    await talk.far.service.hears(events.ResponseCreate)
    response_id = await talk.far.service.begin()
    item_id = await talk.far.service.item(response_id)
    part = ContentPart(type="audio", transcript="")
    ids = {"response_id": response_id, "item_id": item_id, "output_index": 0, "content_index": 0}
    await talk.far.service.say(events.ResponseContentPartAdded(part=part, **ids))
    await talk.far.service.say(events.OutputAudioBufferStarted(response_id=response_id))
    await creating
    for _ in range(50):
        await asyncio.sleep(0)
    talk.clock.advance(700)
    return response_id, item_id


async def test_an_interruption_is_asked_for_and_cut_by_the_service(talk: Talk) -> None:
    response_id, item_id = await playing(talk)
    interrupting = asyncio.create_task(talk.session.interrupt())
    await talk.far.service.hears(events.OutputAudioBufferClear)
    await talk.far.service.say(events.OutputAudioBufferCleared(response_id=response_id))
    assert await interrupting == {item_id: 700}
    said = [type(event) for event in talk.far.service.heard]
    assert said.index(events.ResponseCancel) < said.index(events.OutputAudioBufferClear)
    assert events.ConversationItemTruncate not in said
    assert talk.session.playback.heard_ms(item_id) == 700
    assert await talk.session.interrupt() == {}  # nothing plays: nothing is cleared


async def test_barge_in_is_left_to_the_service(talk: Talk) -> None:
    _, item_id = await playing(talk)
    await talk.far.service.speech_started()
    await talk.far.service.say(events.ConversationItemTruncated(item_id=item_id, content_index=0, audio_end_ms=640))
    await anext(talk.session.__aiter__())
    assert talk.session.playback.heard().loc[item_id].to_dict() | {"generated_ms": 0, "response_id": ""} == {
        "response_id": "",
        "generated_ms": 0,
        "received_ms": 700,
        "played_ms": 700,
        "heard_ms": 640,
        "truncated": True,
    }
    assert not any(isinstance(event, events.ConversationItemTruncate) for event in talk.far.service.heard)


async def test_what_is_said_goes_over_the_track(talk: Talk) -> None:
    saying = asyncio.create_task(talk.session.say(np.zeros(4_800), rate_hz=24_000, respond=False))
    for _ in range(5):
        await asyncio.sleep(0)
    assert talk.far.told == [("speak", {"call": 1, "id": 1})]
    assert not saying.done()
    talk.far.call.came("said", {"id": 1}, [])
    assert await saying is None
    assert not any(isinstance(event, events.InputAudioBufferAppend) for event in talk.far.service.heard)


async def test_an_event_the_channel_does_not_take(talk: Talk) -> None:
    talk.far.call.came("open", {"largest_bytes": 1_000}, [])
    with pytest.raises(LocalProtocolError, match="this data channel takes 1000"):
        await talk.session.update(instructions="x" * 2_000)


async def test_the_page_goes_and_everybody_is_told(talk: Talk) -> None:
    waiting = asyncio.create_task(talk.session.next_response())
    speaking = asyncio.create_task(talk.session.say(np.zeros(4_800), rate_hz=24_000, respond=False))
    await asyncio.sleep(0)
    talk.far.call.page_left()
    for task in (waiting, speaking):
        with pytest.raises((ConnectionClosed, WidgetError), match="the page that held the call is gone"):
            await task
    with pytest.raises(ConnectionClosed):
        await talk.far.call.send("{}")
    assert talk.session.ended is not None
    assert talk.session.ended.code == 1006


async def test_a_sideband_ends_with_its_call() -> None:
    released: list[str] = []

    def post(kind: str, header: dict[str, Any], buffers: Sequence[bytes]) -> None:
        released.append(kind)
        call.came("released", {}, [])

    near, far = memory_pair()
    call = DataChannel(1, "p", post)
    call.read = False
    call.came("event", {}, [b"{}"])  # the page's events are the socket's once more
    beside = Sideband(near, call)
    await far.send("{}")
    assert await beside.receive() == "{}"
    await beside.close()
    assert released == ["stop"]
    with pytest.raises(ConnectionClosed):
        await far.receive()


# --- the widget -------------------------------------------------------------------------------------------------------


def test_wrong_words_are_refused_at_once() -> None:
    with pytest.raises(TypeError, match="instruction"):
        WebRTCPeer("sim", instruction="typo")
    with pytest.raises(LocalProtocolError, match=r"wrong setting: .*threshold"):
        WebRTCPeer("sim", turn_detection={"threshold": 7.0})
    with pytest.raises(ConnectError, match="webrtc_filter is of the GA dialect"):
        WebRTCPeer("sim", dialect="preview", webrtc_filter=True)
    with pytest.raises(ConnectError, match="reconnect=True is for sessions over WebSocket"):
        WebRTCPeer("sim", reconnect=True)
    with pytest.raises(ConnectError, match="cannot connect to 'simm'"):
        WebRTCPeer("simm")


async def test_without_a_page_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_S", 0.01)
    peer = WebRTCPeer("sim")
    with pytest.raises(WidgetError, match="no page shows this widget"):
        await peer.start()
    assert peer.state == "failed"
    with pytest.raises(ConnectError, match="there is no call"):
        await peer.ask("Hello?")
    peer.close()
    peer.close()


@pytest.fixture(autouse=True)
def no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hand-made page talks by widget messages: no socket is opened for it."""
    monkeypatch.setenv("RTNB_CHANNEL", "messages")


class Shown:
    """A peer on a hand-made page."""

    def __init__(self, peer: WebRTCPeer) -> None:
        self.peer = peer
        self.page = Page(shared_channel())

    async def start(self) -> asyncio.Task[Any]:
        await self.page.join(self.peer.stream_name)
        starting = asyncio.create_task(self.peer.start())
        assert (await self.page.until("call")).header == {"call": 1, "page": self.page.id}
        return starting

    def say(self, kind: str, **header: Any) -> None:
        request = {"r": 1} if kind in ("key", "answered", "offer") else {}
        self.page.send(pack(self.peer.stream_name, kind, {"call": 1, **header}, **request))

    async def ask(self, kind: str, **header: Any) -> dict[str, Any]:
        self.say(kind, **header)
        answer: dict[str, Any] = (await self.page.until("reply")).header
        return answer


@pytest.mark.parametrize("dialect", ["ga", "preview"])
async def test_the_key_carries_everything_and_is_nowhere_else(dialect: Any) -> None:
    def forecast(city: str) -> str:
        """Tell the weather."""
        return city

    async with Simulator(voice="babble", latency="fast", dialect=dialect) as simulator:
        settings = {"instructions": "Be brief.", "voice": "verse", "turn_detection": {"silence_duration_ms": 700}}
        shown = Shown(WebRTCPeer(simulator, tools=[forecast], **settings))
        starting = await shown.start()
        answer = await shown.ask("key")
        grant = simulator._started().service.keys._grants[answer["key"]].session
        assert (grant.instructions, grant.voice, grant.turn_detection.silence_duration_ms) == (
            "Be brief.",
            "verse",
            700,
        )
        assert [tool["name"] for tool in grant.tools] == ["forecast"]
        path = "/openai/v1/realtime/calls" if dialect == "ga" else f"/v1/realtimertc?model={simulator.model}"
        assert answer["url"] == simulator.url + path
        peer = shown.peer
        places = [repr(peer), json.dumps(peer.get_state(), default=repr), repr(vars(peer)), repr(vars(peer._call))]
        assert not any(answer["key"] in place for place in places)

        shown.say("ended", why="NotAllowedError", detail="Permission denied")
        shown.say("released")
        with pytest.raises(WidgetError, match="permission for the microphone was denied") as refused:
            await starting
        assert "allow=microphone" in refused.value.__notes__[0]
        assert peer.message.startswith("the permission for the microphone was denied (Permission denied)\nNext: ")
        assert peer.state == "failed"
        peer.close()


@pytest.mark.parametrize(
    "kind, header, raised, words",
    [
        ("answered", {"url": "http://x/calls", "status": 401, "headers": {}, "body": "{}"}, AuthenticationError, "401"),
        (
            "answered",
            {"url": "http://x/calls", "status": 201, "headers": {}, "body": "no"},
            Exception,
            "no session desc",
        ),
        ("ended", {"why": "no-path"}, ConnectError, r"nothing gets through .* \(ICE\)"),
        ("ended", {"why": "OverconstrainedError", "detail": "x"}, WidgetError, "the browser refused: Overcon"),
    ],
)
async def test_a_call_that_comes_to_nothing(kind: str, header: Any, raised: Any, words: str) -> None:
    async with Simulator(voice="babble", latency="fast") as simulator:
        shown = Shown(WebRTCPeer(simulator))
        starting = await shown.start()
        if kind == "answered":
            assert await shown.ask(kind, **header) == {"failed": True}
        else:
            shown.say(kind, **header)
        shown.say("released")
        with pytest.raises(raised, match=words):
            await starting
        assert shown.peer.message
        shown.peer.close()


async def test_stopped_before_it_stood() -> None:
    shown = Shown(WebRTCPeer("sim"))
    starting = await shown.start()
    shown.say("released")
    await shown.peer.stop()
    with pytest.raises(ConnectError, match="stopped before it stood"):
        await starting
    assert shown.peer.state == "closed"
    shown.peer.close()


async def test_a_call_that_ends_leaves_the_sessions_on_its_simulator_alone() -> None:
    simulator = Simulator(voice="babble", latency="fast")
    shown = Shown(WebRTCPeer(simulator))
    starting = await shown.start()  # the call starts the simulator
    async with connect(simulator) as session:
        shown.say("released")
        await shown.peer.stop()
        with pytest.raises(ConnectError, match="stopped before it stood"):
            await starting
        assert (await session.ask("Hello?")).status == "completed"
    assert not simulator.running
    shown.peer.close()


async def test_what_the_service_ignores_is_said() -> None:
    peer = WebRTCPeer("sim", turn_detection={"silence_duration_ms": 700})
    asked = peer._config
    kept = SessionConfig.of(turn_detection={"silence_duration_ms": 200, "threshold": 0.5})

    def rows() -> None:
        peer._asked.append(("", asked))
        peer._compare(events.SessionCreated(session=kept), peer._asked.popleft()[1])
        peer._compare(events.SessionUpdated(session=kept), asked)
        peer._compare(events.SessionUpdated(session=asked), asked)

    shared_loop().run(asyncio.to_thread(rows))
    assert len(peer.notices) == 2
    assert "did not begin with" in peer.notices[0]
    assert "kept its own: audio.input.turn_detection.silence_duration_ms. Azure" in peer.notices[1]
    peer.close()
