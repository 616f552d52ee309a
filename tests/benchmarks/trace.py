"""Cost of a recording, and a recording of two hours. ``python -m tests.benchmarks.trace``

CPU: a process talks to a simulator in another process, in rounds with and without a recording in turns; the medians of
its CPU time are compared. Two hours: a trace with a continuous microphone (100 ms chunks), an answer of 8 s every 20 s
with its transcript, and 16-bit PCM on both sides is written, then opened in a fresh process, which makes what a cell
shows: the player's turns and events, and both waveforms. The floor is reading the bytes of the file.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.stage import options, simulate

BOUND_CPU = 1.10
"""Largest multiple of the CPU of a session without a recording."""
BOUND_OPEN_S = 1.0
BOUND_VIEW_S = 2.0
"""Opening, and the view in a cell, in seconds of CPU: on a quiet computer that is the time it takes."""
BOUND_MB = 300.0
"""Largest memory of the process that opens two hours."""


async def talk(url: str, key: str, path: Path | None) -> float:
    """Talk for some seconds; return the CPU per event, in µs."""
    import rtnb
    from rtnb.audio import babble

    speech = babble("Would you please tell me something about the weather?").audio
    options: dict[str, Any] = {} if path is None else {"trace": path}
    target = rtnb.Azure(url, deployment="any", api_key=key)
    async with rtnb.connect(target, turn_detection="server_vad", **options) as session:
        start_s = time.process_time()
        for _ in range(2):
            assert (await session.say(speech, rate_hz=24_000)).audio.any()
            assert (await session.ask("Count to five!")).audio.any()
        spent_s, count = time.process_time() - start_s, len(session.log)
    return 1e6 * spent_s / count


def measure_cpu(rounds: int, folder: Path) -> tuple[float, float]:
    """Return the median CPU per event without and with a recording, in µs."""
    spent: dict[bool, list[float]] = {False: [], True: []}
    with simulate("--voice", "babble", "--latency", "realistic") as (_, line):
        url, key = line["http"], line["key"]
        asyncio.run(talk(url, key, None))  # imports and caches
        for number in range(rounds):
            for recorded in (False, True):
                path = folder / f"{number}.rtnb" if recorded else None
                spent[recorded].append(asyncio.run(talk(url, key, path)))
    return statistics.median(spent[False]), statistics.median(spent[True])


def conversation(hours: float) -> Iterator[tuple[float, Any]]:
    """Yield the events of a long conversation, each with the second at which it comes."""
    from rtnb.protocol import events
    from rtnb.protocol.values import Item

    noise = np.random.default_rng(0).integers(-3000, 3000, 24_000, np.int16).tobytes()
    for tick in range(round(hours * 36_000)):
        at_s = tick / 10
        yield at_s, events.InputAudioBufferAppend(audio=noise[:4800], event_id=f"client_{tick}")
        number, within = divmod(tick, 200)
        turn = f"{number:016}"
        user: Any = {"item_id": f"user_{turn}", "event_id": "e"}
        model: Any = {"response_id": f"resp_{turn}", "item_id": f"item_{turn}", "event_id": f"event_{tick:016}"}
        if within == 20:
            yield at_s, events.InputAudioBufferSpeechStarted(audio_start_ms=tick * 100, **user)
        if within == 90:
            words = "What is the weather like in Oslo today?"
            item = Item(type="message", role="user", id=user["item_id"])
            yield at_s, events.InputAudioBufferSpeechStopped(audio_end_ms=tick * 100, **user)
            yield at_s, events.ConversationItemAdded(item=item, event_id="e")
            yield (
                at_s,
                events.ConversationItemInputAudioTranscriptionCompleted(content_index=0, transcript=words, **user),
            )
        if 100 <= within < 180 and within % 2 == 0:
            yield at_s, events.ResponseOutputAudioDelta(delta=noise[:9600], **model)
            yield at_s, events.ResponseOutputAudioTranscriptDelta(delta=" word", **model)


def write(path: Path, hours: float) -> int:
    """Write a long trace; return its number of events."""
    from rtnb.client.log import LogRow
    from rtnb.trace.file import TraceWriter

    writer = TraceWriter(path.with_suffix(".part"), {"clock": {}})
    number = 0
    for number, (at_s, event) in enumerate(conversation(hours), start=1):
        direction: Any = "sent" if event.type == "input_audio_buffer.append" else "received"
        writer.add(LogRow(number - 1, direction, at_s, 1.8e9 + at_s, event.type, 6_600, event))
        if number % 1000 == 0:
            writer.flush()
    writer.finish(path)
    return number


_VIEW = """
import json, sys, time
def most_mb():
    try:
        status = open("/proc/self/status").read()
    except OSError:  # not Linux
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
begun = time.perf_counter()
start = time.process_time()
import rtnb, numpy as np
from rtnb.trace import Trace
from rtnb.trace.report import part, player_data
imported = time.process_time()
trace = Trace(sys.argv[1])
opened = time.process_time()
data = player_data(trace)
read = time.process_time()
bins = [np.frombuffer(part(trace, name), np.int8) for name in ("bins/0", "bins/1")]
viewed = time.process_time()
table = len(trace.events) if len(sys.argv) > 2 else 0
print(json.dumps({"import": imported - start, "open": opened - imported, "turns": read - opened,
    "waveforms": viewed - read, "n_turns": len(data["turns"]), "hours": trace.duration_ms / 3.6e6, "table": table,
    "mb": most_mb(), "wall": time.perf_counter() - begun, "peaks": [int(side.max()) for side in bins]}))
"""


def main() -> int:
    chosen = options(__doc__, rounds=5, hours=2.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        without, recorded = measure_cpu(chosen.rounds, folder) if chosen.rounds else (1.0, 1.0)
        path = folder / "long.rtnb"
        count = write(path, chosen.hours)
        start_s = time.perf_counter()
        with path.open("rb") as file:
            size = sum(len(part) for part in iter(lambda: file.read(2**20), b""))
        floor_s = time.perf_counter() - start_s
        done = subprocess.run(
            [sys.executable, "-c", _VIEW, str(path), "events"], capture_output=True, text=True, check=True
        )
    view = json.loads(done.stdout)
    print(f"CPU per event: {without:.0f} µs, recorded {recorded:.0f} µs: {recorded / without:.2f} (bound {BOUND_CPU})")
    print(f"{view['hours']:.1f} h, {count:,} events, {size / 1e6:.0f} MB; reading its bytes takes {floor_s:.2f} s")
    view["view"] = view["turns"] + view["waveforms"]
    print(
        f"CPU: open {view['open']:.3f} s (bound {BOUND_OPEN_S}), view {view['view']:.2f} s (bound {BOUND_VIEW_S})",
        end=" ",
    )
    print(f"of which waveforms {view['waveforms']:.2f} s; wall {view['wall']:.2f} s")
    print(f"memory {view['mb']:.0f} MB with the table of {view['table']:,} events (bound {BOUND_MB})")
    fits = view["open"] <= BOUND_OPEN_S and view["view"] <= BOUND_VIEW_S and view["mb"] <= BOUND_MB
    return 0 if fits and recorded <= BOUND_CPU * without else 1


if __name__ == "__main__":
    raise SystemExit(main())
