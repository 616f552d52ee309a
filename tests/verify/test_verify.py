"""`rtnb verify`: everything as documented at the simulator, planted deviations by name, the budget, and no key."""

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import rtnb
from rtnb.cli import main
from rtnb.errors import ConnectError, RtnbError
from rtnb.simulator.transcriber import Transcript
from rtnb.verify import Outcome, Result, compare, run, verify
from rtnb.verify.probe import PROBES, Probe
from rtnb.verify.run import estimated_usd
from tests.verify.proxy import Deviations, proxy

KEY = "key-of-a-test-0123456789abcdef"


class Stenographer:
    """A transcriber that always understands the same."""

    name = "a stenographer"

    async def transcribe(self, audio: Any, *, rate_hz: int, language: str = "") -> Transcript:
        return Transcript("hello there how are you")

    async def aclose(self) -> None:
        pass


@pytest.fixture
async def simulator() -> AsyncIterator[rtnb.Simulator]:
    async with rtnb.Simulator(voice="babble", key=KEY, transcriber=Stenographer()) as simulator:
        yield simulator


def custom(url: str, **options: Any) -> rtnb.Custom:
    return rtnb.Custom(url.replace("http", "ws", 1), model="gpt-realtime", api_key=KEY, **options)


# --- the simulator, in both dialects and over WebRTC ------------------------------------------------------------------


@pytest.mark.parametrize("dialect, least", [("ga", 70), ("preview", 60)])
async def test_the_simulator_is_as_documented(dialect: Any, least: int) -> None:
    simulator = rtnb.Simulator(voice="babble", key=KEY, transcriber=Stenographer(), dialect=dialect)
    result = await verify(simulator, at_once=12)
    assert {one.probe: (one.came, one.reason) for one in result.outcomes if one.outcome != "as documented"} == {}
    assert len(result.outcomes) >= least
    assert len([one for one in result.outcomes if one.probe.startswith("webrtc.")]) == 5
    assert result.usd == 0.0
    assert KEY not in str(result)
    assert not simulator.running


async def test_calls_are_not_tested_without_aiortc(monkeypatch: pytest.MonkeyPatch, simulator: rtnb.Simulator) -> None:
    monkeypatch.setitem(sys.modules, "aiortc", None)
    monkeypatch.delitem(sys.modules, "rtnb.verify.call", raising=False)
    result = await verify(simulator, only="webrtc.answered")
    assert [one.outcome for one in result.outcomes] == ["not tested"]
    assert "aiortc is missing" in result.outcomes[0].reason


def test_each_probe_says_what_it_checks_and_where_that_stands() -> None:
    names = [(probe.name, dialect) for probe in PROBES for dialect in probe.dialects]
    assert len(set(names)) == len(names)
    assert all(probe.statement and probe.source and probe.dialects for probe in PROBES)


# --- deviations -------------------------------------------------------------------------------------------------------

PLANTED = {
    "response.text_order",
    "refusal.not_json",
    "response.audio",
    "response.usage",
    "events.ids",
    "session.turn_detection_merges",
    "session.update_merges",
    "speech.turn",
    "response.cancelled",
    "speech.transcription",
}


async def test_ten_planted_deviations_are_named_and_nothing_else(simulator: rtnb.Simulator) -> None:
    async with proxy(simulator.url) as url:
        result = await verify(custom(url), at_once=12, budget_usd=5.0)
    assert set(result.different) == PLANTED, str(result)
    assert {one.reason for one in result.outcomes if one.outcome == "not tested"} == set()
    assert all(one.came and one.expected and one.source for one in result.outcomes if one.outcome == "different")


async def test_a_proxy_that_changes_nothing_is_as_documented(simulator: rtnb.Simulator) -> None:
    class Nothing(Deviations):
        def changed(self, message: dict[str, Any]) -> dict[str, Any]:
            return message

    async with proxy(simulator.url, Nothing) as url:
        result = await verify(custom(url), only="response.", at_once=12, budget_usd=5.0)
    assert result.different == []


@pytest.mark.parametrize(
    "error, outcome, text",
    [
        (ZeroDivisionError("x"), "different", "ZeroDivisionError: x"),
        (TimeoutError(), "different", "no end within 120 s"),
        (aiohttp.ServerDisconnectedError(), "not tested", "Server disconnected"),
    ],
)
async def test_no_error_of_a_probe_ends_the_others(
    error: Exception, outcome: str, text: str, monkeypatch: pytest.MonkeyPatch, simulator: rtnb.Simulator
) -> None:
    async def fail(target: Any) -> None:
        raise error

    broken = Probe("items.broken", "It works.", "a test", fail)
    monkeypatch.setattr(run, "PROBES", [broken, *(probe for probe in PROBES if probe.name == "items.deleted")])
    found = await verify(simulator)
    assert [one.outcome for one in found.outcomes] == [outcome, "as documented"]
    assert found.outcomes[0].came + found.outcomes[0].reason == text


# --- cost -------------------------------------------------------------------------------------------------------------


async def test_it_stops_at_the_budget(simulator: rtnb.Simulator) -> None:
    target = custom(simulator.url)
    result = await verify(target, only="response.te", budget_usd=0.0)
    assert {(one.outcome, one.reason) for one in result.outcomes} == {("not tested", "the budget is used up")}
    result = await verify(target, only="response.te", budget_usd=0.0012)  # each is taken for 0.001, and costs less
    assert [one.outcome for one in result.outcomes].count("as documented") >= 1
    assert 0.0 < result.usd <= 0.0012


