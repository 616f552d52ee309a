"""A key used everywhere appears nowhere: not in output, log, repr, exception, file or notebook."""

import asyncio
import json
import logging
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rtnb
from rtnb.simulator import Simulator

CANARY = "c0ffee5ec2e7" * 3
NOTEBOOKS = [
    path
    for path in sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
    if any("live" in cell["metadata"].get("tags", []) for cell in json.loads(path.read_text("utf-8"))["cells"])
]


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(key=CANARY, latency="fast", voice="babble") as running:
        yield running


def shown(error: BaseException) -> str:
    """Everything a person sees of an exception."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))


async def provoke(simulator: Simulator, tmp_path: Path) -> list[str]:
    """Use the key in every way there is and collect all that can be read afterwards."""
    azure = rtnb.Azure(simulator.url, deployment="any", api_key=CANARY)
    seen = [repr(azure), str(azure), f"{azure}", repr(vars(azure)), repr(simulator), repr(simulator.options)]
    key = await azure.ephemeral_key()
    secret = key.reveal()
    seen += [repr(key), str(key), f"{key}", json.dumps(key.session)]
    log_path = tmp_path / "live.jsonl"
    async with rtnb.connect(azure, log_path=log_path) as session:
        answer = await session.ask(f"Is my key {CANARY[:3]}…?")
        seen += [repr(session), session._repr_html_(), repr(answer), repr(session.log), session.log._repr_html_()]
        seen += [session.log.to_frame().to_string()]
        with pytest.raises(rtnb.ServiceError) as refused:
            await session.update(voice="cedar")
        seen.append(shown(refused.value))
    session.log.save(tmp_path / "saved.jsonl")
    seen += [log_path.read_text(), (tmp_path / "saved.jsonl").read_text()]
    for wrong in (
        rtnb.Azure(simulator.url, deployment="any", api_key=CANARY[::-1]),
        rtnb.Azure("https://does-not-exist.invalid", deployment="any", api_key=CANARY),
        rtnb.OpenAI(base_url=simulator.url + "/v1", api_key=CANARY[::-1]),
        rtnb.Custom(simulator.url.replace("http", "ws"), api_key=CANARY[::-1]),
    ):
        with pytest.raises(rtnb.ConnectError) as failed:
            await rtnb.connect(wrong)
        seen += [shown(failed.value), repr(wrong), str(wrong)]
    assert not any(secret in text for text in seen), "the ephemeral key was shown"
    return seen


@pytest.mark.usefixtures("no_such_host")
async def test_a_canary_key_is_shown_nowhere(
    simulator: Simulator, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    seen = await provoke(simulator, tmp_path)
    simulator.stop()
    output = capfd.readouterr()
    seen += [caplog.text, output.out, output.err]
    assert len("".join(seen)) > 5_000, "the collection is empty: the test looks at nothing"
    assert "session.created" in "".join(seen)
    for text in seen:
        assert CANARY not in text
        assert CANARY[::-1] not in text
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes()


async def test_notebooks_run_against_a_service_with_a_key_do_not_hold_it(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cells for Azure run, too: the service behind them is the simulator, by Azure's variables."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", simulator.url)
    monkeypatch.setenv("AZURE_OPENAI_DEPLOYMENT_NAME", "any")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", CANARY)

    async def run(path: Path) -> Any:
        (tmp_path / path.stem).mkdir()
        notebook = nbformat.read(path, as_version=4)
        where = {"metadata": {"path": str(tmp_path / path.stem)}}
        modules = os.pathsep.join([str(path.parent), os.environ.get("PYTHONPATH", "")])  # course.py is beside them
        environment = {**os.environ, "PYTHONPATH": modules}
        await NotebookClient(notebook, timeout=120, resources=where).async_execute(env=environment)
        return notebook

    notebooks = await asyncio.gather(*map(run, NOTEBOOKS))  # together: they mostly wait for speech
    assert len(notebooks) >= 4
    for path, notebook in zip(NOTEBOOKS, notebooks, strict=True):
        outputs = json.dumps([cell.outputs for cell in notebook.cells if "live" in cell.metadata.get("tags", [])])
        assert "Skipped" not in outputs, path.stem
        assert outputs.count('"stream"') + outputs.count('"display_data"') > 0, f"{path.stem} showed nothing of Azure"
        assert CANARY not in nbformat.writes(notebook), path.stem
    for kept in tmp_path.rglob("*"):
        if kept.is_file():
            assert CANARY.encode() not in kept.read_bytes()
