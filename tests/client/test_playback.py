"""Playback: how much of each item was played, and the cut of the conversation there."""

import asyncio
import base64
import math
from collections.abc import Callable
from typing import Any

import pytest

import rtnb
from rtnb.client import Response
from rtnb.client.playback import ServicePlayback
from rtnb.protocol import events
from rtnb.protocol.values import ContentPart
from tests.client.peer import CHUNK_MS, Message, Peer, Running, failure
from tests.client.virtual import outcome, settle, talking

Cut = tuple[str, int, int]


async def speaking(peer: Peer, session: rtnb.Session, *deltas_ms: float) -> tuple[Response, Running, str]:
    """Begin a response with so much audio, all of which arrives now; return it, on both sides, and its item's id."""
    peer.by_hand = True
    creating = asyncio.create_task(session.response.create())
    await settle()
    running = await peer.begin()
    item_id = await peer.add_item(running)
    for ms in deltas_ms:
        await peer.speak(running, ms)
    await settle()
    return await creating, running, item_id


async def barge_in(peer: Peer) -> str:
    """Let the user speak; return the id of the item that this becomes."""
    await peer.send(peer.speech("item_user"))
    await settle()
    return "item_user"


def truncations(peer: Peer) -> list[Cut]:
    asked = peer.asked("conversation.item.truncate")
    return [(one["item_id"], one["content_index"], one["audio_end_ms"]) for one in asked]


def row(session: rtnb.Session, item_id: str) -> tuple[float, float, int]:
    """Return how much of an item was generated, received and heard."""
    found = session.playback.heard().loc[item_id]
    return found.generated_ms, found.received_ms, found.heard_ms


@talking(both=True)
async def test_barge_in_cuts_at_what_was_heard(peer: Peer, session: rtnb.Session) -> None:
    response, running, item_id = await speaking(peer, session, 500, 700)
    await asyncio.sleep(0.3219)
    await barge_in(peer)
    await peer.end(running, status="cancelled", reason="turn_detected")
    await settle()
    assert truncations(peer) == [(item_id, 0, 321)]  # rounded down
    assert response.status == "cancelled"
    assert row(session, item_id) == (1_200, 1_200, 321)
    assert session.playback.heard().loc[item_id].truncated


@pytest.mark.parametrize(
    "heard_ms, real_time, cut_ms",
    [(999, True, [999]), (1_000, True, []), (0, False, [])],
    ids=["before its end", "heard to its end", "without a listener everything counts as heard"],
)
@talking()
async def test_barge_in_after_the_generation_was_done(
    peer: Peer, session: rtnb.Session, heard_ms: int, real_time: bool, cut_ms: list[int]
) -> None:
    """No cancel comes then: only the truncation is needed."""
    session.playback.assume_real_time = real_time
    _, running, item_id = await speaking(peer, session, 1_000)
    await peer.end(running)
    await asyncio.sleep(heard_ms / 1_000)
    await peer.send(*peer.turn_end(await barge_in(peer)))
    await settle()
    assert truncations(peer) == [(item_id, 0, ms) for ms in cut_ms]


@talking()
async def test_a_gap_in_the_arrival_is_not_heard(peer: Peer, session: rtnb.Session) -> None:
    _, running, item_id = await speaking(peer, session, 100)
    await asyncio.sleep(0.5)  # the speaker ran dry after 100 ms
    await peer.speak(running, 300)
    await asyncio.sleep(0.0501)
    assert session.playback.heard_ms(item_id) == 150
    await session.interrupt()
    assert truncations(peer) == [(item_id, 0, 150)]


@talking()
async def test_what_was_on_its_way_when_an_item_was_cut_is_not_played(peer: Peer, session: rtnb.Session) -> None:
    response, running, item_id = await speaking(peer, session, 100)
    await asyncio.sleep(0.5)
    await barge_in(peer)
    assert truncations(peer) == [(item_id, 0, 100)], "heard so far, but still growing"
    await peer.speak(running, 400)
    late = await peer.add_item(running)
    await peer.speak(running, 400)
    await settle()
    assert (row(session, item_id), row(session, late)) == ((500, 100, 100), (400, 0, 0))
    assert not session.playback.playing
    assert len(response.audio) == 900 * 24  # the response keeps what was made


