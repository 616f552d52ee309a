"""`Microphone` without a page: outcome of each frame, recordings as a source, errors."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pytest

from rtnb import Budget, Custom, connect
from rtnb._loop import shared_loop
from rtnb.audio import decode_pcm16, decode_ulaw, encode_pcm16, read_wav, resample, write_wav
from rtnb.errors import RtnbError, WidgetError
from rtnb.protocol import events
from rtnb.protocol.values import AudioFormat
from rtnb.widgets import Microphone
from rtnb.widgets.microphone import LATE_MS, QUEUE_FRAMES, STALE_MS, AudioSender, play_frames
from tests.client.peer import Peer
from tests.widgets.page import eventually
from tests.widgets.scene import Scene, on_loop, turn
from tests.widgets.service import Clock

FRAME = np.arange(480, dtype="<i2").tobytes()
SAMPLES = decode_pcm16(FRAME)
TONE = (0.5 * np.sin(np.arange(24_000) * 2 * np.pi * 440 / 24_000)).astype(np.float32)
QUIET = np.zeros(2_400, np.float32)


def heard(scene: Scene, kind: Any, times: int = 1) -> list[Any]:
    """Wait until the service has heard so many events of a kind."""
    on_loop(partial(scene.service.hears, kind, times=times))
    return scene.service.said(kind)


# --- the outcome of each frame ----------------------------------------------------------------------------------------


class Frames:
    """Frames of one page, in order, to a sender on the test's clock."""

    def __init__(self, session: Any = None) -> None:
        self.clock = Clock()
        self.problems: list[str] = []
        self.sender = AudioSender(self.problems.append, clock=lambda: self.clock() * 1000)
        self.session = session
        self.next = 0

    def send(self, frames: int = 1, *, age_ms: float = 0.0, skip: int = 0, samples: Any = SAMPLES) -> None:
        for _ in range(frames):
            self.clock.advance(20)
            self.next += skip
            stamp_ms = self.clock() * 1000 - age_ms
            self.sender.take(samples, first=self.next, frames=1, stamp_ms=stamp_ms, session=self.session)
            self.next += 1

    async def in_steps(self, count: int) -> None:
        for _ in range(count):
            self.send()
            await asyncio.sleep(0)

    async def settled(self) -> dict[str, int]:
        await eventually(lambda: not self.sender.counts["waiting"])
        return self.sender.counts


def adds_up(counts: dict[str, int]) -> bool:
    return counts["captured"] == sum(counts[name] for name in ("sent", "dropped", "unused", "waiting"))


def counts_of(**counts: int) -> dict[str, int]:
    return {**dict.fromkeys(("captured", "sent", "late", "dropped", "unused", "waiting"), 0), **counts}


async def test_every_frame_is_counted_and_a_recording_keeps_the_late_ones() -> None:
    frames = Frames()
    frames.send(3)
    recording: asyncio.Queue[Any] = asyncio.Queue()
    frames.sender.recordings.add(recording)
    frames.send(5)
    frames.send(2, age_ms=LATE_MS + 50)
    frames.send(1, skip=4)
    frames.send(4, age_ms=STALE_MS + 50)
    frames.sender.recordings.clear()
    assert frames.sender.counts == counts_of(captured=19, sent=12, late=6, dropped=4, unused=3)
    assert adds_up(frames.sender.counts)
    assert recording.qsize() == 12


def test_a_session_gets_everything_but_what_is_stale(scene: Scene) -> None:
    frames = Frames(scene.session)

    async def send() -> dict[str, int]:
        frames.send(5)
        await frames.settled()
        frames.send(3, age_ms=LATE_MS + 50)
        frames.send(2, age_ms=STALE_MS + 50)
        frames.send(5)
        return await frames.settled()

    assert on_loop(send) == counts_of(captured=15, sent=13, late=3, dropped=2)
    assert [event.audio for event in heard(scene, events.InputAudioBufferAppend, 13)] == [FRAME] * 13


