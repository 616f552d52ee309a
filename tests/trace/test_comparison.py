"""Comparison of two traces: a conversation, and the same speech with another silence duration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from rtnb.protocol import events
from rtnb.protocol.values import ContentPart, Item, Response, SessionConfig, Usage
from rtnb.simulator.transcriber import ExactTranscriber
from rtnb.trace import Trace, save_trace
from rtnb.trace.comparison import Comparison, compare
from rtnb.vad import server_vad_segments, speech_probabilities
from tests.client.virtual import run_virtual
from tests.simulator.rig import spoken
from tests.trace.rows import delta, log_of, written
from tests.trace.talk import near_session

FIRST, SECOND, THIRD = "my order number is", "one two three four", "please tell me where it is"
PARTS = {FIRST: spoken(FIRST, silence_ms=0), SECOND: spoken(SECOND, lead_ms=600), THIRD: spoken(THIRD)}
WHOLE = np.concatenate([PARTS[FIRST], PARTS[SECOND]])
"""A sentence with a pause of about 600 ms in it."""
STEPS = [{"when": {"text": "where"}, "say": "It is <b>here</b>."}, {"when": {"speech": True}, "say": "Yes."}]


def recorded(path: Path, silence_ms: int) -> Trace:
    """Two sentences, to a turn detection that waits `silence_ms`."""

    async def talk() -> None:
        exact = ExactTranscriber()
        vad = {"type": "server_vad", "silence_duration_ms": silence_ms}
        settings = {"turn_detection": vad, "transcription": "whisper-1", "voice": "marin"}
        for text, audio in (PARTS | {f"{FIRST} {SECOND}": WHOLE}).items():
            exact.learn(text, audio)
        async with near_session(settings, latency="realistic", transcriber=exact, scenario={"steps": STEPS}) as session:
            for audio in (WHOLE, PARTS[THIRD]):
                await session.say(audio, rate_hz=24_000, respond=False)
                await session.next_response(20)
                await session.update(speed=1.0 if silence_ms > 500 else 1.2)
            save_trace(session, path)

    run_virtual(talk())
    return Trace(path)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    folder = tmp_path_factory.mktemp("traces")
    with recorded(folder / "a.rtnb", 800) as a, recorded(folder / "b.rtnb", 200) as b:
        yield compare(a, b)


def test_a_turn_that_was_cut_off_stands_beside_the_whole_one(compared: Comparison) -> None:
    frame = compared.to_frame()
    assert list(frame.role) == ["user", "assistant", "user", "assistant", "user", "assistant"]
    assert frame.text[0] == f"{FIRST} [-{SECOND}-]"
    assert frame.text[2] == f"{{+{SECOND}+}}"
    assert list(frame.findings_a) == [""] * 6
    assert list(frame.findings_b) == ["user-cut-off", "", "user-cut-off", "", "", ""]
    assert list(frame.status_a) == ["complete", "missing", "missing", "complete", "complete", "complete"]
    assert frame.status_b[1] == "interrupted"
    assert frame.answer_ms_a[3] > frame.answer_ms_b[3] + 400  # it waits 600 ms less


def test_the_cut_off_turns_are_those_that_the_simulated_detection_predicts(compared: Comparison) -> None:
    probabilities = speech_probabilities(WHOLE, rate_hz=24_000)
    for trace, silence_ms in ((compared.a, 800), (compared.b, 200)):
        predicted = server_vad_segments(probabilities, silence_duration_ms=silence_ms)
        turns = [turn for turn in trace.turns if turn.role == "user" and "where" not in turn.text]
        assert len(turns) == len(predicted)
    assert compared.measures.loc["user cut off"].tolist() == [0, 1]


def test_measures_and_settings_of_both(compared: Comparison) -> None:
    assert compared.settings.to_dict("index") == {
        "audio.input.turn_detection.silence_duration_ms": {"a": 800, "b": 200},
        "audio.output.speed": {"a": 1.0, "b": 1.2},
    }
    measures = compared.measures
    assert measures.loc["turns"].tolist() == [4, 6]
    assert measures.loc["interruptions"].tolist() == [0, 1]
    assert measures.loc["answers (n)"].tolist() == [2, 3]
    assert measures.a["tokens"] == compared.a.cost.tokens > 0
    assert measures.a["cost (USD, about)"] == pytest.approx(compared.a.cost.usd)


def test_a_trace_compared_with_itself_has_no_difference(compared: Comparison) -> None:
    same = compare(compared.a, compared.a)
    assert repr(same) == "<Comparison: 4 turns, 4 the same, 0 settings differ>"
    assert "[-" not in "".join(same.to_frame().text)


def test_the_table_in_a_cell_marks_words_and_shows_service_text_as_text(compared: Comparison) -> None:
    html = compared._repr_html_()
    assert f"<del>{SECOND}</del>" in html
    assert "&lt;b&gt;here&lt;/b&gt;" in html
    assert "<b>" not in html
    assert html.count("<del>") == html.count("</del>") > 0


def test_a_role_that_a_service_invents_is_shown_as_text(tmp_path: Path) -> None:
    item = Item(id="a", type="message", role="<img>", content=(ContentPart(type="text", text="Hello."),))
    with Trace(written(tmp_path / "a.rtnb", log_of((1.0, events.ConversationItemAdded(item=item))))) as trace:
        html = compare(trace, trace)._repr_html_()
    assert "&lt;img&gt;" in html
    assert "<img>" not in html


def test_the_figure_has_a_lane_per_side_and_trace(compared: Comparison) -> None:
    ax = compared.plot()
    lanes = ["user, a", "assistant, a", "user, b", "assistant, b"]
    assert [label.get_text() for label in ax.get_yticklabels()] == lanes
    assert ax.get_xlabel() == "time (s)"
    assert sum(len(bars.get_paths()) for bars in ax.collections if bars.get_hatch()) == 1
    plt.close(ax.figure)


def test_what_is_not_known_is_no_number(tmp_path: Path) -> None:
    created = events.SessionCreated(session=SessionConfig(model="unknown"))
    answer = [events.ResponseCreate(), events.ResponseCreated(response=Response(id="r")), delta(100)]
    done = events.ResponseDone(response=Response(id="r", status="completed", usage=Usage(input_tokens=5)))
    log = log_of(*enumerate((created, *answer, done)))
    with Trace(written(tmp_path / "a.rtnb", log)) as trace:
        compared = compare(trace, trace)
        assert trace.cost.unknown, "the model has no price"
        known = compared.measures.notna().all(axis=1)
        assert not known["cost (USD, about)"]
        assert not known["answer p95 (ms)"], "of one answer"
        assert known["answer p50 (ms)"]
        assert "not shown" in compared._repr_html_()