@talking()
async def test_nothing_is_heard_of_an_item_that_waits_in_the_speaker(peer: Peer, session: rtnb.Session) -> None:
    response, running, first = await speaking(peer, session, 300)
    second = await peer.add_item(running)
    await peer.speak(running, 300)
    await asyncio.sleep(0.2001)
    assert await session.interrupt() == {first: 200, second: 0}
    assert truncations(peer) == [(first, 0, 200), (second, 0, 0)]
    assert response.status == "cancelled"


@talking()
async def test_a_speaker_knows_better(peer: Peer, session: rtnb.Session) -> None:
    _, _, item_id = await speaking(peer, session, 1_000)
    flushed: list[bool] = []
    stop = session.playback.on_flush(lambda: flushed.append(True))
    session.playback.report_played(item_id, 120.7)
    session.playback.report_played("item_unknown", 5)
    assert session.playback.heard_ms(item_id) == 120
    await asyncio.sleep(0.9)
    await session.interrupt()
    assert truncations(peer) == [(item_id, 0, 320)]  # it is believed to have gone on, for a while
    assert flushed == [True]
    stop()
    assert "speaker" in repr(session.playback)


@talking()
async def test_a_speaker_cannot_have_played_more_than_was_received(peer: Peer, session: rtnb.Session) -> None:
    _, _, item_id = await speaking(peer, session, 200)
    session.playback.report_played(item_id, 5_000)
    assert session.playback.heard_ms(item_id) == 200


@talking()
async def test_a_speaker_that_fails_does_not_end_the_session(peer: Peer, session: rtnb.Session) -> None:
    reports: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["message"]))
    session.playback.on_flush(lambda: 1 / 0)
    _, _, item_id = await speaking(peer, session, 1_000)
    await asyncio.sleep(0.1001)
    await barge_in(peer)
    assert reports == ["a flush callback of the playback failed"]
    assert truncations(peer) == [(item_id, 0, 100)]
    assert not session.closed


@talking(turn_detection={"type": "server_vad", "interrupt_response": False})
async def test_no_interruption_where_it_is_switched_off(peer: Peer, session: rtnb.Session) -> None:
    await speaking(peer, session, 1_000)
    await asyncio.sleep(0.1)
    await barge_in(peer)
    assert truncations(peer) == []
    assert session.playback.playing


@talking(pace_s=1)
async def test_text_is_never_truncated(peer: Peer, session: rtnb.Session) -> None:
    await session.response.create(output_modalities=["text"])
    await asyncio.sleep(1.5)
    assert await session.interrupt() == {}
    assert truncations(peer) == []


@pytest.mark.parametrize(
    "refusal, remembered",
    [
        (failure(None, "Audio content of 90ms is already shorter than 100ms"), 0),
        (failure("item_not_found", "There is no such item."), 0),
        (failure("server_error", "boom"), 1),
    ],
    ids=["shorter", "gone", "another reason"],
)
@talking()
async def test_a_truncation_the_service_refuses(
    peer: Peer, session: rtnb.Session, refusal: Message, remembered: int
) -> None:
    peer.refuse = {"conversation.item.truncate": [refusal]}
    await speaking(peer, session, 1_000)
    await asyncio.sleep(0.1)
    await barge_in(peer)
    assert (len(truncations(peer)), len(session.errors)) == (1, remembered)


@talking(chunk=base64.b64encode(bytes(8_000)).decode(), pace_s=1, outputs=["ab"])
async def test_g711_milliseconds(peer: Peer, session: rtnb.Session) -> None:
    await session.update(output_format="g711_ulaw")
    await session.response.create()
    await asyncio.sleep(1.2501)
    (item_id,) = peer.items
    assert row(session, item_id) == (1_000, 1_000, 250)
    assert await session.interrupt() == {item_id: 250}


@talking(pace_s=0.2)
async def test_an_interruption_whose_cancel_gets_no_reply_cuts_the_items(peer: Peer, session: rtnb.Session) -> None:
    await session.response.create()
    await asyncio.sleep(0.5)
    peer.drop = {"response.done": 1}
    await outcome(session.interrupt())
    assert len(truncations(peer)) == 1


