"""Comparison of two traces: turns side by side, texts, latency, interruptions, settings and cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from difflib import SequenceMatcher
from functools import cached_property
from html import escape
from itertools import zip_longest
from math import nan
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rtnb.trace.conversation import Entry
from rtnb.trace.rules import Findings, findings, flat, plain_settings, table_html
from rtnb.trace.trace import Trace

if TYPE_CHECKING:
    import pandas as pd

MIN_ANSWERS: Final = 20
"""Fewer have no 95th percentile: it would be the slowest one (chosen)."""
_OWN: Final = {"id", "object", "expires_at"}
"""Fields of a session that are never the same in two."""

Pair = tuple[Entry | None, Entry | None]


def compare(a: Trace, b: Trace) -> Comparison:
    """Compare two traces, such as a recording and its replay with another setting.

    Parameters
    ----------
    a, b : Trace
        The older one first: what only `b` has counts as added.

    Returns
    -------
    comparison : Comparison
    """
    return Comparison(a, b)


class _Side:
    """What a comparison needs of one trace, found once."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    @cached_property
    def found(self) -> Findings:
        return findings(self.trace)

    @cached_property
    def answers_ms(self) -> dict[str, float]:
        """Latency of each response, to its first sound or, without sound, to its first token."""
        turns = self.trace.latency.turns
        found = {turn.response_id: turn.ms("first audible") or turn.ms("first token") for turn in turns}
        return {id: ms for id, ms in found.items() if ms is not None}

    @cached_property
    def rules(self) -> dict[str, list[str]]:
        """Rules of the findings by the item or response that they are about; "" for those about neither."""
        rows: dict[int, Any] = {row.number: row.event for row in self.trace.log}
        rules: dict[str, list[str]] = defaultdict(list)
        for finding in self.found:
            for event in map(rows.get, finding.events):
                id = getattr(event, "item_id", "") or getattr(event, "response_id", "")
                rules[id or getattr(getattr(event, "response", None), "id", "")].append(finding.rule)
        return rules

    def measures(self) -> dict[str, float]:
        answers_ms, turns = np.array([*self.answers_ms.values()] or [float("nan")]), self.trace.turns
        return {
            "duration (s)": round(self.trace.duration_ms / 1000, 1),
            "turns": len(turns),
            "interruptions": sum(turn.status == "interrupted" for turn in turns),
            "user cut off": sum(finding.rule == "user-cut-off" for finding in self.found),
            "findings": len(self.found),
            "answers (n)": len(self.answers_ms),
            "answer p50 (ms)": float(np.median(answers_ms)),
            "answer p95 (ms)": float(np.quantile(answers_ms, 0.95)) if len(answers_ms) >= MIN_ANSWERS else nan,
            "tokens": self.trace.cost.tokens,
            "cost (USD, about)": nan if self.trace.cost.unknown else self.trace.cost.usd,
        }


