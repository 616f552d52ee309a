"""``rtnb trace``: each sub-command on a recording."""

from __future__ import annotations

from pathlib import Path

import pytest

import rtnb
from rtnb.cli import main
from rtnb.trace import Trace, save_trace
from tests.client.virtual import run_virtual
from tests.trace.talk import near_session


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("command") / "talk.rtnb"

    async def speak() -> None:
        async with near_session(latency="fast") as session:
            await session.ask("What is a delta?")
            save_trace(session, path)

    run_virtual(speak())
    return path


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that succeeds; return its output."""
    assert main(["trace", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_show_and_compare_print_what_was_found(talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "show", talk)
    assert all(words in shown for words in ("You: What is a delta?", "<Findings: none>", "first audible"))
    compared = printed(capsys, "compare", talk, talk)
    assert all(words in compared for words in ("cost (USD, about)", "findings_b"))


def test_html_and_export_write_a_file(talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, subtitles = talk.with_suffix(".html"), tmp_path / "talk.srt"
    assert printed(capsys, "html", talk) == f"Written: {page}\n"
    assert "Content-Security-Policy" in page.read_text(encoding="utf-8")
    assert printed(capsys, "export", talk, subtitles) == f"Written: {subtitles}\n"
    assert "You: What is a delta?" in subtitles.read_text(encoding="utf-8")


def test_replay_writes_a_trace_and_prints_the_comparison(
    talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "again.rtnb"
    settings = ("--set", "instructions=Be brief.", "--set", "speed=1.2")
    assert "user cut off" in printed(capsys, "replay", talk, "sim", path, *settings, "--reacting")
    with Trace(path) as again:
        config = again.settings_at(again.duration_ms)
        assert (config.instructions, config.audio and config.audio.output.speed) == ("Be brief.", 1.2)
        assert "What is a delta?" in again.transcript


@pytest.mark.parametrize(
    "words, message",
    [
        (["show", "missing.rtnb"], "missing.rtnb"),
        (["export", "{talk}", "talk.xyz"], "cannot export to .xyz; allowed: .txt"),
        (["export", "{talk}", "no/such/folder/talk.srt"], "No such file or directory"),
    ],
)
def test_a_failure_is_one_line_and_exit_code_1(
    talk: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["trace", *(word.format(talk=talk) for word in words)]) == 1
    assert message in capsys.readouterr().err


async def test_a_session_searches_its_own_log() -> None:
    async with rtnb.connect("sim") as session:
        assert session.findings() == ()
