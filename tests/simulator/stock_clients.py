"""Try stock clients that the test environment has not: ``python -m tests.simulator.stock_clients [--folder FOLDER]``.

Each client gets its own virtual environment, connects to the simulator, sets a function tool, and speaks a question. A
line per client tells whether the tool and the transcription stayed in the session, and whether the tool was called. It
needs the package registry; a run takes two minutes. `--folder` keeps the environments for the next run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from rtnb.audio import write_wav
from rtnb.simulator import Simulator

INSTALL_S, RUN_S = 600, 60
QUESTION = "What is the weather in Lund?"
LIVEKIT = '''
import asyncio, json, sys, wave
import aiohttp
from livekit import rtc
from livekit.agents import function_tool
from livekit.plugins.openai.realtime import RealtimeModel

url, key, recording, version = sys.argv[1:]

@function_tool
async def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return "clear"

async def main():
    seen = []
    async with aiohttp.ClientSession() as http:
        options = {"api_version": version} if version else {}
        model = RealtimeModel.with_azure(
            azure_deployment="my-dep", azure_endpoint=url, api_key=key, http_session=http, **options
        )
        session = model.session()
        done = asyncio.Event()

        def note(event):
            seen.append(event)
            if event["type"] in ("response.done", "error"):
                done.set()

        session.on("openai_server_event_received", note)
        await session.update_instructions("Call get_weather.")
        await session.update_tools([get_weather])
        with wave.open(recording) as file:
            pcm = file.readframes(file.getnframes())
        for start in range(0, len(pcm) - 960, 960):
            session.push_audio(rtc.AudioFrame(pcm[start:start + 960], 24000, 1, 480))
            await asyncio.sleep(0.01)
        await asyncio.wait_for(done.wait(), 30)
        await asyncio.sleep(2)
        await session.aclose()
    print("SEEN" + json.dumps(seen))

asyncio.run(main())
'''


def environment(folder: Path, packages: tuple[str, ...]) -> Path:
    """Return the Python of an environment with packages, made where it is missing."""
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True, timeout=INSTALL_S)
    return python


def judge(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what held in a session, by its server events."""
    sessions = [one["session"] for one in events if one["type"] == "session.updated"]
    last = sessions[-1] if sessions else {}
    audio_input = (last.get("audio") or {}).get("input") or {}
    ended = [one for one in events if one["type"].endswith("input_audio_transcription.completed")]
    calls = [item for one in events if one["type"] == "response.done" for item in one["response"]["output"]]
    return {
        "tools": [tool["name"] for tool in last.get("tools") or ()],
        "transcription": audio_input.get("transcription") or last.get("input_audio_transcription"),
        "transcript": ended[0]["transcript"] if ended else None,
        "called": [item["name"] for item in calls if item["type"] == "function_call"],
        "errors": [one["error"]["message"] for one in events if one["type"] == "error"],
    }


def livekit(folder: Path, simulator: Simulator, recording: Path, version: str) -> dict[str, Any]:
    """Run LiveKit's plugin on Azure's path: GA, or the preview with an API version."""
    python = environment(folder / "livekit", ("livekit-agents", "livekit-plugins-openai"))
    command = [str(python), "-c", LIVEKIT, simulator.url, simulator.key, str(recording), version]
    run = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)
    line = next((line for line in run.stdout.splitlines() if line.startswith("SEEN")), None)
    return judge(json.loads(line[4:])) if line else {"failed": run.stderr[-2000:]}


def main(folder: Path) -> int:
    """Print a line per client; return 0 where everything held."""
    failed = 0
    with Simulator(latency="fast", voice="babble") as simulator:
        recording = folder / "question.wav"
        speech = simulator.speech(QUESTION)
        quiet = [0.0] * 24_000
        write_wav(recording, [*quiet[:7_200], *speech.audio.tolist(), *quiet], rate_hz=24_000)
        for name, version in (("Azure GA", ""), ("Azure preview", "2025-04-01-preview")):
            found = livekit(folder, simulator, recording, version)
            held = found.get("tools") == ["get_weather"] == found.get("called") and not found["errors"]
            held = held and bool(found["transcription"]) and found["transcript"] == QUESTION
            failed += not held
            shown = "held" if held else "DIFFERENT"
            print(f"LiveKit, {name}, deployment my-dep: {shown}  {json.dumps(found)}", flush=True)  # noqa: T201
    return int(failed > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="keep the environments here")
    options = parser.parse_args()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        sys.exit(main(options.folder))
    with tempfile.TemporaryDirectory() as made:
        sys.exit(main(Path(made)))
