"""`Microphone` without a page: what becomes of frames, what stands in, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtnb import Budget, Custom, connect
from rtnb._loop import shared_loop
from rtnb.audio import decode_ulaw, read_wav, write_wav
from rtnb.errors import RtnbError, WidgetError
from rtnb.protocol import events
from rtnb.protocol.values import AudioFormat
from rtnb.widgets import Microphone
from rtnb.widgets.microphone_feed import LATE_MS, STALE_MS, Clip, Feed
from rtnb.widgets.microphone_source import speak
from tests.client.peer import Peer
from tests.client.service import Clock
from tests.widgets.page import eventually
from tests.widgets.scene import Scene

FRAME = np.arange(480, dtype="<i2").tobytes()
FACTS = {"label": "", "devices": [], "rate_hz": 48_000, "code": "", "text": "", "hint": ""}


@pytest.fixture
def scene() -> Any:
    one = Scene()
    yield one
    one.close()


def on_loop(function: Callable[..., Any], *arguments: Any) -> Any:
    async def call() -> Any:
        result = function(*arguments)
        return await result if asyncio.iscoroutine(result) else result

    return shared_loop().run(call(), timeout_s=10)


def heard(scene: Scene, kind: Any, times: int) -> list[Any]:
    shared_loop().run(scene.service.hears(kind, times=times), timeout_s=10)
    return [event for event in scene.service.heard if isinstance(event, kind)]


class Talker:
    """Frames of one page, in order, on a clock of the test's."""

    def __init__(self, feed: Feed, clock: Clock) -> None:
        self.feed = feed
        self.clock = clock
        self.index = 0

    def say(self, frames: int = 1, *, late_ms: float = 0.0, skip: int = 0, talk: bool = True) -> None:
        for _ in range(frames):
            self.clock.advance(20)
            self.index += skip
            stamp_ms = self.clock() * 1000 - late_ms
            self.feed.sound(first=self.index, frames=1, stamp_ms=stamp_ms, pcm=FRAME, talk=talk)
            self.index += 1


async def settled(feed: Feed) -> dict[str, int]:
    await eventually(lambda: not feed.counts.waiting)
    return feed.told()


def accounted(counts: dict[str, int]) -> bool:
    return counts["captured"] == sum(counts[name] for name in ("sent", "dropped", "lost", "unused", "waiting"))


async def test_every_frame_is_accounted_for_and_a_clip_keeps_the_late_ones() -> None:
    clock = Clock()
    feed = Feed(print, clock=clock)
    talker = Talker(feed, clock)
    talker.say(3)
    clip = Clip(480 * 12)
    feed.clips.add(clip)
    talker.say(5)
    talker.say(2, late_ms=LATE_MS + 50)
    talker.say(1, skip=4)
    talker.say(4, late_ms=STALE_MS + 50)
    feed.clips.clear()
    counts = feed.told()
    assert counts == {"captured": 19, "sent": 12, "late": 6, "dropped": 0, "lost": 4, "unused": 3, "waiting": 0}
    assert accounted(counts)
    assert (await clip.done).shape == (480 * 12,)


def test_a_session_gets_everything_but_what_is_stale(scene: Scene) -> None:
    clock = Clock()
    feed = Feed(print, clock=clock)
    sending = shared_loop().submit(feed.send_to(scene.session))
    talker = Talker(feed, clock)

    async def talk() -> dict[str, int]:
        await asyncio.sleep(0)
        talker.say(5)
        await settled(feed)
        talker.say(3, late_ms=LATE_MS + 50)
        talker.say(2, late_ms=STALE_MS + 50)
        talker.say(5)
        return await settled(feed)

    counts = on_loop(talk)
    assert counts == {"captured": 15, "sent": 13, "late": 3, "dropped": 2, "lost": 0, "unused": 0, "waiting": 0}
    assert [event.audio for event in heard(scene, events.InputAudioBufferAppend, 13)] == [FRAME] * 13
    sending.cancel()


def test_a_g711_session_gets_8_khz(scene: Scene) -> None:
    on_loop(lambda: scene.session.update(input_format=AudioFormat(type="audio/pcmu")))
    feed = Feed(print, clock=Clock())  # which stands still: no frame is late
    sending = shared_loop().submit(feed.send_to(scene.session))
    tone = (0.5 * np.sin(np.arange(24_000) * 2 * np.pi * 440 / 24_000) * 32_767).astype("<i2")

    async def talk() -> None:
        await asyncio.sleep(0)
        for first in range(50):
            feed.sound(first=first, frames=1, stamp_ms=0.0, pcm=tone[480 * first : 480 * first + 480].tobytes())
        await settled(feed)

    on_loop(talk)
    data = b"".join(event.audio for event in heard(scene, events.InputAudioBufferAppend, 40))
    audio = decode_ulaw(data)
    assert 8_000 - 200 < len(audio) <= 8_000
    assert np.argmax(np.abs(np.fft.rfft(audio[2_000:6_000]))) * 2 == 440
    sending.cancel()


