"""The same conversation in both dialects, laid side by side."""

from collections.abc import Sequence
from typing import NamedTuple

from rtnb.analysis.migration import side_by_side


class Row(NamedTuple):
    direction: str
    type: str


def log(*types: str) -> Sequence[Row]:
    """What was received, by GA names, as a log holds it in both dialects."""
    return [Row("received", kind) for kind in types]


def test_renamed_doubled_and_missing_events_are_seen() -> None:
    sound, words = "response.output_audio.delta", "response.output_audio_transcript.delta"
    table = side_by_side(
        log("conversation.created", "conversation.item.created", words, sound, words, sound, sound, "response.done"),
        log("conversation.item.added", "conversation.item.done", sound, words, "response.done", "response.done"),
    )
    shown = table[["preview", "GA", "n_preview", "n_ga", "renamed"]].to_numpy().tolist()
    assert shown == [
        ["conversation.created", "", 1, 0, False],
        ["conversation.item.created", "conversation.item.added", 1, 1, True],
        ["", "conversation.item.done", 0, 1, False],
        ["response.audio.delta", sound, 3, 1, True],
        ["response.audio_transcript.delta", words, 2, 1, True],
        ["response.done", "response.done", 1, 2, False],
    ]


def test_a_log_beside_itself_differs_in_nothing_but_names() -> None:
    mine = log("session.created", "response.output_text.delta", "response.output_text.delta", "response.done")
    table = side_by_side(mine, mine)
    assert table["preview"].tolist() == ["session.created", "response.text.delta", "response.done"]
    assert table["n_ga"].tolist() == table["n_preview"].tolist() == [1, 2, 1]
    assert table["renamed"].tolist() == [False, True, False]


def test_empty_logs_make_an_empty_table() -> None:
    assert side_by_side([], []).empty
