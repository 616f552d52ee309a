"""A class of thirty on one simulator for two minutes: ``python -m tests.benchmarks.classroom``

``rtnb simulate --class`` is one process, the students are two others, each with its own key and rtnb's own client at
realistic latency. Every student writes sentences with a word nobody else has, asks for the scenario all share, and
speaks (real time, server VAD) with a sound of their own, which is then asked back from the server and compared.
Meanwhile an intruder tries wrong keys, one student tries a session too many, and the teacher's page is read once a
second. First, as the floor, a single student does the same alone.
"""

import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

import rtnb
from rtnb.audio import babble, encode_pcm16
from rtnb.errors import AuthenticationError, RateLimited
from tests.benchmarks.stage import options, simulate, verdict

N_PROCESSES = 2
SCENARIO = {"steps": [{"when": {"text": "homework"}, "say": "Read chapter two, and bring a question."}]}


@dataclass
class Seen:
    """What one student saw."""

    name: str
    asked: int = 0
    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    """Answers, sounds or items that were not this student's, and answers that did not come."""
    first_audio_ms: list[float] = field(default_factory=list)


def target(line: dict[str, Any], key: str) -> rtnb.Custom:
    return rtnb.Custom(line["http"].replace("http", "ws"), api_key=key)


async def student(line: dict[str, Any], name: str, key: str, seconds: float) -> Seen:
    """Take part until the time is over."""
    number = int(name.split()[1])
    seen, end = Seen(name), time.monotonic() + seconds
    word = f"pumpkin{number:03}"
    sound = babble(f"this is what {word} says", rate_hz=24_000, seed=number).audio
    await asyncio.sleep(number * 0.1)  # people do not come all at once
    async with rtnb.connect(target(line, key), instructions=f"Remember {word}.") as session:
        while time.monotonic() < end:
            for kind in ("word", "homework", "speech"):
                seen.asked += 1
                try:
                    async with asyncio.timeout(60):
                        problem = await _turn(session, kind, word, sound, seen)
                except (rtnb.RtnbError, TimeoutError) as error:
                    problem = f"{type(error).__name__}: {error}"
                if problem:
                    seen.wrong.append(f"{name}, {kind}: {problem}")
                else:
                    seen.answered += 1
    return seen


async def _turn(session: rtnb.Session, kind: str, word: str, sound: Any, seen: Seen) -> str:
    """One turn; what was wrong with it, "" for nothing."""
    if kind == "speech":
        response = await session.say(sound, rate_hz=24_000)
        item_id = session.log.filter("input_audio_buffer.committed")[-1].event.item_id
        heard = (await session.conversation.item.retrieve(item_id)).content[0].audio
        samples = np.frombuffer(heard, "<i2")
        spoken = samples[np.flatnonzero(samples)[0] : np.flatnonzero(samples)[-1] + 1].tobytes()
        problem = "" if spoken in encode_pcm16(sound) and len(spoken) > 24_000 else "the server holds another sound"
    else:
        response = await session.ask(f"The word is {word}" if kind == "word" else "What is the homework?")
        problem = ""
        if kind == "homework" and response.transcript != SCENARIO["steps"][0]["say"]:
            problem = f"answered {response.transcript!r}"
        if response.time_to_first_audio_ms is not None:
            seen.first_audio_ms.append(response.time_to_first_audio_ms)
    words = {one.strip(".,") for one in response.transcript.split() if one.startswith("pumpkin")}
    if words - {word} or (kind == "word" and words != {word}):
        problem = f"heard of {sorted(words)}"
    if response.status != "completed" or not len(response.audio):
        problem = f"the response is {response.status}"
    return problem


async def _students(line: dict[str, Any], names: list[str], seconds: float) -> list[dict[str, Any]]:
    keys = line["class"]["keys"]
    return [asdict(one) for one in await asyncio.gather(*(student(line, n, keys[n], seconds) for n in names))]


def _crowd(job: tuple[dict[str, Any], list[str], float]) -> list[dict[str, Any]]:
    return asyncio.run(_students(*job))