def test_push_to_talk_is_a_turn_where_nobody_detects_turns(scene: Scene) -> None:
    on_loop(lambda: scene.session.update(turn_detection=None))
    mic = Microphone(scene.session, mode="push to talk")
    mic._feed._clock = Clock()  # which stands still: no frame is late
    sound = {"run": "p-1", "frames": 1, "t": 0.0, "hint": ""}
    on_loop(lambda: None)
    on_loop(mic._on_message, "state", {"state": "starting", "run": "p-1", **FACTS}, [])
    on_loop(mic._on_message, "sound", {**sound, "first": 0, "talk": False}, [FRAME])
    on_loop(mic._on_message, "talk", {"run": "p-1", "on": True}, [])
    for first in range(1, 8):
        on_loop(mic._on_message, "sound", {**sound, "first": first, "talk": True}, [FRAME])
    on_loop(mic._on_message, "talk", {"run": "p-1", "on": False}, [])
    assert len(heard(scene, events.InputAudioBufferAppend, 7)) == 7
    heard(scene, events.InputAudioBufferCommit, 1)
    heard(scene, events.ResponseCreate, 1)
    assert mic.counts["unused"] == 1
    mic.close()


async def test_a_refused_turn_is_shown_and_the_microphone_goes_on() -> None:
    problems: list[str] = []
    async with Peer() as peer, connect(Custom(peer.url), budget=Budget(output_audio_s=0.1)) as session:
        clock = Clock()
        feed = Feed(problems.append, clock=clock)
        sending = asyncio.create_task(feed.send_to(session))
        await session.ask("Hello!")  # 0.2 s of audio: the budget is used up
        talker = Talker(feed, clock)
        feed.talk(True)
        talker.say(6)
        feed.talk(False)
        await eventually(lambda: problems)
        assert "budget" in problems[0]
        talker.say(5)
        counts = await settled(feed)
        assert counts["sent"] == counts["captured"] == 11
        assert not sending.done()
    sending.cancel()


def test_only_the_capture_that_began_last_counts() -> None:
    mic = Microphone()
    for run in ("a-1", "b-1"):
        on_loop(mic._on_message, "state", {"state": "starting", "run": run, **FACTS}, [])
        on_loop(mic._on_message, "state", {"state": "on", "run": run, **FACTS}, [])
    on_loop(
        mic._on_message, "sound", {"run": "a-1", "first": 0, "frames": 1, "t": 0.0, "hint": "", "talk": True}, [FRAME]
    )
    on_loop(mic._on_message, "state", {"state": "off", "run": "a-1", **FACTS}, [])
    assert (mic.state, mic.counts["captured"], mic.device_rate_hz) == ("on", 0, 48_000)
    mic.close()


async def test_a_clip_right_after_another_waits_until_the_page_is_off() -> None:
    microphone = Microphone()

    def said(kind: str, run: str, pcm: bytes = b"", **facts: Any) -> None:
        header = {**FACTS, "run": run, "first": 0, "frames": 1, "t": 0.0, "hint": "", "talk": True, **facts}
        on_loop(microphone._on_message, kind, header, [pcm])

    async def starts(run: str) -> None:
        await eventually(lambda: microphone._wanted)  # the page is asked to
        said("state", run, state="starting")
        said("state", run, state="on")

    first = asyncio.create_task(microphone.record(0.02))
    await starts("page-1")
    said("sound", "page-1", FRAME)
    assert len(await first) == 480
    later = asyncio.create_task(microphone.record(0.02))
    await asyncio.sleep(0)
    on_loop(lambda: None)  # now it waits
    said("sound", "page-1", bytes(960))  # the last frame of the capture before
    said("state", "page-1", state="off")
    await starts("page-2")
    said("sound", "page-2", FRAME)
    assert (await later).any()
    microphone.close()


async def test_a_clip_leaves_on_what_a_person_was_just_switching_on() -> None:
    microphone = Microphone()
    on_loop(microphone._on_message, "state", {**FACTS, "state": "starting", "run": "page-1"}, [])
    clip = asyncio.create_task(microphone.record(0.02))
    await eventually(lambda: microphone._feed.clips)
    on_loop(microphone._on_message, "state", {**FACTS, "state": "on", "run": "page-1"}, [])
    header = {"run": "page-1", "first": 0, "frames": 1, "t": 0.0, "hint": "", "talk": True}
    on_loop(microphone._on_message, "sound", header, [FRAME])
    assert len(await clip) == 480
    assert microphone._ending is None  # nobody has asked the page to stop
    assert microphone.state == "on"
    microphone.close()


