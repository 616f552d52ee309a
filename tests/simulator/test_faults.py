"""Faults as data and their plan: `rtnb.simulator.faults`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from rtnb.errors import ScenarioError
from rtnb.simulator.faults import Close, Fault, FaultPlan, Send
from tests.simulator.test_session import SPOKEN_REPLY

DELTAS = ["response.output_audio_transcript.delta", "response.output_audio.delta"]
REPLY = [*SPOKEN_REPLY[:6], *DELTAS, DELTAS[1], *SPOKEN_REPLY[6:]]
DELTA = "response.output_audio.delta"


def run(plan: FaultPlan, events: Sequence[str]) -> list[Send | Close]:
    """What a service would do with these events; the text of each is its type and place."""
    return [step for i, event in enumerate(events) for step in plan.outgoing(event, f"{event} {i}")]


def texts(steps: list[Send | Close]) -> list[str]:
    return [step.text for step in steps if isinstance(step, Send)]


def plan_of(*faults: str, seed: int = 0) -> FaultPlan:
    return FaultPlan([Fault.parse(fault) for fault in faults], seed=seed)


UNHARMED = [f"{event} {i}" for i, event in enumerate(REPLY)]


def test_no_faults_change_nothing() -> None:
    plan = plan_of()
    assert plan.on_connect() is None
    assert run(plan, REPLY) == [Send(text) for text in UNHARMED]


def test_connections_are_refused_always_or_so_that_retrying_helps() -> None:
    plan = plan_of("http=401")
    assert [plan.on_connect() for _ in range(3)] == [401] * 3
    assert texts(run(plan, REPLY)) == UNHARMED
    plan = plan_of("http=429:1x2")
    assert [plan.on_connect() for _ in range(5)] == [None, 429, 429, None, None]


def test_latency_shifts_every_event_and_adds_up() -> None:
    steps = run(plan_of("latency=200", f"latency=50@{DELTA}"), REPLY)
    assert texts(steps) == UNHARMED
    assert [step.delay_ms for step in steps if isinstance(step, Send)] == [250 if e == DELTA else 200 for e in REPLY]


def test_jitter_is_bounded_and_repeatable() -> None:
    delays, again, other = (
        [step.delay_ms for step in run(plan_of("jitter=100", seed=seed), REPLY) if isinstance(step, Send)]
        for seed in (3, 3, 4)
    )
    assert all(0 <= delay <= 100 for delay in delays)
    assert len(set(delays)) > 10
    assert delays == again != other


def test_drop_after_and_times() -> None:
    left = texts(run(plan_of(f"drop@{DELTA}:1x1"), REPLY))
    assert left == [text for text in UNHARMED if text != f"{DELTA} 7"]
    assert texts(run(plan_of(f"drop@{DELTA}"), REPLY)) == [text for text in UNHARMED if text != f"{DELTA} 5"]


def test_drop_by_chance() -> None:
    assert 750 < len(texts(run(plan_of(f"drop=0.2@{DELTA}", seed=1), [DELTA] * 1000))) < 850


def test_close_in_the_middle_of_a_turn() -> None:
    steps = run(plan_of(f"close=1011@{DELTA}:2"), REPLY)
    place = next(i for i, step in enumerate(steps) if isinstance(step, Close))
    assert steps[place] == Close(1011)
    assert texts(steps[:place]) == UNHARMED[:8]
    assert plan_of(f"close@{DELTA}").outgoing(DELTA, "x") == (Close(1006),)


def test_a_duplicate_is_sent_twice() -> None:
    assert texts(run(plan_of("duplicate@response.done"), REPLY)) == [*UNHARMED, UNHARMED[-1]]


def test_malformed_is_not_json_but_looks_like_the_event() -> None:
    (step,) = plan_of(f"malformed@{DELTA}").outgoing(DELTA, "whole")
    assert isinstance(step, Send)
    assert step.text.startswith('{"type": "response.output_audio.delta"')
    with pytest.raises(json.JSONDecodeError):
        json.loads(step.text)


def test_unknown_event_and_error_come_before_the_event() -> None:
    plan = plan_of("unknown_event=rtnb.surprise@response.done", "error=rate_limit_exceeded@response.done")
    steps = texts(run(plan, REPLY))
    assert steps[:14] == UNHARMED[:14]
    assert steps[-1] == UNHARMED[-1]
    assert json.loads(steps[14])["type"] == "rtnb.surprise"
    error = json.loads(steps[15])
    assert error["type"] == "error"
    assert error["error"]["code"] == "rate_limit_exceeded"
    assert error["event_id"].startswith("event_")


def test_a_response_fails_or_is_cut_short_by_its_turn() -> None:
    plan = plan_of("failed=rate_limit_exceeded@2", "incomplete=max_output_tokens:2")
    found = []
    for _ in range(4):
        fault = plan.on_response()
        found.append(fault and (fault.kind, fault.value))
        plan.outgoing("response.done", "{}")
    assert found == [None, ("failed", "rate_limit_exceeded"), ("incomplete", "max_output_tokens"), None]


def test_a_turn_as_place() -> None:
    plan = plan_of("drop@2:1x2")
    assert texts(run(plan, REPLY)) == UNHARMED
    assert plan.turn == 2
    assert texts(run(plan, REPLY)) == [UNHARMED[0], *UNHARMED[3:]]


def test_the_faults_of_a_step_come_and_go_and_the_counts_of_the_others_stay() -> None:
    plan = plan_of("error=once@response.created:1x1")
    plan.enter_step([Fault("drop", at="response.done")])
    assert texts(run(plan, REPLY)) == UNHARMED[:-1]
    plan.enter_step([])
    second = texts(run(plan, REPLY))
    assert json.loads(second[0])["error"]["code"] == "once"
    assert second[1:] == UNHARMED


def test_faults_together_first_of_the_hard_ones_wins() -> None:
    plan = plan_of(f"latency=5@{DELTA}", f"drop@{DELTA}", f"close@{DELTA}", f"error@{DELTA}")
    (step,) = plan.outgoing(DELTA, "lost")
    assert isinstance(step, Send)
    assert step.delay_ms == 5
    assert json.loads(step.text)["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    "text, fault",
    [
        ("http=401", Fault("http", value=401)),
        ("latency=200", Fault("latency", value=200)),
        (f"close@{DELTA}:3", Fault("close", at=DELTA, after=3)),
        ("close=1011@response.*:3x2", Fault("close", at="response.*", after=3, times=2, value=1011)),
        ("drop@2:0x3", Fault("drop", at=2, times=3)),
        (" duplicate@2 ", Fault("duplicate", at=2)),
    ],
)
def test_the_short_form(text: str, fault: Fault) -> None:
    assert Fault.parse(text) == fault


@pytest.mark.parametrize(
    "source, message",
    [
        ("latncy=3", "did you mean 'latency'"),
        ("latency", "value is None; allowed: ms"),
        ("latency=soon", "value is 'soon'; allowed: ms"),
        ("latency=-1", "allowed: ms, 0"),
        ("latency=nan", "allowed: ms, 0"),
        ("drop", "at is None; allowed: a server event type"),
        ("drop@response.output_audio.dleta", f"did you mean '{DELTA}'"),
        ("drop=2@response.done", "probability"),
        ("close=99@response.done", "1000 to 4999"),
        ("close=1000.5@response.done", "1000 to 4999"),
        ("http=200", "400 to 599"),
        ("http=401@response.done", '"connect"'),
        ("malformed=1@response.done", "no value"),
        ("drop@0", "from 1"),
        ("drop@response.done:0x0", "times is 0"),
        ("incomplete=tired", "content_filter or max_output_tokens"),
        ("failed@response.done", "the number of a turn"),
        ("?", "KIND=VALUE@AT"),
        (3, "a text or an object"),
        ({"kind": "drop", "att": "*"}, "did you mean 'at'"),
        ({"at": "*"}, "no kind"),
        ({"kind": "drop", "at": "*", "after": True}, "a whole number from 0"),
        ({"kind": "drop", "at": ["*"]}, "a server event type"),
        ({"kind": ["drop"]}, "fault kind"),
    ],
)
def test_parse_says_what_is_wrong(source: object, message: str) -> None:
    with pytest.raises(ScenarioError, match=message.replace("*", r"\*")):
        Fault.parse(source)
