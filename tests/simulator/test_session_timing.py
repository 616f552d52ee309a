"""When a session says what, on a clock that jumps: exact, and without waiting."""

from __future__ import annotations

import asyncio
import dataclasses
import selectors
from collections.abc import Coroutine
from itertools import pairwise
from typing import Any

import pytest

from rtnb.protocol import events
from rtnb.protocol.values import PCM16, PCMU, Transcription
from rtnb.simulator import LatencyProfile
from rtnb.simulator.delivery import InputScheduler
from rtnb.simulator.responder import Say
from tests.simulator.rig import VAD_ONLY, Rig, World, spoken, world

LONG = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen"  # no comma: no pause


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits: where it would, its clock jumps."""

    def __init__(self) -> None:
        loop = self
        self.now = 0.0

        class Jumping(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> Any:
                loop.now += timeout or 0.0
                return super().select(0)

        super().__init__(Jumping())

    def time(self) -> float:
        return self.now


def run(coro: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(coro)


class TimedRig(Rig):
    """A rig that notes when each event came, ms."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.times: list[float] = []

    async def next(self) -> Any:
        event = await super().next()
        if event is not None:
            self.times.append(asyncio.get_running_loop().time() * 1000)
        return event

    def when(self, wire_type: str) -> list[float]:
        return [at for at, frame in zip(self.times, self.frames, strict=True) if frame["type"] == wire_type]


class Stretches:
    """Says four stretches, some of them late."""

    def __init__(self, *pauses_s: float) -> None:
        self.pauses_s = pauses_s

    async def respond(self, turn: Any) -> Any:
        for pause_s in self.pauses_s:
            await asyncio.sleep(pause_s)
            yield Say(" This is a stretch of some length, and here it ends.")


def deltas(rig: TimedRig) -> list[tuple[float, float]]:
    """When each audio delta came, and how long the audio before it is; both from the first delta."""
    out, before_ms = [], 0.0
    for at, event in zip(rig.times, rig.events, strict=True):
        if isinstance(event, events.ResponseOutputAudioDelta):
            out.append((at, before_ms))
            before_ms += len(event.delta) / 48
    return [(at - out[0][0], offset) for at, offset in out]


async def replied(shared: World, **settings: Any) -> TimedRig:
    """A reply to nothing, to its end."""
    async with TimedRig(shared, settings=settings or None) as rig:
        rig.respond()
        await rig.until("rate_limits.updated")
        return rig


@pytest.mark.parametrize("rate", [1.0, 3.0])
def test_audio_keeps_its_pace_over_all_stretches(rate: float) -> None:
    latency = f"real_time,jitter_ms=0,audio_rate={rate}"
    rig = run(replied(world(latency=latency, make_responder=lambda n: Stretches(0, 0, 0, 0))))
    for at, offset in deltas(rig):
        assert at == pytest.approx(offset / rate, abs=0.5)  # the border of two stretches may lie between two ms


def test_words_that_come_late_shift_what_follows_and_nothing_is_hurried() -> None:
    late_words = world(latency="real_time,jitter_ms=0", make_responder=lambda n: Stretches(2.0, 10.0, 0.0))
    rig = run(replied(late_words))
    late = [at - offset for at, offset in deltas(rig)]
    assert late[0] == 0.0
    assert all(b >= a - 0.5 for a, b in pairwise(late))  # no delta catches up
    first = rig.when("response.output_audio.delta")[0] - rig.when("response.created")[0]
    assert first == pytest.approx(2000, abs=1)
    jumps = sorted(b - a for a, b in pairwise(late))
    assert jumps[-1] > 5000  # ten seconds of thought, less what was still being said
    assert jumps[-2] < 1


def test_the_realistic_profile_is_what_was_measured() -> None:
    rig = run(replied(world(latency="realistic,jitter_ms=0")))  # as if it was sent 280 ms ago, and took that long
    assert rig.when("response.created") == [0.0]
    assert rig.when("response.output_audio_transcript.delta")[0] == pytest.approx(476 - 280)
    done = rig.when("response.done")[0]
    assert rig.when("rate_limits.updated")[0] - done == pytest.approx(43)
    assert (done - 196) * 3 == pytest.approx(len(rig.sent()) / 48, abs=3 * 650)  # three times as fast as it plays