async def test_the_queue_drops_the_oldest_frames_while_the_session_is_blocked() -> None:
    async with Peer() as peer, connect(Custom(peer.url)) as session:  # on this loop, which is blocked meanwhile
        frames = Frames(session)
        on_loop(frames.in_steps, 2 * QUEUE_FRAMES)
        counts = frames.sender.counts
        assert adds_up(counts)
        assert QUEUE_FRAMES <= counts["waiting"] <= QUEUE_FRAMES + 1
        assert counts["dropped"] >= QUEUE_FRAMES - 1
        assert (await frames.settled())["sent"] > 0


async def test_a_new_session_gets_no_frames_of_the_one_before() -> None:
    async with Peer() as peer, connect(Custom(peer.url)) as session, connect(Custom(peer.url)) as other:
        frames = Frames(session)
        on_loop(frames.in_steps, 10)
        frames.session = other
        on_loop(frames.in_steps, 1)
        assert frames.sender.counts == counts_of(captured=11, unused=10, waiting=1)
        assert (await frames.settled())["sent"] == 1


def test_a_g711_session_gets_8_khz(scene: Scene) -> None:
    on_loop(partial(scene.session.update, input_format=AudioFormat(type="audio/pcmu")))
    frames = Frames(scene.session)

    async def send() -> None:
        for samples in TONE.reshape(50, 480):
            frames.send(samples=samples)
            await frames.settled()

    on_loop(send)
    data = b"".join(event.audio for event in heard(scene, events.InputAudioBufferAppend, 40))
    audio = decode_ulaw(data)
    assert 8_000 - 200 < len(audio) <= 8_000
    assert np.argmax(np.abs(np.fft.rfft(audio[2_000:6_000]))) * 2 == 440


async def test_a_refused_turn_is_shown_and_the_microphone_goes_on() -> None:
    async with Peer() as peer, connect(Custom(peer.url), budget=Budget(output_audio_s=0.1)) as session:
        await session.ask("Hello!")  # 0.2 s of audio: the budget is used up
        frames = Frames(session)
        frames.sender.turn(session, begins=True)
        frames.send(6)
        frames.sender.turn(session, begins=False)
        await eventually(lambda: frames.problems)
        assert "budget" in frames.problems[0]
        frames.send(5)
        counts = await frames.settled()
        assert counts["sent"] == counts["captured"] == 11


# --- messages of the page ---------------------------------------------------------------------------------------------


class FakePage:
    """A page's messages, sent by the test on the background loop."""

    def __init__(self, microphone: Microphone) -> None:
        self.microphone = microphone

    def send(self, kind: str, run: str, *buffers: bytes, **facts: Any) -> None:
        turn()
        on_loop(self.microphone._on_message, kind, {"run": run, **facts}, list(buffers))

    def state(self, state: str, run: str, **facts: Any) -> None:
        more = {"status": state, "problem": "", "next_step": "", "devices": [], "rate_hz": 24_000, **facts}
        self.send("state", run, state=state, **more)

    def start(self, run: str, **facts: Any) -> None:
        self.state("starting", run, **facts)
        self.state("on", run, **facts)

    def audio(self, run: str, first: int = 0, pcm: bytes = FRAME, *, talking: bool = True) -> None:
        self.send("audio", run, pcm, first=first, frames=1, t=None, talking=talking)


@pytest.fixture
def microphone() -> Microphone:
    return Microphone()


@pytest.fixture
def page(microphone: Microphone) -> FakePage:
    return FakePage(microphone)


def test_push_to_talk_is_a_turn_without_turn_detection(scene: Scene) -> None:
    on_loop(partial(scene.session.update, turn_detection=None))
    microphone = Microphone(scene.session, mode="push to talk")
    page = FakePage(microphone)
    page.start("p-1")
    page.audio("p-1", 0, talking=False)
    page.send("talk", "p-1", on=True)
    for first in range(1, 8):
        page.audio("p-1", first)
    page.send("talk", "p-1", on=False)
    assert len(heard(scene, events.InputAudioBufferAppend, 7)) == 7
    heard(scene, events.InputAudioBufferCommit)
    heard(scene, events.ResponseCreate)
    assert microphone.counts["unused"] == 1


def test_only_the_newest_capture_counts(microphone: Microphone, page: FakePage) -> None:
    for run in ("a-1", "b-1"):
        page.start(run, rate_hz=48_000)
    page.audio("a-1")
    page.state("off", "a-1")
    assert (microphone.state, microphone.counts["captured"], microphone.device_rate_hz) == ("on", 0, 48_000)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000, 96_000])
