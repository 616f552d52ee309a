"""`WebRTCPeer` without a browser: messages to the page, a session over the call, and every way it ends."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtnb.widgets.webrtc as module
from rtnb.client import Session, open_session
from rtnb.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionClosed,
    LocalProtocolError,
    RequestTimeout,
    WidgetError,
)
from rtnb.protocol import Connection, events
from rtnb.protocol.values import ContentPart, SessionConfig
from rtnb.simulator import Simulator
from rtnb.targets import connect
from rtnb.trace import Trace, keep
from rtnb.transport import TargetFacts
from rtnb.widgets.channel import shared_channel
from rtnb.widgets.webrtc import FAILURES, NEXT_STEPS, Call, WebRTCPeer, failure
from tests.memory import memory_pair
from tests.widgets.page import Page, eventually, pack
from tests.widgets.service import Clock, ScriptedTarget

# --- the session over a data channel ----------------------------------------------------------------------------------


class Far:
    """Page that relays texts between a `Call` and the scripted service, and keeps the other messages."""

    def __init__(self, target: ScriptedTarget) -> None:
        self.near, far = memory_pair()
        self.service = target.service
        self.service.transport, self.service.connection = far, Connection("server", dialect="ga", webrtc=True)
        self.posted: list[tuple[str, dict[str, Any]]] = []
        self.call = Call(1, "p", self.post, target.facts)

    def post(self, kind: str, header: dict[str, Any], buffers: Sequence[bytes]) -> None:
        if kind == "event":
            self.relaying = asyncio.ensure_future(self.near.send(buffers[0].decode()))
        else:
            self.posted.append((kind, header))
        if kind == "stop":
            self.call.on_message("released", {}, [])

    async def relay(self) -> None:
        try:
            while True:
                self.call.on_message("event", {}, [(await self.near.receive()).encode()])
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
    session = await open_session(far.call, clock=clock, sleep=clock.sleep)
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


async def test_a_recording_of_a_call_says_that_its_audio_is_missing(talk: Talk, tmp_path: Path) -> None:
    await keep(talk.session, tmp_path / "call.rtnb")
    await playing(talk)
    await talk.session.close()
    with Trace(tmp_path / "call.rtnb") as trace:
        assert trace.model_audio is None
        assert trace.manifest["tracks"]["model"]["missing"].startswith("WebRTC: this audio went between the page")
        assert [turn.role for turn in trace.turns] == ["assistant"]


async def test_speech_goes_over_the_track(talk: Talk) -> None:
    saying = asyncio.create_task(talk.session.say(np.zeros(4_800), rate_hz=24_000, respond=False))
    for _ in range(5):
        await asyncio.sleep(0)
    assert talk.far.posted == [("play", {"call": 1, "id": 1})]
    assert not saying.done()
    talk.far.call.on_message("played", {"id": 1}, [])
    assert await saying is None
    assert not any(isinstance(event, events.InputAudioBufferAppend) for event in talk.far.service.heard)


async def test_an_event_longer_than_the_channel_takes_is_refused(talk: Talk) -> None:
    talk.far.call.on_message("open", {"largest_bytes": 1_000}, [])
    with pytest.raises(LocalProtocolError, match="this data channel takes 1000"):
        await talk.session.update(instructions="x" * 2_000)


async def test_audio_that_the_page_does_not_play_times_out(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLAY_S", 0.01)
    with pytest.raises(RequestTimeout, match="no played from the page within") as error:
        await talk.session.say(np.zeros(240), rate_hz=24_000, respond=False)
    assert "Enable sound" in error.value.__notes__[0]
    assert not talk.far.call._playing


async def test_texts_that_are_not_read_end_the_call_at_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNREAD_BYTES", 1_000)
    call = Call(1, "p", lambda *message: None, TargetFacts())
    for _ in range(50):  # read in time: any number passes
        call.on_message("event", {}, [b"x" * 100])
        assert await call.receive() == "x" * 100
    for _ in range(50):
        call.on_message("event", {}, [b"x" * 100])
    assert call._texts.qsize() == 10 + 1
    for _ in range(10):
        await call.receive()
    with pytest.raises(ConnectionClosed, match="Events came faster"):
        await call.receive()


async def test_pending_requests_fail_when_the_page_leaves(talk: Talk) -> None:
    waiting = asyncio.create_task(talk.session.next_response())
    speaking = asyncio.create_task(talk.session.say(np.zeros(4_800), rate_hz=24_000, respond=False))
    await asyncio.sleep(0)
    talk.far.call.end(failure("unseen"))
    for task in (waiting, speaking):
        with pytest.raises((ConnectionClosed, WidgetError), match="last view of the call was removed"):
            await task
    with pytest.raises(ConnectionClosed):
        await talk.far.call.send("{}")
    assert talk.session.ended is not None
    assert talk.session.ended.code == 1006


async def test_a_sideband_ends_with_its_call() -> None:
    posted: list[str] = []

    def post(kind: str, header: dict[str, Any], buffers: Sequence[bytes]) -> None:
        posted.append(kind)
        call.on_message("released", {}, [])

    call = Call(1, "p", post, TargetFacts())
    call.sideband, far = memory_pair()
    call.on_message("event", {}, [b"{'from': 'the page'}"])  # the socket carries the same event
    await far.send("{}")
    assert await call.receive() == "{}"
    await call.send("[]")
    assert await far.receive() == "[]"
    await call.close()
    assert posted == ["stop"]
    with pytest.raises(ConnectionClosed):
        await far.receive()


async def test_a_call_that_the_page_ends_closes_its_sideband() -> None:
    call = Call(1, "p", lambda *message: None, TargetFacts())
    call.sideband, far = memory_pair()
    call.on_message("ended", {"why": "ice"}, [])
    with pytest.raises(ConnectionClosed):
        await far.receive()


# --- the widget -------------------------------------------------------------------------------------------------------


def test_wrong_settings_are_refused_at_once() -> None:
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


async def test_start_fails_without_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_S", 0.01)
    peer = WebRTCPeer("sim")
    with pytest.raises(WidgetError, match="No page shows this widget"):
        await peer.start()
    assert peer.state == "failed"
    assert peer.message.startswith("No page shows this widget")
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

    def send(self, kind: str, **header: Any) -> None:
        request = {"r": 1} if kind in ("key", "answered", "offer") else {}
        self.page.send(pack(self.peer.stream_name, kind, {"call": 1, **header}, **request))

    async def ask(self, kind: str, **header: Any) -> dict[str, Any]:
        self.send(kind, **header)
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
        grant = simulator._started().service.keys.grant(answer["key"]).session
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

        shown.send("ended", why="page", problem="No permission.", next_step="Allow the microphone.")
        shown.send("released")
        with pytest.raises(WidgetError, match="No permission") as refused:
            await starting
        assert refused.value.__notes__ == ["Next: Allow the microphone."]
        assert peer.message == "No permission.\nNext: Allow the microphone."
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
        ("ended", {"why": "no-path"}, ConnectError, r"No network path was found \(ICE failed\)"),
        ("ended", {"why": "page", "problem": "The browser refused: x"}, WidgetError, "The browser refused: x"),
    ],
)
async def test_start_raises_why_there_is_no_call(kind: str, header: Any, raised: Any, words: str) -> None:
    async with Simulator(voice="babble", latency="fast") as simulator:
        shown = Shown(WebRTCPeer(simulator))
        starting = await shown.start()
        if kind == "answered":
            assert await shown.ask(kind, **header) == {"failed": True}
        else:
            shown.send(kind, **header)
        shown.send("released")
        with pytest.raises(raised, match=words):
            await starting
        assert shown.peer.message
        shown.peer.close()


async def test_a_call_stopped_before_it_is_open() -> None:
    shown = Shown(WebRTCPeer("sim"))
    starting = await shown.start()
    shown.send("released")
    await shown.peer.stop()
    with pytest.raises(ConnectError, match="stopped before it was open"):
        await starting
    assert shown.peer.state == "closed"
    shown.peer.close()


async def test_a_call_that_ends_leaves_the_sessions_on_its_simulator_alone() -> None:
    simulator = Simulator(voice="babble", latency="fast")
    shown = Shown(WebRTCPeer(simulator))
    starting = await shown.start()  # the call starts the simulator
    async with connect(simulator) as session:
        shown.send("released")
        await shown.peer.stop()
        with pytest.raises(ConnectError, match="stopped before it was open"):
            await starting
        assert (await session.ask("Hello?")).status == "completed"
    assert not simulator.running
    shown.peer.close()


async def test_a_notice_names_settings_that_the_service_does_not_take_over(talk: Talk) -> None:
    peer = WebRTCPeer("sim")
    peer.session = talk.session
    asked, kept = (SessionConfig.of(turn_detection={"silence_duration_ms": ms}) for ms in (700, 200))
    log = talk.session.log
    log.record("sent", events.SessionUpdate(session=asked), monotonic_s=1.0, wall_time=0.0)
    log.record("received", events.SessionUpdated(session=kept), monotonic_s=2.0, wall_time=0.0)
    await eventually(lambda: peer.notices)
    (notice,) = peer.notices
    assert notice.startswith("The service ignored audio.input.turn_detection.silence_duration_ms = 700: it stays 200.")
    assert notice.endswith("pass them to WebRTCPeer(…).")
    peer.session = None
    peer.close()


async def test_notices_are_bounded_and_not_repeated() -> None:
    peer = WebRTCPeer("sim")
    for number in range(100):
        peer._notice(f"number {number // 2}")
    assert peer.notices == [f"number {number}" for number in range(30, 50)]
    peer.close()


def test_every_next_step_belongs_to_a_reason() -> None:
    assert set(NEXT_STEPS) < set(FAILURES)
    for why in FAILURES:
        error = failure(why)
        assert len(error.__notes__) == 1
        assert error.__notes__[0].endswith(".")