async def test_of_two_clips_at_once_the_longer_is_whole() -> None:
    microphone = Microphone(source=np.full(24_000, 0.25, np.float32))
    short, long = await asyncio.gather(microphone.record(0.1), microphone.record(0.4))
    assert (len(short), len(long)) == (2_400, 9_600)
    await eventually(lambda: microphone.state == "off")
    microphone.close()


async def test_an_interrupted_cell_ends_its_recording() -> None:
    microphone = Microphone()
    clip = asyncio.create_task(microphone.record(1.0))
    await eventually(lambda: microphone._wanted)
    clip.cancel()
    with pytest.raises(asyncio.CancelledError):
        await clip
    await eventually(lambda: not microphone._wanted and not microphone._feed.clips)
    microphone.close()


async def test_a_stand_in_speaks_at_the_speed_of_speech_and_then_is_silent() -> None:
    clock, frames = Clock(), []

    def take(index: int, pcm: bytes) -> None:
        frames.append((clock() - 1000, index, pcm))
        if index == 9:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await speak(np.full(480 * 4 + 100, 0.25, np.float32), take, clock=clock, sleep=clock.sleep)
    assert [round(at * 50, 6) for at, _, _ in frames] == list(range(1, 11))
    loud = b"".join(pcm for _, _, pcm in frames)
    assert len(loud) == 960 * 10
    assert np.count_nonzero(np.frombuffer(loud, "<i2")) == 480 * 4 + 100


async def test_a_clip_of_a_stand_in(tmp_path: Path) -> None:
    tone = (0.5 * np.sin(np.arange(8_000) * 2 * np.pi * 440 / 48_000)).astype(np.float32)
    write_wav(tmp_path / "tone.wav", tone, rate_hz=48_000)
    mic = Microphone(source=tmp_path / "tone.wav")
    assert mic.stand_in == "tone.wav (0.2 s)"
    clip = await mic.record(0.1, path=tmp_path / "clip.wav")
    assert clip.shape == (2_400,)
    assert np.abs(clip[:2_000] - tone[:4_000:2]).max() < 1e-2
    assert np.abs(read_wav(tmp_path / "clip.wav")[0] - clip).max() < 1e-4
    assert mic.state == "off"
    assert accounted(mic.counts)
    mic.muted = True
    assert not (await mic.record(0.06)).any()
    mic.close()


def test_a_turn_is_answered_by_whoever_listens(scene: Scene) -> None:
    mic = Microphone(scene.session, source=np.zeros(2_400, np.float32))
    turn = shared_loop().submit(mic.turn(timeout_s=10))
    heard(scene, events.InputAudioBufferAppend, 1)
    scene.answer_now(np.zeros(2_400, np.int16), text="Yes.")
    assert turn.result(10).transcript == "Yes."
    assert mic.state == "off"
    with pytest.raises(WidgetError, match="nobody was heard to finish a turn"):
        shared_loop().run(mic.turn(timeout_s=0.05), timeout_s=10)
    mic.close()


def test_a_session_hears_one_microphone_the_newest(scene: Scene) -> None:
    first = Microphone(scene.session, source=np.zeros(2_400, np.float32))
    first.start()
    heard(scene, events.InputAudioBufferAppend, 1)
    second = Microphone(scene.session)
    on_loop(lambda: None)
    assert (first.session, second.session, first.state) == (None, scene.session, "off")
    first.close()
    second.close()


def test_the_end_of_the_session_ends_the_microphone(scene: Scene) -> None:
    mic = Microphone(scene.session, source=np.zeros(2_400, np.float32))
    turn = shared_loop().submit(mic.turn(timeout_s=10))
    heard(scene, events.InputAudioBufferAppend, 1)
    scene.close()
    with pytest.raises(RtnbError, match="session"):
        turn.result(10)
    assert mic.state == "off"
    mic.close()


def test_what_cannot_be_is_said() -> None:
    mic = Microphone()
    with pytest.raises(WidgetError, match="no page has shown this microphone") as raised:
        shared_loop().run(mic.record(1, timeout_s=0.05), timeout_s=10)
    assert raised.value.__notes__
    with pytest.raises(WidgetError, match="nobody to answer"):
        shared_loop().run(mic.turn(), timeout_s=10)
    import ipywidgets

    with pytest.raises(TypeError, match="no ipywebrtc stream"):
        Microphone(source=ipywidgets.IntSlider())
    with pytest.raises(TypeError, match="did you mean 'muted'"):
        Microphone(mute=True)
    with pytest.raises(TypeError, match="follows a Session"):
        Microphone("sim")
    mic.close()
    mic.close()


def test_the_session_of_something_that_has_one_is_taken(scene: Scene) -> None:
    mic = Microphone(scene)
    assert mic.session is scene.session
    mic.close()
