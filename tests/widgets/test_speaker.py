"""`Speaker` without a page: the audio it hands over, and the reports to the session."""

import asyncio
from typing import Any

import pytest

from rtnb.client.log import EventLog
from rtnb.widgets import speaker as speaker_module
from rtnb.widgets.speaker import Speaker
from tests.widgets.page import Page, eventually
from tests.widgets.scene import Scene, marked, on_loop, turn


@pytest.fixture
def speaker(scene: Scene) -> Speaker:
    """A speaker that follows the session and is on no page."""
    speaker = Speaker(scene.session)
    turn()
    return speaker


def waiting(speaker: Speaker) -> bytes:
    """The audio that waits for a page."""
    return b"".join(pcm for _, (_, (pcm,)) in speaker._waiting)


async def test_what_comes_before_a_page_waits_for_it(scene: Scene, speaker: Speaker) -> None:
    scene.answer_now(marked(300))
    await eventually(lambda: len(speaker._waiting) == 5)
    assert waiting(speaker) == marked(300).tobytes()
    assert [header.get("end") for _, (header, _) in speaker._waiting][-2:] == [True, True]


def test_the_session_learns_what_was_played(scene: Scene, speaker: Speaker) -> None:
    item = scene.answer_now(marked(1000))
    on_loop(speaker._on_message, "flushed", {"id": 1, "items": {item: 24 * 250}}, [])
    assert scene.session.playback.heard_ms(item) == 250
    facts = {"latency_ms": 0, "state": "playing", "gaps": 2, "target_ms": 400.0}
    on_loop(speaker._on_message, "played", facts | {"items": {item: 24 * 300}}, [])
    assert scene.session.playback.heard_ms(item) == 300
    assert (speaker.state, speaker.gaps, speaker.buffer_ms) == ("playing", 2, 400)


def test_a_session_has_one_speaker_the_newest(scene: Scene, speaker: Speaker) -> None:
    second = Speaker(scene.session)
    turn()
    assert speaker.session is None
    assert second.session is scene.session
    assert len(scene.session.playback._flushers) == 1
    second.close()
    turn()
    assert scene.session.playback._flushers == []


async def test_audio_that_waits_for_a_page_has_a_bound(
    scene: Scene, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speaker_module, "WAITING_BYTES", 48 * 1000)
    scene.answer_now(marked(5000))
    await eventually(lambda: speaker._waiting and speaker._waiting[-1][1] == speaker_module._END)
    assert waiting(speaker) == marked(5000)[-24 * 1000 :].tobytes()  # the newest
    scene.session.playback.flush()
    await eventually(lambda: not speaker._waiting)


async def test_an_old_answer_is_not_played_again(scene: Scene) -> None:
    scene.answer_now(marked(300))
    speaker = Speaker(scene.session)
    scene.answer_now(marked(100, seed=2))
    await eventually(lambda: len(speaker._waiting) == 3)
    assert waiting(speaker) == marked(100, seed=2).tobytes()


def test_a_log_has_nobody_to_play_to() -> None:
    with pytest.raises(TypeError, match="follows a Session, got EventLog"):
        Speaker(EventLog())  # type: ignore[arg-type]


async def test_audio_on_a_page_that_plays_nothing_does_not_count_as_heard(
    scene: Scene, speaker: Any, page: Page
) -> None:
    await page.join(speaker.stream_name)  # and it never reports: its browser waits for a click
    item = await asyncio.wrap_future(scene.start(marked(1000)))
    await page.until("audio")
    await eventually(lambda: scene.session.playback._tracks[item].reported_ms == 0)
    assert scene.session.playback.heard_ms(item) == 0
    assert speaker.feed.speaker_plays is False
    page.say("bye")
    await eventually(lambda: speaker.state == "no page")
