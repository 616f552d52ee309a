"""The same conversation in both dialects, event beside event."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rtnb.protocol import preview

if TYPE_CHECKING:
    import pandas as pd


def side_by_side(old: Iterable[Any], new: Iterable[Any]) -> pd.DataFrame:
    """Lay the log of a preview session beside that of a GA session.

    Parameters
    ----------
    old, new : EventLog
        Of the same conversation, in the preview and in the GA dialect.

    Returns
    -------
    pandas.DataFrame
        One row per run of equal events: ``direction``, the wire type in each dialect (empty where there is none), how
        many of them came (``n_preview``, ``n_ga``), and whether the type has another name now (``renamed``).
    """
    import pandas as pd

    left, right = _runs(old), _runs(new)
    matcher = SequenceMatcher(a=[_aligned(run) for run in left], b=[_aligned(run) for run in right], autojunk=False)
    rows: list[tuple[Any, ...]] = []
    for kind, a, a_end, b, b_end in matcher.get_opcodes():
        if kind == "equal":
            rows += map(_row, left[a:a_end], right[b:b_end])
        else:
            rows += [_row(run, None) for run in left[a:a_end]] + [_row(None, run) for run in right[b:b_end]]
    return pd.DataFrame(rows, columns=["direction", "preview", "GA", "n_preview", "n_ga", "renamed"])


@dataclass
class _Run:
    direction: str
    type: str
    n: int = 0


def _runs(log: Iterable[Any]) -> list[_Run]:
    """Runs of equal events; deltas of sound and words, which mix by chance, are one run each, words first."""
    runs: list[_Run] = []
    for mixing, rows in groupby(log, key=lambda row: str(row.type).endswith(".delta")):
        stretch: list[_Run] = []
        for row in rows:
            held = stretch if mixing else stretch[-1:]
            run = next((run for run in held if (run.direction, run.type) == (row.direction, row.type)), None)
            if run is None:
                run = _Run(row.direction, row.type)
                stretch.append(run)
            run.n += 1
        runs += sorted(stretch, key=lambda run: run.type, reverse=True) if mixing else stretch
    return runs


def _aligned(run: _Run) -> tuple[str, str]:
    """What must be equal to stand in one row: the first of the two events that took the place of one is that one."""
    return run.direction, {"conversation.item.created": "conversation.item.added"}.get(run.type, run.type)


def _row(old: _Run | None, new: _Run | None) -> tuple[Any, ...]:
    before = preview.PREVIEW_TYPES.get(old.type, old.type) if old else ""
    after = new.type if new else ""
    direction = (old or new or _Run("", "")).direction
    return direction, before, after, old.n if old else 0, new.n if new else 0, bool(old and new and before != after)
