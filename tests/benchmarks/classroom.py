"""A class of thirty on one simulator for two minutes: ``python -m tests.benchmarks.classroom``

``rtnb simulate --class`` is another process; the students are here, each with its own key and rtnb's own client at
realistic latency. Every student writes sentences with a word that no other student has, asks for the scenario that all
share, and speaks (real time, server VAD). First, as the floor, a single student does the same alone.
"""

import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import rtnb
from rtnb.audio import babble
from tests.benchmarks.stage import judged, options, print_table, simulate

HOMEWORK = "Read chapter two, and bring a question."
SCENARIO = {"steps": [{"when": {"text": "homework"}, "say": HOMEWORK}]}


@dataclass
class Seen:
    """Observations of one student."""

    asked: int = 0
    wrong: list[str] = field(default_factory=list)
    """Answers that were not this student's, and answers that did not come."""
    first_audio_ms: list[float] = field(default_factory=list)


async def student(line: dict[str, Any], name: str, key: str, seconds: float) -> Seen:
    """Take part until the time is over."""
    number = int(name.split()[1])
    seen, end, word = Seen(), time.monotonic() + seconds, f"pumpkin{number:03}"
    sound = babble(f"this is what {word} says", rate_hz=24_000, seed=number).audio
    target = rtnb.Custom(line["http"].replace("http", "ws"), api_key=key)
    await asyncio.sleep(number * 0.1)  # people do not come all at once
    async with rtnb.connect(target, instructions=f"Remember {word}.") as session:
        turns = {
            "word": lambda: session.ask(f"The word is {word}"),
            "homework": lambda: session.ask("What is the homework?"),
            "speech": lambda: session.say(sound, rate_hz=24_000),
        }
        while time.monotonic() < end:
            for kind, turn in turns.items():
                seen.asked += 1
                try:
                    async with asyncio.timeout(60):
                        response = await turn()
                except (rtnb.RtnbError, TimeoutError) as error:
                    seen.wrong.append(f"{name}, {kind}: {type(error).__name__}: {error}")
                    continue
                words = {one.strip(".,") for one in response.transcript.split() if one.startswith("pumpkin")}
                right = {
                    "word": words == {word},
                    "homework": response.transcript == HOMEWORK,
                    "speech": words <= {word},
                }
                if not right[kind] or response.status != "completed" or not len(response.audio):
                    seen.wrong.append(f"{name}, {kind}: {response.status}, {response.transcript!r}")
                elif kind != "speech" and response.time_to_first_audio_ms is not None:
                    seen.first_audio_ms.append(response.time_to_first_audio_ms)
    return seen


async def hold_class(line: dict[str, Any], seconds: float) -> list[Seen]:
    """Have every student of the class take part."""
    keys = line["class"]["keys"]
    return await asyncio.gather(*(student(line, name, key, seconds) for name, key in keys.items()))


def measure(n_students: int, seconds: float, voice: str) -> tuple[dict[str, float], list[str]]:
    """Hold one class; return its figures, and what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        scenario = Path(folder, "scenario.json")
        scenario.write_text(json.dumps(SCENARIO))
        given = ("--class", "--students", str(n_students), "--voice", voice, "--scenario", str(scenario))
        with simulate(*given) as (_, line):
            seen = asyncio.run(hold_class(line, seconds))
    waits, wrong = [wait for one in seen for wait in one.first_audio_ms], [text for one in seen for text in one.wrong]
    turns, (p50_ms, p95_ms) = sum(one.asked for one in seen), np.percentile(waits or [np.nan], [50, 95])
    first = {"first_audio_p50_ms": p50_ms, "first_audio_p95_ms": p95_ms}
    return {"turns": turns, "answered": turns - len(wrong), **first}, wrong


def main() -> int:
    chosen = options(__doc__, students=30, seconds=120.0, voice="auto")
    alone, _ = measure(1, min(20.0, chosen.seconds), chosen.voice)
    figures, wrong = measure(chosen.students, chosen.seconds, chosen.voice)
    print_table({"one student": alone, f"{chosen.students} students": figures})
    print(*wrong[:10], sep="\n")
    return judged({"turns without their answer": (len(wrong), 0)})


if __name__ == "__main__":
    sys.exit(main())