@pytest.mark.parametrize("interrupted", [True, False], ids=["interrupted", "played to its end"])
@pytest.mark.parametrize("reported_ms", [None, 50], ids=["no speaker", "a speaker that goes away"])
@talking(pace_s=0.1, outputs=["a" * 50])
async def test_the_next_answer_counts_as_heard_in_real_time(
    peer: Peer, session: rtnb.Session, reported_ms: int | None, interrupted: bool
) -> None:
    growing = await session.response.create()
    await asyncio.sleep(0.25)
    item_id = next(iter(peer.items))
    if reported_ms is not None:
        session.playback.report_played(item_id, reported_ms)
    if interrupted:
        cut = await outcome(session.interrupt())
        assert cut == {item_id: 150} if reported_ms is None else cut[item_id] in range(50, 200)
        assert growing.status == "cancelled"
    await asyncio.sleep(60)
    response = await outcome(session.ask("Hello?"))
    await asyncio.sleep(5)
    assert session.playback.heard_ms(response.items[0].id) == 2 * CHUNK_MS


# --- where the service plays ------------------------------------------------------------------------------------------


class Remote:
    """The playback of a WebRTC call in which two items were announced, under a clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.playback = ServicePlayback(clock=lambda: self.now_s)
        self.announced(1)
        self.announced(2)

    def sees(self, kind: Callable[..., events.Event], *, after_ms: float = 0.0, **fields: Any) -> None:
        self.now_s += after_ms / 1_000
        self.playback.observe(kind(**fields), self.now_s)

    def announced(self, number: int) -> None:
        place = {"response_id": f"resp_{number}", "item_id": f"item_{number}", "output_index": 0, "content_index": 0}
        self.sees(events.ResponseContentPartAdded, **place, part=ContentPart(type="audio", transcript=""))


STARTED, STOPPED = events.OutputAudioBufferStarted, events.OutputAudioBufferStopped
CLEARED, TRUNCATED = events.OutputAudioBufferCleared, events.ConversationItemTruncated


def test_an_answer_played_to_its_end() -> None:
    remote = Remote()
    playback = remote.playback
    assert not playback.playing
    remote.sees(STARTED, response_id="resp_1")
    remote.now_s += 0.4
    assert (playback.playing, playback.heard_ms("item_1")) == (True, 400)
    remote.sees(STOPPED, after_ms=600, response_id="resp_1")
    remote.now_s += 5
    first, second = playback.heard().itertuples()
    assert (first.generated_ms, first.received_ms, first.played_ms) == (1_000, 1_000, 1_000)
    assert (first.heard_ms, first.truncated, playback.playing) == (1_000, False, False)
    assert math.isnan(second.generated_ms)


def test_a_cut_answer_ends_where_the_service_says() -> None:
    remote = Remote()
    playback = remote.playback
    remote.sees(STARTED, response_id="resp_2")
    remote.now_s += 0.7329
    assert playback.flush() == [("item_2", 0, 732)]
    remote.sees(CLEARED, response_id="resp_2")
    assert playback.heard_ms("item_2") == 732
    remote.sees(TRUNCATED, item_id="item_2", content_index=0, audio_end_ms=720)
    _, second = playback.heard().itertuples()
    assert math.isnan(second.generated_ms)
    assert (second.played_ms, second.heard_ms, second.truncated) == (732.9, 720, True)
    assert playback.flush() == []


def test_responses_nobody_announced_are_ignored() -> None:
    remote = Remote()
    for kind, response_id in ((STARTED, "resp_9"), (STOPPED, "resp_9"), (STOPPED, "resp_1")):
        remote.sees(kind, response_id=response_id)
    remote.sees(TRUNCATED, item_id="item_9", content_index=0, audio_end_ms=1)
    assert list(remote.playback.heard().heard_ms) == [0, 0]


def test_a_service_that_plays_may_announce_everything_twice() -> None:
    remote = Remote()
    remote.sees(STARTED, response_id="resp_1")
    remote.sees(STARTED, after_ms=250, response_id="resp_1")
    remote.announced(1)
    remote.now_s += 0.25
    assert remote.playback.heard_ms("item_1") == 500
    remote.sees(CLEARED, response_id="resp_1")
    assert remote.playback.heard_ms("item_1") == 500