async def test_probes_without_a_response_cost_nothing(simulator: rtnb.Simulator) -> None:
    result = await verify(custom(simulator.url), only="items.", budget_usd=0.0)
    assert {one.outcome for one in result.outcomes} == {"as documented"}
    assert result.usd == 0.0


def test_the_estimate_is_below_the_default_budget() -> None:
    for dialect in ("ga", "preview"):
        assert 0.0 < estimated_usd(rtnb.Custom("ws://localhost:1", dialect=dialect)) < 0.5  # type: ignore[arg-type]
    assert estimated_usd(rtnb.Simulator()) == 0.0


async def test_a_target_out_of_reach_is_an_error_and_no_difference(unused_tcp_port: int) -> None:
    with pytest.raises(ConnectError, match="refused"):
        await verify(f"ws://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(RtnbError, match="no probe begins with 'nonsense'"):
        await verify("sim", only="nonsense")


# --- results ----------------------------------------------------------------------------------------------------------


def result(came: str = "x", /, **outcomes: str) -> Result:
    rows = [Outcome(name, kind, "", "", came=came * (kind == "different")) for name, kind in outcomes.items()]
    return Result("a target", "ga", "2026-11-30", rows)


def test_two_results_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = result(a="as documented", b="different"), result(a="as documented", b="not tested", c="different")
    assert compare(result("item_1", a="different"), result("item_2", a="different")) == []
    assert compare(first, first) == []
    assert compare(first, second) == [("b", "different: x", "not tested"), ("c", "not run", "different: x")]
    paths = [str(tmp_path / name) for name in ("a.json", "b.json")]
    first.save(paths[0])
    second.save(paths[1])
    assert str(Result.load(paths[1])) == str(second)
    assert list(second.to_frame().index) == ["a", "b", "c"]
    assert main(["verify", "--compare", paths[0], paths[0]]) == 0
    assert main(["verify", "--compare", *paths]) == 1
    assert "b\n    A  different: x\n    B  not tested" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", '{"rtnb_verify": 99}', '{"rtnb_verify": 1, "nonsense": 2}'])
def test_a_file_that_is_no_result_says_so(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(text)
    assert main(["verify", "--compare", str(tmp_path / "a.json"), str(tmp_path / "missing.json")]) == 1
    assert "rtnb verify:" in capsys.readouterr().err
    assert main(["verify", "--compare", str(tmp_path / "missing.json"), str(tmp_path / "a.json")]) == 1
    assert "missing.json cannot be read" in capsys.readouterr().err


async def test_no_key_is_in_a_result(simulator: rtnb.Simulator, tmp_path: Path) -> None:
    class Leaking(Deviations):
        """Errors that repeat the key, as services do."""

        def on_error(self, message: dict[str, Any]) -> dict[str, Any]:
            message["error"] |= {"code": f"key {KEY}", "message": f"Incorrect API key provided: {KEY}"}
            return message

    path = tmp_path / "a.json"
    async with proxy(simulator.url, Leaking) as url:
        found = await verify(custom(url), only="refusal.no", budget_usd=5.0)
    assert len(found.different) >= 2
    found.save(path)
    text = f"{found}{found!r}{Result.load(path).to_frame().to_csv()}{path.read_text()}"
    assert KEY[:16] not in text


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_the_table_and_writes_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result.json"
    assert main(["verify", "sim", "--only", "items.", "--dialect", "preview", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "Estimated cost: none" in printed
    assert "✓ items.announced" in printed
    assert json.loads(out.read_text())["dialect"] == "preview"


@pytest.fixture
def key_in_environment(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that name the variable with the key."""
    monkeypatch.setenv("KEY_OF_THE_TEST", KEY)
    return ["--key-env", "KEY_OF_THE_TEST"]


async def test_the_command_asks_before_it_spends(
    simulator: rtnb.Simulator,
    key_in_environment: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["verify", simulator.url.replace("http", "ws"), *key_in_environment, "--only", "response.text_o"]
    words += ["--dialect", "preview", "--model", "gpt-4o-realtime-preview"]
    for typed, code, said in (
        ("n\n", 1, "Nothing was sent."),
        ("", 1, "--yes"),  # no terminal
        ("y\n", 0, "1 as documented, 0 different"),
    ):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        assert await asyncio.to_thread(main, words) == code
        assert said in capsys.readouterr().out
    assert await asyncio.to_thread(main, [*words, "--yes"]) == 0
    shown = capsys.readouterr()
    assert "1 as documented, 0 different" in shown.out
    assert KEY not in shown.out + shown.err


async def test_the_exit_code_is_1_where_something_is_different(
    simulator: rtnb.Simulator, key_in_environment: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    async with proxy(simulator.url) as url:
        words = ["verify", url.replace("http", "ws"), *key_in_environment, "--only", "refusal.not_json"]
        assert await asyncio.to_thread(main, words) == 1
    shown = capsys.readouterr().out
    assert "came      code 'bad_json'" in shown
    assert "expected  code 'invalid_json'" in shown


@pytest.mark.parametrize(
    "words, said",
    [
        ((), "no target was named"),
        (("nowhere",), "cannot connect to 'nowhere'"),
        (("azure",), "AZURE_OPENAI_ENDPOINT"),
        (("openai", "--dialect", "preview"), "preview"),
    ],
)
def test_a_target_that_cannot_be_says_why(
    words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_DEPLOYMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    assert main(["verify", "--yes", *words]) == 1
    assert said in capsys.readouterr().err


def test_a_key_comes_from_a_variable_only(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["verify", "ws://localhost:1", "--key-env", "NOT_SET_ANYWHERE"])
    assert "the environment variable NOT_SET_ANYWHERE is not set" in capsys.readouterr().err