class Comparison:
    """Two traces side by side; in a cell, a table of measures, of settings and of turns.

    Parameters
    ----------
    a, b : Trace
    """

    def __init__(self, a: Trace, b: Trace) -> None:
        self.a, self.b = a, b
        self._sides = {"a": _Side(a), "b": _Side(b)}

    @cached_property
    def pairs(self) -> list[Pair]:
        """Turns of both that belong together; None where one has no such turn.

        Turns of the user are aligned by their words, answers by their place between them.
        """
        left, right = self.a.turns, self.b.turns
        keys = [[(t.role, t.text if t.role == "user" else "") for t in turns] for turns in (left, right)]
        pairs: list[Pair] = []
        for _, i, i_end, j, j_end in SequenceMatcher(a=keys[0], b=keys[1], autojunk=False).get_opcodes():
            for one, other in zip_longest(left[i:i_end], right[j:j_end]):
                same = one is None or other is None or one.role == other.role
                pairs += [(one, other)] if same else [(one, None), (None, other)]
        return pairs

    def to_frame(self) -> pd.DataFrame:
        """Return one row per pair of turns.

        Returns
        -------
        pandas.DataFrame
            role, text (what only `a` has in ``[-…-]``, what only `b` has in ``{+…+}``), and for each trace: start_ms,
            status, answer_ms (latency of the answer, NaN where there is none) and findings (ids of rules).
        """
        import pandas as pd

        rows = []
        for pair in self.pairs:
            row: dict[str, Any] = {"role": next(turn.role for turn in pair if turn), "text": _marked(pair)}
            for (name, side), turn in zip(self._sides.items(), pair, strict=True):
                ids = (turn.item_id, turn.response_id) if turn else ("", "")
                found = [rule for id in ids if id for rule in side.rules[id]]
                row[f"start_ms_{name}"] = turn.start_ms if turn else float("nan")
                row[f"status_{name}"] = turn.status if turn else "missing"
                row[f"answer_ms_{name}"] = side.answers_ms.get(ids[1], float("nan"))
                row[f"findings_{name}"] = ", ".join(dict.fromkeys(found))
            rows.append(row)
        return pd.DataFrame(rows)

    @property
    def settings(self) -> pd.DataFrame:
        """Settings at the end that differ, indexed by their path; NaN where a session does not have one."""
        import pandas as pd

        left, right = (flat(plain_settings(trace.settings_at(trace.duration_ms))) for trace in (self.a, self.b))
        paths = [path for path in {**left, **right} if path not in _OWN and left.get(path) != right.get(path)]
        table = {"a": [left.get(path) for path in paths], "b": [right.get(path) for path in paths]}
        return pd.DataFrame(table, index=pd.Index(paths, name="setting"), dtype=object)

    @property
    def measures(self) -> pd.DataFrame:
        """Counts, latency of the answers (with n), tokens and estimated cost of both.

        NaN, an empty place in a cell: the 95th percentile of fewer than 20 answers, the cost where a price is unknown.
        """
        import pandas as pd

        return pd.DataFrame({name: side.measures() for name, side in self._sides.items()})

    def plot(self, *, ax: Any = None) -> Any:
        """Draw the turns of both on one time axis, interrupted ones hatched; return the matplotlib Axes."""
        from rtnb.analysis.plots.deltas import plot_lanes

        lanes = {
            f"{role}, {name}": [
                (turn.start_ms, turn.stop_ms, turn.status == "interrupted")
                for turn in side.trace.turns
                if turn.role == role
            ]
            for name, side in self._sides.items()
            for role in ("user", "assistant")
        }
        return plot_lanes(lanes, ax=ax)

    def __repr__(self) -> str:
        same = sum(one is not None and other is not None and one.text == other.text for one, other in self.pairs)
        return f"<Comparison: {len(self.pairs)} turns, {same} the same, {len(self.settings)} settings differ>"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        frame["text"] = [_marked(pair, escape, "<del>{}</del>", "<ins>{}</ins>") for pair in self.pairs]
        for name in frame.columns[frame.columns.str.contains("status|findings|role")]:
            frame[name] = frame[name].map(escape)
        tables = [
            table_html(self.measures, float_format="{:.6g}".format, na_rep="not shown"),
            table_html(self.settings),
        ]
        return "".join([*tables, table_html(frame, escape=False, na_rep="", float_format="{:.0f}".format)])


def _marked(pair: Pair, quote: Callable[[str], str] = str, gone: str = "[-{}-]", new: str = "{{+{}+}}") -> str:
    """Return both texts as one, with marks at the words that differ."""
    one, other = (turn.text.split() if turn else [] for turn in pair)
    words = []
    for kind, i, i_end, j, j_end in SequenceMatcher(a=one, b=other, autojunk=False).get_opcodes():
        if kind == "equal":
            words.append(quote(" ".join(one[i:i_end])))
        else:
            words += [gone.format(quote(" ".join(one[i:i_end])))] * (i_end > i)
            words += [new.format(quote(" ".join(other[j:j_end])))] * (j_end > j)
    return " ".join(words)