@pytest.mark.parametrize("format_", [PCM16, PCMU], ids=lambda one: one.type)
def test_delta_sizes_are_those_of_the_recorded_replies(format_: Any) -> None:
    """Azure OpenAI realtime quickstart, output samples, API version 2024-10-01-preview."""
    rig = run(replied(world(latency="realistic", scenario={"steps": [{"say": LONG}]}), output_format=format_))
    sizes = [len(one.delta) for one in rig.events if isinstance(one, events.ResponseOutputAudioDelta)]
    recorded = [4800, 7200, 12000, 12000, 12000, 12000]
    assert sizes[:6] == [size if format_ is PCM16 else size // 6 for size in recorded]
    assert max(sizes) <= 28_800


@pytest.mark.parametrize("latency", ["realistic", "real_time", "fast"])
def test_every_word_comes_before_the_audio_it_begins_in_and_time_never_runs_back(latency: str) -> None:
    rig = run(replied(world(latency=latency, scenario={"steps": [{"say": LONG}]})))
    total, told, sent = len(rig.sent()), 0, 0
    for event in rig.events:
        if isinstance(event, events.ResponseOutputAudioTranscriptDelta):
            told += len(event.delta)
        elif isinstance(event, events.ResponseOutputAudioDelta):
            assert told / len(LONG) > sent / total - 0.1  # words take about as long as they have letters
            sent += len(event.delta)
    assert (told, sent) == (len(LONG), total)
    assert rig.times == sorted(rig.times)
    took_ms = rig.when("response.output_audio.done")[0] - rig.when("response.output_audio.delta")[0]
    low, high = {"realistic": (0.1, 0.5), "real_time": (0.8, 1.0), "fast": (0, 0)}[latency]
    assert low * total / 48 <= took_ms <= high * total / 48


def test_a_delta_comes_up_to_30_ms_later_than_planned() -> None:
    rig = run(replied(world(latency="realistic", scenario={"steps": [{"say": LONG}]})))
    late = [at - offset / 3 for at, offset in deltas(rig)]
    assert 10 < max(late) - min(late) <= 30.5


@pytest.mark.parametrize(
    "text, tokens",
    [
        ("Hello! How can I help?", ["Hello", "!", " How", " can", " I", " help", "?"]),
        ("It's 3.5 km, well-known.", ["It's", " 3.5", " km", ",", " well-known", "."]),
        ("你好 world。", ["你", "好", " world", "。"]),
        ("مرحبا، بك", ["مرحبا", "،", " بك"]),
        ("नमस्ते दुनिया।", ["नमस्ते", " दुनिया", "।"]),
        ("end. ", ["end", ". "]),
        ("...", [".", ".", "."]),
    ],
)
def test_text_comes_in_words_with_their_space_and_single_punctuation(text: str, tokens: list[str]) -> None:
    shared = world(latency="realistic", scenario={"steps": [{"say": text}]})
    rig = run(replied(shared, output_modalities=("text",)))
    assert [one["delta"] for one in rig.of("response.output_text.delta")] == tokens
    assert rig.when("response.output_text.delta")[0] >= 476 - 280


def test_words_without_sound_are_written_and_nothing_is_played() -> None:
    rig = run(replied(world(latency="realistic", scenario={"steps": [{"say": "\n "}]})))
    assert [one["delta"] for one in rig.of("response.output_audio_transcript.delta")] == ["\n "]
    assert rig.sent() == b""
    assert rig.last("response.done")["response"]["status"] == "completed"


def test_presets_are_named_and_changed() -> None:
    realistic = LatencyProfile.parse("realistic")
    assert realistic == LatencyProfile()
    changed = dataclasses.replace(realistic, first_delta_ms=300, jitter_ms=20)
    assert LatencyProfile.parse(" first_delta_ms = 300, jitter_ms=20") == changed
    assert LatencyProfile.parse("fast,audio_rate=1").audio_rate == 1


def test_a_transcription_takes_its_time() -> None:
    async def talk() -> TimedRig:
        asked = {"turn_detection": VAD_ONLY, "transcription": Transcription(model="whisper-1")}
        async with TimedRig(world(latency="realistic,jitter_ms=0"), settings=asked) as rig:
            rig.hear(spoken())
            await rig.until("conversation.item.input_audio_transcription.failed")
            return rig

    rig = run(talk())
    committed = rig.when("input_audio_buffer.committed")[0]
    assert rig.when("conversation.item.input_audio_transcription.failed")[0] - committed == pytest.approx(1300 - 280)


def test_a_session_lasts_sixty_minutes_and_no_longer() -> None:
    async def wait() -> TimedRig:
        async with TimedRig() as rig:
            rig.patience_s = 4000.0
            await rig.until("error")
            return rig

    rig = run(wait())
    assert rig.when("error") == [3_600_000.0]
    assert "60 minutes" in rig.frames[-1]["error"]["message"]
    assert rig.frames[0]["session"]["expires_at"] == 1_800_000_000 + 3600


def test_listening_shares_a_round_of_the_loop_and_waits_for_the_next() -> None:
    async def crowd() -> list[int]:
        loop: Any = asyncio.get_running_loop()
        scheduler, rounds, order = InputScheduler(), [0], []

        def count() -> None:
            rounds[0] += 1
            loop.call_soon(count)

        async def hear() -> None:
            await scheduler.turn()
            loop.now += 0.0006  # what hearing takes
            order.append(rounds[0])

        loop.call_soon(count)
        await asyncio.gather(*(hear() for _ in range(6)))
        return order

    order = run(crowd())
    assert [order.count(n) for n in dict.fromkeys(order)] == [2, 2, 2]  # a slice of 1 ms, and the one that ends it
