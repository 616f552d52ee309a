"""Checks of exercises, and the trace of each trouble in its log."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from course import COURSE, TROUBLES, act, check, plot_sequence, record
from matplotlib.text import Annotation

from rtnb.audio import decode_pcm16, read_wav
from rtnb.simulator import Simulator
from rtnb.widgets import Microphone


def test_a_solved_exercise_shows_solved(capsys: pytest.CaptureFixture[str]) -> None:
    with check():
        assert 1 + 1 == 2, "count again"
    assert capsys.readouterr().out == "Solved.\n"


def test_an_unsolved_exercise_shows_what_is_missing_and_raises_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with check():
        raise AssertionError("put a number in place of the dots")  # pytest would rewrite the message of an assert
    assert capsys.readouterr().out == "Not solved yet: put a number in place of the dots\n"


def test_a_mistake_in_the_code_is_raised() -> None:
    with pytest.raises(ZeroDivisionError), check():
        assert 1 / 0


def test_a_sequence_diagram_has_an_arrow_from_sender_to_receiver_per_message() -> None:
    axes = plot_sequence(["kernel", "page"], [("kernel", "page", "key"), ("page", "kernel", "events")])
    arrows = [text for text in axes.texts if isinstance(text, Annotation)]
    assert [(arrow.xyann[0], arrow.xy[0]) for arrow in arrows] == [(0, 1), (1, 0)]
    assert arrows[0].xy[1] < arrows[1].xy[1]  # the axis points down: the first message is on top
    plt.close(axes.figure)  # type: ignore[arg-type]


def test_the_map_shows_every_lesson_and_only_what_it_builds_on() -> None:
    paths = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
    assert [title[:2] for title in COURSE] == [path.name[:2] for path in paths]
    for path, (_, before) in list(zip(paths, COURSE.values(), strict=True))[2:]:
        needed = nbformat.read(path, as_version=4).cells[0].source.partition("You need to know")[2]
        assert before
        assert [number for number in before if number not in needed] == [], path.name


async def test_without_a_page_the_sample_recording_is_used(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("course.PAGE_S", 0.0)
    sample = np.linspace(0, 1, 48_000)
    microphone = Microphone()
    clip = await record(microphone, 1, instead=sample, path=tmp_path / "clip.wav")
    microphone.close()
    assert (clip.dtype, clip.shape) == (np.float32, (24_000,))
    assert capsys.readouterr().out == "The sample recording: no page shows this notebook\n"
    assert read_wav(tmp_path / "clip.wav")[0] == pytest.approx(sample[:24_000], abs=1e-4)


QUICK = {
    "lost connection": lambda log: "response.done" not in log and log[-1].endswith(".delta"),
    "session over": lambda log: log[-1] == "error",
    "no end": lambda log: "response.created" in log and "response.done" not in log,
    "half a message": lambda log: "unreadable" in log and log[-2] == "response.done",
    "unanswered call": lambda log: (
        "response.function_call_arguments.done" in log and "conversation.item.create" not in log[8:]
    ),
    "two at once": lambda log: log.index("response.created") < log.index("error") < log.index("response.done"),
}


@pytest.mark.parametrize("name", QUICK)
async def test_a_trouble_leaves_its_trace_in_the_log(name: str) -> None:
    case = await act(name, patience_s=3 if name == "no end" else None)
    types = [row.type for row in case.log]
    assert QUICK[name](types), types
    assert case.trouble.symptom in repr(case)


async def test_samples_of_the_wrong_rate_are_two_thirds_as_long() -> None:
    case = await act("wrong rate")
    async with Simulator(seed=9, latency="fast") as simulator:
        right_ms = len(simulator.speech("What is a delta?").audio) / 24
    sent = case.log.filter("input_audio_buffer.append")
    loud = [number for number, row in enumerate(sent) if np.abs(decode_pcm16(row.event.audio)).max() > 0.01]  # type: ignore[attr-defined]
    # Of the silence behind it, more is sent where the answer is slow; a chunk is 100 ms.
    assert sent[: loud[-1] + 1].to_frame()["audio_ms"].sum() == pytest.approx(right_ms * 2 / 3, abs=100)
    assert case.response is not None
    assert "cannot tell the words" in case.response.transcript


async def test_a_case_is_solved_by_its_cause_alone() -> None:
    case = await act("two at once")
    case.solve("two at once")
    with pytest.raises(AssertionError, match="'deaf' would show"):
        case.solve("deaf")
    with pytest.raises(AssertionError, match="such as 'lost connection'"):
        case.solve(...)


async def test_a_number_selects_a_trouble_and_no_repr_shows_its_name() -> None:
    numbered = await act(2, patience_s=0.5)
    (name,) = [name for name, trouble in TROUBLES.items() if trouble is numbered.trouble]
    assert name not in repr(numbered) + numbered._repr_html_()
    with pytest.raises(KeyError, match="no trouble is named 'rain'; names: lost connection"):
        await act("rain")
