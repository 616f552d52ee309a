"""`WebRTCPeer` without a browser: messages to the page, a session over the call, and every way it ends."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtnb.widgets.webrtc as module
from rtnb import errors
from rtnb.client import Session, open_session
from rtnb.protocol import Connection, events
from rtnb.protocol.values import ContentPart, SessionConfig
from rtnb.simulator import Simulator
from rtnb.targets import connect
from rtnb.trace import Trace, keep
from rtnb.transport import TargetFacts
from rtnb.widgets.webrtc import FAILURES, NEXT_STEPS, Call, WebRTCPeer, failure
from tests.memory import memory_pair
from tests.widgets.page import Page, eventually
from tests.widgets.service import Clock, ScriptedTarget

# --- the session over a data channel ----------------------------------------------------------------------------------


class Talk:
    """Session over a `Call` whose page relays texts to and from a scripted service, and keeps the other messages."""

    session: Session

    def __init__(self) -> None:
        target, self.clock = ScriptedTarget(), Clock()
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
        except errors.ConnectionClosed:
            return

    def say(self, n_samples: int = 240) -> Any:
        return asyncio.create_task(self.session.say(np.zeros(n_samples), rate_hz=24_000, respond=False))


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    talk = Talk()
    running = [asyncio.create_task(talk.relay()), asyncio.create_task(talk.service.run())]
    await talk.service.open()
    talk.session = await open_session(talk.call, clock=talk.clock, sleep=talk.clock.sleep)
    yield talk
    await talk.session.close()
    await talk.near.close()
    await asyncio.gather(*running)


async def playing(talk: Talk) -> tuple[str, str]:
    """A response the service plays since 700 ms."""
    creating = asyncio.create_task(talk.session.response.create())
    await talk.service.hears(events.ResponseCreate)
    response_id = await talk.service.begin()
    item_id = await talk.service.item(response_id)
    part = ContentPart(type="audio", transcript="")
    await talk.service.piece(events.ResponseContentPartAdded, response_id, item_id, part=part)
    await talk.service.say(events.OutputAudioBufferStarted(response_id=response_id))
    await creating
    for _ in range(50):
        await asyncio.sleep(0)
    talk.clock.advance(700)
    return response_id, item_id


async def test_an_interruption_is_asked_for_and_cut_by_the_service(talk: Talk) -> None:
    response_id, item_id = await playing(talk)
    interrupting = asyncio.create_task(talk.session.interrupt())
    await talk.service.hears(events.OutputAudioBufferClear)
    await talk.service.say(events.OutputAudioBufferCleared(response_id=response_id))
    assert await interrupting == {item_id: 700}
    said = [type(event) for event in talk.service.heard]
    assert said.index(events.ResponseCancel) < said.index(events.OutputAudioBufferClear)
    assert events.ConversationItemTruncate not in said
    assert talk.session.playback.heard_ms(item_id) == 700
    assert await talk.session.interrupt() == {}  # nothing plays: nothing is cleared


async def test_barge_in_is_left_to_the_service(talk: Talk) -> None:
    _, item_id = await playing(talk)
    await talk.service.speech_started()
    await talk.service.say(events.ConversationItemTruncated(item_id=item_id, content_index=0, audio_end_ms=640))
    await anext(talk.session.__aiter__())
    heard = talk.session.playback.heard().loc[item_id]
    assert heard[["received_ms", "played_ms", "heard_ms", "truncated"]].tolist() == [700, 700, 640, True]
    assert talk.service.said(events.ConversationItemTruncate) == []


async def test_a_recording_of_a_call_says_that_its_audio_is_missing(talk: Talk, tmp_path: Path) -> None:
    await keep(talk.session, tmp_path / "call.rtnb")
    await playing(talk)
    await talk.session.close()
    with Trace(tmp_path / "call.rtnb") as trace:
        assert trace.model_audio is None
        assert trace.manifest["tracks"]["model"]["missing"].startswith("WebRTC: this audio went between the page")
        assert [turn.role for turn in trace.turns] == ["assistant"]


async def test_speech_goes_over_the_track(talk: Talk) -> None:
    saying = talk.say()
    await eventually(lambda: talk.posted)
    assert talk.posted == [("play", {"call": 1, "id": 1})]
    assert not saying.done()
    talk.call.on_message("played", {"id": 1}, [])
    assert await saying is None
    assert talk.service.said(events.InputAudioBufferAppend) == []


async def test_an_event_longer_than_the_channel_takes_is_refused(talk: Talk) -> None:
    talk.call.on_message("open", {"largest_bytes": 1_000}, [])
    with pytest.raises(errors.LocalProtocolError, match="this data channel takes 1000"):
        await talk.session.update(instructions="x" * 2_000)


async def test_audio_that_the_page_does_not_play_times_out(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLAY_S", 0.01)
    with pytest.raises(errors.RequestTimeout, match="no played from the page within") as error:
        await talk.say()
    assert "Enable sound" in error.value.__notes__[0]
    assert not talk.call._playing


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
    with pytest.raises(errors.ConnectionClosed, match="Events came faster"):
        await call.receive()


async def test_pending_requests_fail_when_the_page_leaves(talk: Talk) -> None:
    pending = asyncio.create_task(talk.session.next_response()), talk.say()
    await asyncio.sleep(0)
    talk.call.end(failure("unseen"))
    for task in pending:
        with pytest.raises((errors.ConnectionClosed, errors.WidgetError), match="last view of the call was removed"):
            await task
    with pytest.raises(errors.ConnectionClosed):
        await talk.call.send("{}")
    assert talk.session.ended is not None
    assert talk.session.ended.code == 1006


@pytest.mark.parametrize("side", ["kernel", "page"])
async def test_a_sideband_carries_the_events_and_ends_with_its_call(side: str) -> None:
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
    if side == "kernel":
        await call.close()
        assert posted == ["stop"]
    else:
        call.on_message("ended", {"why": "ice"}, [])
    with pytest.raises(errors.ConnectionClosed):
        await far.receive()


# --- the widget -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target, options, error, words",
    [
        ("sim", {"instruction": "typo"}, TypeError, "instruction"),
        ("sim", {"turn_detection": {"threshold": 7.0}}, errors.LocalProtocolError, "wrong setting: .*threshold"),
        (
            "sim",
            {"dialect": "preview", "webrtc_filter": True},
            errors.ConnectError,
            "webrtc_filter is of the GA dialect",
        ),
        ("sim", {"reconnect": True}, errors.ConnectError, "reconnect=True is for sessions over WebSocket"),
        ("simm", {}, errors.ConnectError, "cannot connect to 'simm'"),
    ],
)
def test_wrong_settings_are_refused_at_once(target: str, options: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        WebRTCPeer(target, **options)


async def test_start_fails_without_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_S", 0.01)
    peer = WebRTCPeer("sim")
    with pytest.raises(errors.WidgetError, match="No page shows this widget"):
        await peer.start()
    assert peer.state == "failed"
    assert peer.message.startswith("No page shows this widget")
    peer.close()
    peer.close()


async def started(peer: WebRTCPeer, page: Page) -> asyncio.Task[Any]:
    """Show a peer on a page and start its call."""
    await page.join(peer.stream_name)
    starting = asyncio.create_task(peer.start())
    assert (await page.until("call")).header == {"call": 1, "page": page.id}
    return starting


async def ask(peer: WebRTCPeer, page: Page, kind: str, **header: Any) -> dict[str, Any]:
    """Return the reply to a message of the page about its call."""
    return (await page.ask(peer.stream_name, kind, call=1, **header)).header


@pytest.mark.parametrize("simulator", ["ga", "preview"], indirect=True)
async def test_the_key_carries_everything_and_is_nowhere_else(simulator: Simulator, page: Page) -> None:
    def forecast(city: str) -> str:
        """Tell the weather."""
        return city

    settings = {"instructions": "Be brief.", "voice": "verse", "turn_detection": {"silence_duration_ms": 700}}
    peer = WebRTCPeer(simulator, tools=[forecast], **settings)
    starting = await started(peer, page)
    answer = await ask(peer, page, "key")
    grant = simulator._started().service.keys.grant(answer["key"]).session
    granted = (grant.instructions, grant.voice, grant.turn_detection.silence_duration_ms)
    assert granted == ("Be brief.", "verse", 700)
    assert [tool["name"] for tool in grant.tools] == ["forecast"]
    is_ga = simulator.facts.dialect == "ga"
    path = "/openai/v1/realtime/calls" if is_ga else f"/v1/realtimertc?model={simulator.model}"
    assert answer["url"] == simulator.url + path
    places = [repr(peer), json.dumps(peer.get_state(), default=repr), repr(vars(peer)), repr(vars(peer._call))]
    assert not any(answer["key"] in place for place in places)

    await ask(peer, page, "ended", why="page", problem="No permission.", next_step="Allow the microphone.")
    await ask(peer, page, "released")
    with pytest.raises(errors.WidgetError, match="No permission") as refused:
        await starting
    assert refused.value.__notes__ == ["Next: Allow the microphone."]
    assert peer.message == "No permission.\nNext: Allow the microphone."
    assert peer.state == "failed"


ANSWER = {"url": "http://x/calls", "headers": {}}


@pytest.mark.parametrize(
    "kind, header, reply, error, words",
    [
        ("answered", {**ANSWER, "status": 401, "body": "{}"}, {"failed": True}, errors.AuthenticationError, "401"),
        ("answered", {**ANSWER, "status": 201, "body": "no"}, {"failed": True}, errors.RtnbError, "no session desc"),
        ("ended", {"why": "no-path"}, {}, errors.ConnectError, r"No network path was found \(ICE failed\)"),
    ],
)
async def test_start_raises_why_there_is_no_call(
    simulator: Simulator, page: Page, kind: str, header: Any, reply: Any, error: Any, words: str
) -> None:
    peer = WebRTCPeer(simulator)
    starting = await started(peer, page)
    assert await ask(peer, page, kind, **header) == reply
    await ask(peer, page, "released")
    with pytest.raises(error, match=words):
        await starting
    assert peer.message


async def test_a_call_stopped_before_it_is_open_leaves_the_sessions_on_its_simulator_alone(page: Page) -> None:
    simulator = Simulator(voice="babble", latency="fast")
    peer = WebRTCPeer(simulator)
    starting = await started(peer, page)  # the call starts the simulator
    async with connect(simulator) as session:
        await ask(peer, page, "released")
        await peer.stop()
        with pytest.raises(errors.ConnectError, match="stopped before it was open"):
            await starting
        assert peer.state == "closed"
        assert (await session.ask("Hello?")).status == "completed"
    assert not simulator.running


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


async def test_notices_are_bounded_and_not_repeated() -> None:
    peer = WebRTCPeer("sim")
    for number in range(100):
        peer._notice(f"number {number // 2}")
    assert peer.notices == [f"number {number}" for number in range(30, 50)]


def test_every_next_step_belongs_to_a_reason() -> None:
    assert set(NEXT_STEPS) < set(FAILURES)
    for why in FAILURES:
        error = failure(why)
        assert len(error.__notes__) == 1
        assert error.__notes__[0].endswith(".")