async def supervise(line: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The intruder, the greedy student and the reader of the page, for some time."""
    refused = {"wrong_key": 0, "too_many": 0}
    most, texts, tried, greedy = 0, "", 0, []
    key = next(iter(line["class"]["keys"].values()))
    end = time.monotonic() + seconds
    async with aiohttp.ClientSession() as http:
        while time.monotonic() < end:
            tried += 1
            try:
                await rtnb.connect(target(line, f"abcd-efgh-{tried:04}"))
            except AuthenticationError:
                refused["wrong_key"] += 1
            if tried == 10:
                greedy = [await rtnb.connect(target(line, key)) for _ in range(2)]  # and the one that is open already
                try:
                    await rtnb.connect(target(line, key))
                except RateLimited:
                    refused["too_many"] += 1
            async with http.get(f"{line['class']['page']}state") as answer:
                text = await answer.text()
            texts += text
            most = max(most, sum(row["open"] > 0 for row in json.loads(text)["students"]))
            await asyncio.sleep(1)
        for session in greedy:
            await session.close()
    return {"refused": refused, "tried": tried, "most_connected": most, "texts": texts}


def measure(n_students: int, seconds: float, voice: str) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """One class; what the students saw, what was seen meanwhile, and the page at the end."""
    with tempfile.TemporaryDirectory() as folder:
        scenario = Path(folder, "scenario.json")
        scenario.write_text(json.dumps(SCENARIO))
        options = ("--class", "--students", str(n_students), "--voice", voice, "--scenario", str(scenario))
        with simulate(*options) as (_, line):
            names = list(line["class"]["keys"])
            parts = [names[i::N_PROCESSES] for i in range(min(N_PROCESSES, n_students))]
            with multiprocessing.get_context("spawn").Pool(len(parts)) as pool:
                running = pool.map_async(_crowd, [(line, part, seconds) for part in parts])
                watched = asyncio.run(supervise(line, seconds))
                seen = [one for part in running.get(seconds + 120) for one in part]
            page = asyncio.run(_state(line))
    return sorted(seen, key=lambda one: one["name"]), watched, page


async def _state(line: dict[str, Any]) -> dict[str, Any]:
    async with aiohttp.ClientSession() as http, http.get(f"{line['class']['page']}state") as answer:
        state: dict[str, Any] = await answer.json()
    return {"wrong_keys": state["wrong_keys"], "students": {row["name"]: row for row in state["students"]}}


def judge(
    seen: list[dict[str, Any]], watched: dict[str, Any], page: dict[str, Any], n_students: int
) -> dict[str, bool]:
    """What must hold."""
    rows = page["students"]
    shown = {one["name"]: rows[one["name"]]["answers"] for one in seen}
    return {
        "every turn answered": all(one["answered"] == one["asked"] > 0 for one in seen),
        "nobody saw another's": not any(one["wrong"] for one in seen),
        "wrong keys refused": watched["refused"]["wrong_key"] == watched["tried"] == page["wrong_keys"],
        "a session too many refused": watched["refused"]["too_many"] == 1 == rows["student 01"]["refused"],
        "page: all were connected": watched["most_connected"] == n_students,
        "page: answers as counted by students": shown == {one["name"]: one["answered"] for one in seen},
        "page: no errors, nobody left open": not any(row["errors"] or row["open"] for row in rows.values()),
        "page: no words": not any(secret in watched["texts"] for secret in ("pumpkin", "homework", "chapter")),
    }


def main() -> int:
    chosen = options(__doc__, students=30, seconds=120.0, voice="auto")
    alone, _, _ = measure(1, min(20.0, chosen.seconds), chosen.voice)
    seen, watched, page = measure(chosen.students, chosen.seconds, chosen.voice)
    verdicts = judge(seen, watched, page, chosen.students)
    first = {
        who: [wait for one in group for wait in one["first_audio_ms"]] for who, group in (("1", alone), ("all", seen))
    }
    figures = {
        "students": chosen.students,
        "seconds": chosen.seconds,
        "turns": sum(one["asked"] for one in seen),
        "answered": sum(one["answered"] for one in seen),
        "first_audio_p50_ms": round(float(np.median(first["all"])), 1),
        "first_audio_p95_ms": round(float(np.percentile(first["all"], 95)), 1),
        "alone_p50_ms": round(float(np.median(first["1"])), 1),
        "alone_p95_ms": round(float(np.percentile(first["1"], 95)), 1),
        "wrong_keys": page["wrong_keys"],
    }
    for name, value in figures.items():
        print(f"{name:<42}{value:>10}")
    for problem in [wrong for one in seen for wrong in one["wrong"]][:10]:
        print(f"  {problem[:200]}")
    return verdict(verdicts)


if __name__ == "__main__":
    sys.exit(main())