def test_frames_of_any_device_rate_become_24_khz(microphone: Microphone, page: FakePage, rate_hz: int) -> None:
    noise = np.random.default_rng(rate_hz).uniform(-0.5, 0.5, rate_hz // 2).astype(np.float32)
    recorded: asyncio.Queue[Any] = on_loop(asyncio.Queue)
    microphone._sender.recordings.add(recorded)
    page.start("p-1", rate_hz=rate_hz)
    for number, frame in enumerate(noise.reshape(25, -1)):
        page.audio("p-1", number, encode_pcm16(frame))
        page.state("on", "p-1", rate_hz=rate_hz, status=f"{number}")  # a new status changes no sample
    heard = np.concatenate([recorded.get_nowait() for _ in range(25)])
    expected = resample(noise, from_rate_hz=rate_hz, to_rate_hz=24_000)[: len(heard)]
    assert len(heard) >= 12_000 - 480
    assert np.abs(heard - expected).max() < 1.1 / 32_768


def test_the_problem_of_a_page_is_shown_with_its_next_step(microphone: Microphone, page: FakePage) -> None:
    page.state("off", "", problem="The page has no microphone.", next_step="Use a file.")
    assert (microphone.state, microphone.problem) == ("off", "The page has no microphone. Use a file.")
    page.start("p-1")
    assert (microphone.state, microphone.problem) == ("on", "")


def test_dropped_frames_are_in_the_status(microphone: Microphone, page: FakePage) -> None:
    page.start("p-1", status="Listening")
    page.audio("p-1", 0)
    page.audio("p-1", 13)
    page.audio("p-1", 24)
    assert microphone.status == "Listening · 22 frames dropped"
    assert microphone.counts == counts_of(captured=25, dropped=22, unused=3)


async def test_a_recording_right_after_another_gets_none_of_its_frames(microphone: Microphone, page: FakePage) -> None:
    first = asyncio.create_task(microphone.record(0.02))
    await eventually(lambda: microphone._start_requested)  # the page is asked to
    page.start("page-1")
    page.audio("page-1")
    assert len(await first) == 480
    later = asyncio.create_task(microphone.record(0.02))
    await eventually(lambda: microphone._start_requested)
    page.audio("page-1", pcm=bytes(960))  # the last frame of the capture before
    page.state("off", "page-1")
    page.start("page-2")
    page.audio("page-2")
    assert (await later).any()


async def test_a_recording_leaves_on_a_microphone_that_the_user_was_switching_on(
    microphone: Microphone, page: FakePage
) -> None:
    page.state("starting", "page-1")
    recording = asyncio.create_task(microphone.record(0.02))
    await eventually(lambda: microphone._sender.recordings)
    page.state("on", "page-1")
    page.audio("page-1")
    assert len(await recording) == 480
    await eventually(lambda: not microphone._users)
    assert microphone.state == "on"


async def test_an_interrupted_cell_ends_its_recording(microphone: Microphone) -> None:
    recording = asyncio.create_task(microphone.record(1.0))
    await eventually(lambda: microphone._start_requested)
    recording.cancel()
    with pytest.raises(asyncio.CancelledError):
        await recording
    await eventually(lambda: not microphone._start_requested and not microphone._sender.recordings)


def test_options_show_and_set_the_traits(microphone: Microphone, page: FakePage) -> None:
    device, mode, *boxes = microphone.options.children
    assert [box.value for box in boxes] == [False, True, True, True, False]
    assert boxes[0].description == "Mute (send silence)"
    boxes[1].value = False
    mode.value = "push to talk"
    assert (microphone.echo_cancellation, microphone.mode) == (False, "push to talk")
    page.start("p-1", devices=["Headset", "Camera"])
    device.value = "Camera"
    assert microphone.device == "Camera"
    page.state("on", "p-1", devices=["Headset"])  # unplugged: the choice stays
    assert (microphone.device, device.value) == ("Camera", "Camera")
    microphone.device = ""
    assert device.value == ""
    assert microphone.options is microphone.options


# --- recordings as a source -------------------------------------------------------------------------------------------


async def test_of_two_recordings_at_once_the_longer_is_whole() -> None:
    microphone = Microphone(source=np.full(24_000, 0.25, np.float32))
    short, long = await asyncio.gather(microphone.record(0.1), microphone.record(0.4))
    assert (len(short), len(long)) == (2_400, 9_600)
    await eventually(lambda: microphone.state == "off")


async def test_a_recording_is_played_in_real_time_and_then_silence() -> None:
    clock, ends_s, frames = Clock(), [], []

    def take(number: int, samples: Any) -> None:
        ends_s.append(clock() - 1000)
        frames.append(samples)
        if number == 9:
            raise asyncio.CancelledError

    audio = np.full(480 * 4 + 100, 0.25, np.float32)
    with pytest.raises(asyncio.CancelledError):
        await play_frames(audio, take, clock=lambda: clock() * 1000, sleep=clock.sleep)
    assert ends_s == pytest.approx(0.02 * np.arange(1, 11))
    played = np.concatenate(frames)
    assert len(played) == 480 * 10
    assert np.count_nonzero(played) == len(audio)


async def test_a_recording_of_a_sample(tmp_path: Path) -> None:
    write_wav(tmp_path / "tone.wav", resample(TONE[:4_800], from_rate_hz=24_000, to_rate_hz=48_000), rate_hz=48_000)
    mic = Microphone(source=tmp_path / "tone.wav")
    assert mic.sample == "tone.wav (0.2 s)"
    clip = await mic.record(0.1, path=tmp_path / "clip.wav")
    assert clip.shape == (2_400,)
    assert np.abs(clip[100:2_000] - TONE[100:2_000]).max() < 1e-2
    assert np.abs(read_wav(tmp_path / "clip.wav")[0] - clip).max() < 1e-4
    assert mic.state == "off"
    assert adds_up(mic.counts)
    mic.muted = True
    assert not (await mic.record(0.06)).any()


# --- the session ------------------------------------------------------------------------------------------------------


def test_a_turn_ends_with_the_response_of_the_session(scene: Scene) -> None:
    mic = Microphone(scene, source=QUIET)  # of anything that has a session
    turn = shared_loop().submit(mic.turn(timeout_s=10))
    heard(scene, events.InputAudioBufferAppend)
    scene.answer_now(np.zeros(2_400, np.int16), text="Yes.")
    assert turn.result(10).transcript == "Yes."
    assert mic.state == "off"
    with pytest.raises(WidgetError, match="detected no finished turn"):
        on_loop(partial(mic.turn, timeout_s=0.05))


def test_a_new_microphone_replaces_the_one_of_its_session(scene: Scene) -> None:
    first = Microphone(scene.session, source=QUIET)
    first.start()
    heard(scene, events.InputAudioBufferAppend)
    second = Microphone(scene.session)
    turn()
    assert (first.session, second.session, first.state) == (None, scene.session, "off")


def test_the_end_of_the_session_ends_the_microphone(scene: Scene) -> None:
    mic = Microphone(scene.session, source=QUIET)
    turn = shared_loop().submit(mic.turn(timeout_s=10))
    heard(scene, events.InputAudioBufferAppend)
    scene.close()
    with pytest.raises(RtnbError, match="session"):
        turn.result(10)
    assert mic.state == "off"


# --- errors -----------------------------------------------------------------------------------------------------------


def test_errors_name_the_reason_and_the_next_step(microphone: Microphone) -> None:
    with pytest.raises(WidgetError, match="no page has shown this microphone") as raised:
        on_loop(partial(microphone.record, 0.01, timeout_s=0.05))
    assert raised.value.__notes__
    with pytest.raises(WidgetError, match="has no session"):
        on_loop(microphone.turn)


@pytest.mark.parametrize(
    "session, options, words",
    [
        (None, {"source": ipywidgets.Layout()}, "allowed: an ipywebrtc stream"),
        (None, {"mute": True}, "did you mean 'muted'"),
        ("sim", {}, "follows a Session"),
    ],
)
def test_wrong_arguments_are_refused(session: Any, options: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        Microphone(session, **options)
