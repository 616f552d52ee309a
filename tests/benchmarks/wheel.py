"""The wheel in an empty virtual environment: ``python -m tests.benchmarks.wheel python3.11 python3.12 python3.13``

`python -m build` makes the wheel; for every Python named a new virtual environment installs it with the extra ``sim``
(from the network or pip's cache), and then, with a home folder of its own and away from the checkout: ``rtnb doctor``,
text in – audio out, and ``rtnb lab --no-browser``, which must answer 200 on a course it has copied out. A table; exit
code 1 where anything failed.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.benchmarks.stage import options

ROOT = Path(__file__).resolve().parents[2]
SERVING = re.compile(r"Serving (http://\S+/)lab ([\d.]+) s after the command")
TALK = """
import asyncio, rtnb
async def talk():
    async with rtnb.connect("sim") as session:
        response = await session.ask("What is a delta?")
        assert response.transcript.startswith("A delta is"), response.transcript
        return len(response.audio) / 24_000, response.time_to_first_audio_ms
print(*asyncio.run(talk()))
"""


def run(*command: str | Path, where: Path, environment: dict[str, str]) -> str:
    """What a command prints; a failure ends this Python's row with its last words."""
    done = subprocess.run(
        [str(word) for word in command], cwd=where, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} {command[1]}: {(done.stdout + done.stderr).strip()[-600:]}")
    return done.stdout


def lab(scripts: Path, *, where: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Serve, ask for the page and the contents, stop."""
    token, log = secrets.token_hex(16), where / "lab.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [scripts / "rtnb", "lab", "--no-browser", "--port", "0"],
            cwd=where,
            env={**environment, "JUPYTER_TOKEN": token},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 90
        while (found := SERVING.search(log.read_text())) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"rtnb lab does not serve: {log.read_text()[-600:]}")
            time.sleep(0.05)
        with urllib.request.urlopen(f"{found[1]}lab?token={token}", timeout=30) as page:
            status = page.status
        with urllib.request.urlopen(f"{found[1]}api/contents?token={token}", timeout=30) as answer:
            listed = [one["name"] for one in json.load(answer)["content"] if one["type"] == "notebook"]
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
    return {"status": status, "serving_s": float(found[2]), "notebooks": len(listed), "ended": code}


def measure(python: str, wheel: Path, folder: Path) -> dict[str, Any]:
    """One Python, from nothing."""
    kept = ("PATH", "LANG", "TMPDIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    installing = {**environment, "HOME": str(Path.home())}  # pip's own settings and cache
    environment["HOME"] = str(folder)
    scripts = folder / "venv" / "bin"
    run(python, "-m", "venv", folder / "venv", where=folder, environment=installing)
    start = time.monotonic()
    run(scripts / "python", "-m", "pip", "install", "-q", f"{wheel}[sim]", where=folder, environment=installing)
    installed_s = time.monotonic() - start
    version = run(
        scripts / "python", "-c", "import sys; print(sys.version.split()[0])", where=folder, environment=environment
    )
    home = run(scripts / "python", "-c", "import rtnb; print(rtnb.__file__)", where=folder, environment=environment)
    assert Path(home.strip()).is_relative_to(folder), home
    doctor = run(scripts / "rtnb", "doctor", "--offline", where=folder, environment=environment).splitlines()[-1]
    audio_s, first_ms = run(scripts / "python", "-c", TALK, where=folder, environment=environment).split()
    served = lab(scripts, where=folder, environment=environment)
    copied = len(list((folder / "rtnb-notebooks").glob("*.ipynb")))
    course = len(list((ROOT / "notebooks").glob("*.ipynb")))
    talked = {"audio_s": round(float(audio_s), 1), "first_audio_ms": round(float(first_ms))}
    row = {"python": version.strip(), "install_s": round(installed_s), "doctor": doctor, **talked, **served}
    well = served["status"] == 200 and served["ended"] == 0 and copied == served["notebooks"] == course
    return row | {"well": well and doctor == "All is well." and float(audio_s) > 1}


def main() -> int:
    rows = []
    with tempfile.TemporaryDirectory() as place:
        build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", place, str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = Path(place).glob("*.whl")
        for number, python in enumerate(options(__doc__, pythons=[sys.executable]).pythons):
            folder = Path(place, str(number))
            folder.mkdir()
            try:
                row = measure(python, wheel, folder)
            except RuntimeError as error:
                row = {"python": python, "well": False, "error": str(error)}
            rows.append(row)
            print(*(f"{name} {value}" for name, value in row.items()), sep="  ", flush=True)
    return 0 if all(row["well"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
