"""Cost of a recording, and a recording of two hours. ``python -m tests.benchmarks.trace``

CPU: a process talks to a simulator in another process, in rounds with and without a recording in turns; the medians of
its CPU time are compared. Two hours: a trace with a continuous microphone (100 ms chunks), an answer of 8 s every 20 s
with its transcript, and 16-bit PCM on both sides is written, then opened in a fresh process, which makes what a cell
shows: the player's turns and events, and both waveforms. The floor is reading the bytes of the file.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import rtnb
from rtnb.audio import babble
from rtnb.client.log import LogRow
from rtnb.protocol import events
from rtnb.protocol.values import Item
from rtnb.trace.file import TraceWriter
from tests.benchmarks.stage import in_turns, judged, options, print_table, simulate

BOUND_CPU = 1.10
"""Largest multiple of the CPU of a session without a recording."""
BOUND_OPEN_S, BOUND_VIEW_S = 1.0, 2.0
"""Opening, and the view in a cell, in seconds of CPU: on a quiet computer that is the time it takes."""
BOUND_MB = 300.0
"""Largest memory of the process that opens two hours."""


async def talk(target: rtnb.Azure, **options: Any) -> float:
    """Talk for some seconds; return the CPU per event, in µs."""
    speech = babble("Would you please tell me something about the weather?").audio
    async with rtnb.connect(target, turn_detection="server_vad", **options) as session:
        start_s = time.process_time()
        for _ in range(2):
            assert (await session.say(speech, rate_hz=24_000)).audio.any()
            assert (await session.ask("Count to five!")).audio.any()
        return 1e6 * (time.process_time() - start_s) / len(session.log)


def measure_cpu(rounds: int, folder: Path) -> dict[str, float]:
    """Return the median CPU per event without and with a recording, in µs."""
    with simulate("--voice", "babble", "--latency", "realistic") as (_, line):
        target = rtnb.Azure(line["http"], deployment="any", api_key=line["key"])
        asyncio.run(talk(target))  # imports and caches
        ways = {
            "without": lambda: asyncio.run(talk(target)),
            "recorded": lambda: asyncio.run(talk(target, trace=folder / f"{time.monotonic_ns()}.rtnb")),
        }
        return in_turns(ways, rounds)


def conversation(hours: float) -> Iterator[tuple[float, Any]]:
    """Yield the events of a long conversation, each with the second at which it comes."""
    noise = np.random.default_rng(0).integers(-3000, 3000, 24_000, np.int16).tobytes()
    for tick in range(round(hours * 36_000)):
        at_s = tick / 10
        yield at_s, events.InputAudioBufferAppend(audio=noise[:4800], event_id=f"client_{tick}")
        number, within = divmod(tick, 200)
        user: Any = {"item_id": f"user_{number:016}", "event_id": "e"}
        model: Any = {"response_id": f"resp_{number:016}", "item_id": f"item_{number:016}", "event_id": f"e_{tick:018}"}
        if within == 20:
            yield at_s, events.InputAudioBufferSpeechStarted(audio_start_ms=tick * 100, **user)
        if within == 90:
            words = "What is the weather like in Oslo today?"
            completed = events.ConversationItemInputAudioTranscriptionCompleted
            yield at_s, events.InputAudioBufferSpeechStopped(audio_end_ms=tick * 100, **user)
            item = Item(type="message", role="user", id=user["item_id"])
            yield at_s, events.ConversationItemAdded(item=item, event_id="e")
            yield at_s, completed(content_index=0, transcript=words, **user)
        if 100 <= within < 180 and within % 2 == 0:
            yield at_s, events.ResponseOutputAudioDelta(delta=noise[:9600], **model)
            yield at_s, events.ResponseOutputAudioTranscriptDelta(delta=" word", **model)


def write(path: Path, hours: float) -> int:
    """Write a long trace; return its number of events."""
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
import rtnb, numpy as np
from rtnb.trace import Trace
from rtnb.trace.report import part, player_data
times = [time.process_time()]
trace = Trace(sys.argv[1])
times.append(time.process_time())
turns = player_data(trace)["turns"]
times.append(time.process_time())
bins = [np.frombuffer(part(trace, name), np.int8) for name in ("bins/0", "bins/1")]
times.append(time.process_time())
table = len(trace.events)
peak_kb = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])  # Linux
opened, read, drawn = np.diff(times)
assert turns and all(side.max() > 0 for side in bins)
print(json.dumps({"hours": trace.duration_ms / 3.6e6, "open_s": opened, "turns_s": read, "waveforms_s": drawn,
    "table": table, "memory_mb": peak_kb / 1024}))
"""


def main() -> int:
    chosen = options(__doc__, rounds=5, hours=2.0)
    with tempfile.TemporaryDirectory() as name:
        us = measure_cpu(chosen.rounds, Path(name))
        path = Path(name, "long.rtnb")
        print(f"{write(path, chosen.hours):,} events")
        start_s = time.perf_counter()
        size = len(path.read_bytes())
        print(f"{size / 1e6:.0f} MB, whose bytes are read in {time.perf_counter() - start_s:.2f} s")
        done = subprocess.run([sys.executable, "-c", _VIEW, str(path)], capture_output=True, text=True, check=True)
    view = json.loads(done.stdout)
    print_table({"CPU per event, µs": us})
    print_table({"view": view}, digits=2)
    return judged(
        {
            "CPU of a session that is recorded, times without": (us["recorded"] / us["without"], BOUND_CPU),
            "opening, CPU s": (view["open_s"], BOUND_OPEN_S),
            "view in a cell, CPU s": (view["turns_s"] + view["waveforms_s"], BOUND_VIEW_S),
            "memory, MB": (view["memory_mb"], BOUND_MB),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
