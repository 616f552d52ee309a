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


def test_show_prints_the_conversation_and_the_findings(talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "show", str(talk)]) == 0
    out = capsys.readouterr().out
    assert "You: What is a delta?" in out
    assert "<Findings: none>" in out
    assert "first audible" in out


def test_html_writes_a_page_beside_the_trace(talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "html", str(talk)]) == 0
    page = talk.with_suffix(".html")
    assert f"Written: {page}" in capsys.readouterr().out
    assert "Content-Security-Policy" in page.read_text(encoding="utf-8")


def test_export_writes_what_the_suffix_says(talk: Path, tmp_path: Path) -> None:
    assert main(["trace", "export", str(talk), str(tmp_path / "talk.srt")]) == 0
    assert "You: What is a delta?" in (tmp_path / "talk.srt").read_text(encoding="utf-8")


def test_replay_writes_a_trace_and_prints_the_comparison(
    talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(talk), "sim", str(tmp_path / "again.rtnb"), "--set", "instructions=Be brief.", "--set", "speed=1.2"]
    assert main(["trace", "replay", *words, "--reacting"]) == 0
    assert "user cut off" in capsys.readouterr().out
    with Trace(tmp_path / "again.rtnb") as again:
        config = again.settings_at(again.duration_ms)
        assert (config.instructions, config.audio and config.audio.output.speed) == ("Be brief.", 1.2)
        assert "What is a delta?" in again.transcript


def test_compare_prints_three_tables(talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "compare", str(talk), str(talk)]) == 0
    out = capsys.readouterr().out
    assert "cost (USD, about)" in out
    assert "findings_b" in out


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


def test_help_lists_the_sub_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["trace", "--help"])
    out = capsys.readouterr().out
    assert all(name in out for name in ("show", "html", "export", "replay", "compare"))


async def test_a_session_searches_its_own_log() -> None:
    async with rtnb.connect("sim") as session:
        assert session.findings() == ()
