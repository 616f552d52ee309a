"""`Speaker` without a page: the audio it hands over, and the reports to the session."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rtnb._loop import shared_loop
from rtnb.client.log import EventLog
from rtnb.widgets import speaker as speaker_module
from rtnb.widgets.channel import shared_channel
from rtnb.widgets.speaker import Speaker
from tests.widgets.page import Page, eventually
from tests.widgets.scene import Scene, marked


@pytest.fixture
def scene() -> Any:
    one = Scene()
    yield one
    one.close()


def on_loop(function: Any, *arguments: Any) -> Any:
    async def call() -> Any:
        result = function(*arguments)
        await asyncio.sleep(0.01)
        return result

    return shared_loop().run(call(), timeout_s=10)


def until(reached: Callable[[], bool]) -> None:
    """Let the loop turn until a condition holds."""
    for _ in range(500):
        if reached():
            return
        on_loop(lambda: None)
    raise AssertionError("it did not come to that")


def test_what_comes_before_a_page_waits_for_it(scene: Scene) -> None:
    speaker = Speaker(scene.session)
    on_loop(lambda: None)
    scene.answer_now(marked(300))

    until(lambda: len(speaker._waiting) == 5)
    assert b"".join(pcm for _, (_, (pcm,)) in speaker._waiting) == marked(300).tobytes()
    assert [header.get("end") for _, (header, _) in speaker._waiting][-2:] == [True, True]


def test_the_session_learns_what_was_played(scene: Scene) -> None:
    speaker = Speaker(scene.session)
    on_loop(lambda: None)
    item = scene.answer_now(marked(1000))
    on_loop(speaker._on_message, "flushed", {"id": 1, "items": {item: 24 * 250}}, [])
    on_loop(lambda: None)
    assert scene.session.playback.heard_ms(item) == 250
    facts = {"latency_ms": 0, "state": "playing", "gaps": 2, "target_ms": 400.0}
    on_loop(speaker._on_message, "played", facts | {"items": {item: 24 * 300}}, [])
    on_loop(lambda: None)
    assert scene.session.playback.heard_ms(item) == 300
    assert (speaker.state, speaker.gaps, speaker.buffer_ms) == ("playing", 2, 400)


def test_a_session_has_one_speaker_the_newest(scene: Scene) -> None:
    first = Speaker(scene.session)
    on_loop(lambda: None)
    second = Speaker(scene.session)
    on_loop(lambda: None)
    assert first.session is None
    assert second.session is scene.session
    assert len(scene.session.playback._flushers) == 1
    second.close()
    on_loop(lambda: None)
    assert scene.session.playback._flushers == []


def test_audio_that_waits_for_a_page_has_a_bound(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speaker_module, "WAITING_BYTES", 48 * 1000)
    speaker = Speaker(scene.session)
    on_loop(lambda: None)
    scene.answer_now(marked(5000))

    until(lambda: bool(speaker._waiting) and speaker._waiting[-1][1] == speaker_module._END)
    assert b"".join(pcm for _, (_, (pcm,)) in speaker._waiting) == marked(5000)[-24 * 1000 :].tobytes()  # the newest
    scene.session.playback.flush()
    until(lambda: not speaker._waiting)


def test_an_old_answer_is_not_played_again(scene: Scene) -> None:
    scene.answer_now(marked(300))
    speaker = Speaker(scene.session)
    scene.answer_now(marked(100, seed=2))

    until(lambda: len(speaker._waiting) == 3)
    assert b"".join(pcm for _, (_, (pcm,)) in speaker._waiting) == marked(100, seed=2).tobytes()


def test_a_wrong_name_is_refused_and_closing_twice_is_fine() -> None:
    with pytest.raises(TypeError, match="did you mean 'volume'"):
        Speaker(volum=0.5)
    Speaker(volume=0.5)


def test_a_log_has_nobody_to_play_to() -> None:
    with pytest.raises(TypeError, match="follows a Session, got EventLog"):
        Speaker(EventLog())  # type: ignore[arg-type]


async def test_audio_on_a_page_that_plays_nothing_does_not_count_as_heard(scene: Scene) -> None:
    speaker = Speaker(scene.session)
    page = Page(shared_channel())
    socket = await page.open(speaker.stream_name)  # and it never reports: its browser waits for a click
    item = await asyncio.wrap_future(scene.start(marked(1000), speed=None))
    await socket.until("audio")
    await eventually(lambda: scene.session.playback._tracks[item].reported_ms == 0)
    assert scene.session.playback.heard_ms(item) == 0
    assert speaker.feed.speaker_plays is False
    await socket.connection.close()
