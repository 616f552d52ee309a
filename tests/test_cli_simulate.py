"""`rtnb simulate`: what its options mean."""

import asyncio
import json
import sys
from typing import Any

import pytest

import rtnb
from rtnb.cli import main, parser

_QUICK = ("simulate", "--port", "0", "--latency", "fast", "--voice", "babble")


def test_without_options_it_serves_this_machine_only() -> None:
    options = vars(parser().parse_args(["simulate"]))
    assert (options["host"], options["port"], options["tls"], options["json"]) == ("127.0.0.1", 0, False, False)
    assert {options[name] for name in ("key", "seed", "latency", "voice", "scenario", "chat_url")} == {None}


@pytest.mark.parametrize(
    "words, expected",
    [
        ("--host ::1 --port 0 --key k --tls", {"host": "::1", "port": 0, "key": "k", "tls": True}),
        ("--seed 7 --latency slow --scenario s.toml", {"seed": 7, "latency": "slow", "scenario": "s.toml"}),
        ("--chat-url http://127.0.0.1:1/v1 --json", {"chat_url": "http://127.0.0.1:1/v1", "json": True}),
        ("--chat-model m --chat-key-env KEY_OF_THE_TEST", {"chat_model": "m", "chat_key": "a-secret"}),
        ("--transcriber whisper --voice neural", {"transcriber": "whisper", "voice": "neural"}),
        ("--turn-detector smart-turn", {"turn_detector": "smart-turn"}),
    ],
)
def test_every_option(monkeypatch: pytest.MonkeyPatch, words: str, expected: dict[str, Any]) -> None:
    monkeypatch.setenv("KEY_OF_THE_TEST", "a-secret")
    options = vars(parser().parse_args(["simulate", *words.split()]))
    assert {name: options[name] for name in expected} == expected


def test_the_key_of_a_chat_service_comes_from_a_variable_only(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["simulate", "--chat-key-env", "NOT_SET_ANYWHERE"])
    assert "the environment variable NOT_SET_ANYWHERE is not set" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, said",
    [
        (("--transcriber", "nonsense"), "transcriber is 'nonsense'; allowed: 'auto', 'exact', 'whisper'"),
        (("--turn-detector", "/no/such/file.onnx"), "'/no/such/file.onnx' is no file"),
        (("--students", "3"), "--students without --class"),
        (("--class", "--sessions-each", "0"), "sessions_each is 0; allowed: a whole number from 1"),
        (("--class", "--key", "short"), "the key has 5 characters"),
    ],
)
def test_a_class_that_cannot_be_says_why(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*_QUICK, *words]) == 1
    assert said in capsys.readouterr().err


async def test_the_line_it_prints_for_a_class_joins_it_and_holds_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "rtnb", *_QUICK, "--class", "--students", "2", "--json"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        room: dict[str, Any] = json.loads(await process.stdout.readline())["class"]
        assert not any(key in room["join"] for key in room["keys"].values())
        monkeypatch.setattr("getpass.getpass", lambda prompt: room["keys"]["student 02"])  # what a student types
        names: dict[str, Any] = {}
        pasted = "async def paste():\n " + room["join"] + "\n return session"
        exec(pasted, names)
        session: rtnb.Session = await names["paste"]()
        assert "Hello" in (await session.ask("Hello!")).transcript
        await session.close()
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0
