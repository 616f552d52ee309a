"""What was heard where the service plays."""

import math

import pytest

from rtnb.client.playback import ServicePlayback
from rtnb.protocol import events
from rtnb.protocol.values import ContentPart
from tests.client.service import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def playback(clock: Clock) -> ServicePlayback:
    playback = ServicePlayback(clock=clock)
    for number in (1, 2):
        part = ContentPart(type="audio", transcript="")
        event = events.ResponseContentPartAdded(
            response_id=f"resp_{number}", item_id=f"item_{number}", output_index=0, content_index=0, part=part
        )
        playback.observe(event, 0.0)
    return playback


def truncated(item_id: str, audio_end_ms: int) -> events.ConversationItemTruncated:
    return events.ConversationItemTruncated(item_id=item_id, content_index=0, audio_end_ms=audio_end_ms)


def test_an_answer_played_to_its_end(playback: ServicePlayback, clock: Clock) -> None:
    assert not playback.playing
    playback.observe(events.OutputAudioBufferStarted(response_id="resp_1"), clock())
    clock.advance(400)
    assert playback.playing
    assert playback.heard_ms("item_1") == 400
    clock.advance(600)
    playback.observe(events.OutputAudioBufferStopped(response_id="resp_1"), clock())
    clock.advance(5_000)
    row = playback.heard().loc["item_1"]
    assert (row.generated_ms, row.received_ms, row.played_ms, row.heard_ms, row.truncated) == (
        1e3,
        1e3,
        1e3,
        1000,
        False,
    )
    assert not playback.playing
    assert math.isnan(playback.heard().loc["item_2"].generated_ms)


def test_a_cut_answer_ends_where_the_service_says(playback: ServicePlayback, clock: Clock) -> None:
    playback.observe(events.OutputAudioBufferStarted(response_id="resp_2"), clock())
    clock.advance(732.9)
    assert playback.flush() == [("item_2", 0, 732)]
    playback.observe(events.OutputAudioBufferCleared(response_id="resp_2"), clock())
    assert playback.heard_ms("item_2") == 732
    playback.observe(truncated("item_2", 720), clock())
    row = playback.heard().loc["item_2"]
    assert math.isnan(row.generated_ms)
    assert (row.played_ms, row.heard_ms, row.truncated) == (732.9, 720, True)
    assert playback.flush() == []


def test_responses_nobody_announced_are_ignored(playback: ServicePlayback, clock: Clock) -> None:
    playback.observe(events.OutputAudioBufferStarted(response_id="resp_9"), clock())
    playback.observe(events.OutputAudioBufferStopped(response_id="resp_9"), clock())
    playback.observe(events.OutputAudioBufferStopped(response_id="resp_1"), clock())
    playback.observe(truncated("item_9", 1), clock())
    assert list(playback.heard().heard_ms) == [0, 0]
