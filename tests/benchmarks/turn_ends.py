"""Delay and mistakes of turn ends: ``python -m tests.benchmarks.turn_ends``

Server VAD at 200, 500 and 800 ms beside the semantic VAD with both of its judges, on the same audio: the labelled
monologues of the recordings of speech, and hesitations spoken by the neural voice (a pause in the middle of a
sentence, at a place where nobody ends). Per setting: pauses of 100 ms or more inside a turn, in how many of them the
turn was ended (with the exact 95 % interval), and the median time from the end of speech to the end of the turn.
Needs the recordings, the extra ``local`` and the weights of Smart Turn; without the latter two this is said, and they
are left out.
"""

import asyncio
import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from rtnb.analysis.intervals import clopper_pearson
from rtnb.audio import encode_pcm16, resample
from rtnb.errors import AudioError
from rtnb.protocol.values import PCM16, SemanticVad, ServerVad
from rtnb.simulator.turn_detection import FadeDetector, SmartTurnDetector, SpeechBatch, Stopped, TurnDetection
from rtnb.simulator.voice import open_voice
from tests.benchmarks.stage import labelled, options, print_table

SENTENCES = (
    ("I would like to book a table for", "four people on Friday evening."),
    ("My phone number is zero one seven two", "five five four, nine nine one."),
    ("Could you tell me whether the train to", "Copenhagen leaves on time today?"),
    ("Please send the invoice to my new address, which is", "twelve Station Road in Lund."),
    ("Let me think, I believe that it was in", "the spring of two thousand and nine."),
    ("What I really wanted to ask is whether you", "also deliver on Saturdays."),
    ("The name is spelled with a double", "t, and an e at the end."),
    ("We need two large pizzas and, um,", "a salad without any onions."),
    ("Turn the light in the kitchen", "off, and the one in the hall on."),
    ("If it rains tomorrow, then we should", "probably meet inside instead."),
    ("Can you compare the red one with", "the one that I bought last year?"),
    ("Remind me to call my sister when", "I get back from work."),
)
PAUSES_MS = (350, 600, 900, 1300)
TAIL_MS = 4_500


@dataclass
class Turn:
    """Audio at 24 kHz with one turn in it: its pauses and its end, ms."""

    audio: Any
    pauses: list[tuple[float, float]]
    end_ms: float


def monologues() -> list[Turn]:
    """The labelled recordings in which one person speaks on."""
    turns = []
    for item, audio, rate_hz in labelled():
        audio = resample(audio, from_rate_hz=rate_hz, to_rate_hz=24_000)
        speech = item["speech"]
        pauses = [(1000 * a[1], 1000 * b[0]) for a, b in pairwise(speech) if b[0] - a[1] >= 0.1]
        end_ms = 1000 * speech[-1][1]
        audio = np.concatenate([audio[: int(24 * end_ms)], np.zeros(24 * TAIL_MS, np.float32)])
        turns.append(Turn(audio, pauses, end_ms))
    return turns


async def hesitations() -> list[Turn]:
    """Sentences of the neural voice with a pause in the middle."""
    voice = await open_voice("neural")
    turns = []
    names = ("alloy", "ash", "coral", "verse")
    for number, (first, second) in enumerate(SENTENCES):
        for pause_ms in PAUSES_MS:
            name = names[(number + pause_ms) % len(names)]
            whole = trimmed((await voice.speak(f"{first} {second}", voice=name)).audio)
            cut = break_in(whole, len(first) / (len(first) + len(second)))
            at_ms, length_ms = 300 + cut / 24, (len(whole) - cut) / 24
            quiet = [np.zeros(24 * ms, np.float32) for ms in (300, pause_ms, TAIL_MS)]
            audio = np.concatenate([quiet[0], whole[:cut], quiet[1], whole[cut:], quiet[2]])
            turns.append(Turn(audio, [(at_ms, at_ms + pause_ms)], at_ms + pause_ms + length_ms))
    await voice.aclose()
    return turns


def break_in(audio: Any, share: float) -> int:
    """The softest place near the beginning of the second part: spoken in one breath, so nothing sounds final."""
    frames = audio[: len(audio) // 240 * 240].reshape(-1, 240)
    level = np.convolve((frames**2).mean(axis=1), np.ones(3) / 3, "same")
    middle = round(share * len(frames))
    first = max(0, middle - 25)
    return int(first + np.argmin(level[first : middle + 25])) * 240


def trimmed(audio: Any) -> Any:
    """Speech without the silence around it."""
    loud = np.flatnonzero(np.abs(audio) > 0.02)
    return audio[loud[0] : loud[-1] + 1]


async def outcome(turn: Turn, detection: Any, judge: Any) -> tuple[int, float]:
    """Return in how many pauses the turn was ended, and how long after its end (NaN where it was not)."""
    detector = TurnDetection(SpeechBatch(), judge)
    detector.configure(detection, PCM16)
    stops: list[float] = []
    pcm = encode_pcm16(turn.audio)
    for start in range(0, len(pcm), 960):
        stops += [
            (start + 960) / 48 async for one in detector.append(pcm[start : start + 960]) if isinstance(one, Stopped)
        ]
    cut = sum(any(begin <= stop <= end + 100 for stop in stops) for begin, end in turn.pauses)
    after = [stop - turn.end_ms for stop in stops if stop >= turn.end_ms]
    return cut, after[0] if after else float("nan")


async def main(only_hesitations: bool) -> int:
    settings: dict[str, tuple[Any, Any]] = {
        f"server_vad {ms} ms": (ServerVad(silence_duration_ms=ms), None) for ms in (200, 500, 800)
    }
    settings["semantic_vad, fade rule"] = (SemanticVad(eagerness="auto"), FadeDetector())
    sets = {} if only_hesitations else {"monologues": monologues()}
    try:
        judge = SmartTurnDetector()
        for eagerness in ("low", "auto", "high"):
            settings[f"semantic_vad, smart-turn, {eagerness}"] = (SemanticVad(eagerness=eagerness), judge)
    except AudioError as error:
        print(f"left out: {error}")
    try:
        sets["hesitations"] = await hesitations()
    except AudioError as error:
        print(f"left out: {error}")
    for name, turns in sets.items():
        pauses = sum(len(turn.pauses) for turn in turns)
        print(f"\n{name}: {len(turns)} turns, {pauses} pauses of 100 ms or more")
        rows = {}
        for title, (detection, used) in settings.items():
            cuts, delays = zip(*[await outcome(turn, detection, used) for turn in turns], strict=True)
            low, high = clopper_pearson(sum(cuts), pauses, confidence=0.95)
            percent = {"percent": 100 * sum(cuts) / pauses, "low": 100 * low, "high": 100 * high}
            ended = int(np.isfinite(delays).sum())
            rows[title] = {"cut": sum(cuts), **percent, "delay_p50_ms": np.nanmedian(delays), "ended": ended}
        print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(options(__doc__, hesitations=False).hesitations)))
