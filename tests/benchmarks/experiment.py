"""Time of an experiment, and the timing of an interrupting caller.

Run it with ``python -m tests.benchmarks.experiment``; ``--runs 40`` for a quick one.
"""

import asyncio
import os
import statistics
import time
from typing import Any

import numpy as np

import rtnb
from rtnb import graders
from tests.benchmarks.stage import options

FAST = {"latency": "fast", "voice": "babble"}
AT_MS = 900
WORDS = ("ducks", "trains", "rain", "tea", "chess", "bees", "salt", "snow", "bread", "music")


async def many(n_runs: int) -> str:
    """Time typed questions under two instructions, against the same conversations without an experiment."""
    cases = [f"Tell me about {word}." for word in WORDS]
    variants = {name: {"instructions": name, **FAST} for name in ("Answer in one sentence.", "Explain at length.")}
    repeats = max(1, n_runs // (len(cases) * len(variants)))
    began = time.perf_counter()
    found = await rtnb.experiment("sim", cases, variants, repeats=repeats, graders=[graders.n_words], progress=False)
    seconds = time.perf_counter() - began
    took = []
    for _ in range(5):
        began = time.perf_counter()
        async with rtnb.connect("sim", **FAST) as session:
            await session.ask(cases[0])
        took.append(time.perf_counter() - began)
    floor_s = statistics.median(took) * len(found.runs)
    return f"{len(found.runs)} runs in {seconds:.1f} s; one after the other without an experiment: {floor_s:.1f} s"


def sound_begins_s(row: Any) -> float | None:
    """Return when the sound of a sent piece began: a piece is sent when it has been spoken to its end."""
    if row.type != "input_audio_buffer.append":
        return None
    pcm = np.frombuffer(row.event.audio, np.int16)
    loud = np.flatnonzero(np.abs(pcm) > 100)
    return float(row.monotonic_s - (len(pcm) - loud[0]) / 24_000) if len(loud) else None


def interruption_ms(run: rtnb.experiments.Run) -> float:
    """Return when the caller began to speak over the answer, after the first of its deltas."""
    rows = list(run.trace.rows())
    first = next(row for row in rows if row.type == "response.output_audio.delta")
    spoken_s = next(at for row in rows if row.number > first.number and (at := sound_begins_s(row)) is not None)
    return float(1000 * (spoken_s - first.monotonic_s))


async def interrupt(n_runs: int) -> str:
    """Measure when a caller begins to speak over an answer, against the moment that was ordered."""
    turns = [{"say": "Tell me a story."}, {"say": "No, stop.", "interrupt": True, "after_ms": AT_MS}]
    variant = {"a": {**FAST, "instructions": "Explain at length.", "turn_detection": rtnb.ServerVad()}}
    found = await rtnb.experiment(
        "sim", [rtnb.Case("stop", user=turns)], variant, repeats=n_runs, graders=[graders.n_interrupted],
        voice="babble", concurrency=2, progress=False,
    )  # fmt: skip
    errors_ms = [interruption_ms(run) - AT_MS for run in found.runs]
    p50, p95 = np.percentile(np.abs(errors_ms), [50, 95])
    cut = sum(run.answers[0]["interrupted"] for run in found.runs)
    return f"{len(errors_ms)} interruptions, {cut} answers cut; timing error P50 {p50:.0f} ms, P95 {p95:.0f} ms"


def main() -> None:
    """Print both figures."""
    chosen = options(__doc__, runs=300, interruptions=40)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    for work in (many(chosen.runs), interrupt(chosen.interruptions)):
        print(asyncio.run(work), flush=True)


if __name__ == "__main__":
    main()
