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
    options = parser().parse_args(["simulate"])
    assert (options.host, options.port, options.tls, options.json) == ("127.0.0.1", 0, False, False)
    assert (
        options.key is options.seed is options.latency is options.voice is options.scenario is options.chat_url is None
    )


def test_every_option() -> None:
    words = "simulate --host ::1 --port 0 --key k --tls --seed 7 --latency slow --voice babble --scenario s.toml"
    options = parser().parse_args([*words.split(), "--chat-url", "http://127.0.0.1:1/v1", "--json"])
    assert (options.host, options.port, options.key, options.tls, options.seed) == ("::1", 0, "k", True, 7)
    assert (options.latency, options.voice, options.scenario) == ("slow", "babble", "s.toml")
    assert (options.chat_url, options.json) == ("http://127.0.0.1:1/v1", True)


def test_options_of_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_THE_TEST", "a-secret")
    words = (
        "--transcriber whisper --turn-detector smart-turn --voice neural --chat-model m --chat-key-env KEY_OF_THE_TEST"
    )
    options = parser().parse_args(["simulate", *words.split()])
    assert (options.transcriber, options.turn_detector, options.voice) == ("whisper", "smart-turn", "neural")
    assert (options.chat_model, options.chat_key) == ("m", "a-secret")


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
