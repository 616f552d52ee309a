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

from rtnb.trace.conversation import Entry, ids_of
from rtnb.trace.rules import Findings, findings, flat_json, plain_settings, table_html
from rtnb.trace.trace import Trace

if TYPE_CHECKING:
    import pandas as pd

MIN_ANSWERS: Final = 20
"""Fewer have no 95th percentile: it would be the slowest one (chosen)."""
_OWN: Final = {"id", "object", "expires_at"}
"""Fields of a session that are never the same in two."""

Pair = tuple[Entry | None, Entry | None]


class Comparison:
    """Two traces side by side, such as a recording and its replay with another setting.

    In a cell it is a table of measures, of settings and of turns.

    Parameters
    ----------
    a, b : Trace
        The older one first: what only `b` has counts as added.

    Examples
    --------
    >>> import asyncio, os, tempfile, rtnb
    >>> path = os.path.join(tempfile.mkdtemp(), "talk.rtnb")
    >>> async def talk():
    ...     async with rtnb.connect("sim", latency="fast", voice="babble", trace=path) as session:
    ...         await session.ask("Hello!")
    >>> asyncio.run(talk())
    >>> comparison = rtnb.compare(rtnb.Trace(path), rtnb.Trace(path))
    >>> len(comparison.pairs)
    2
    """

    def __init__(self, a: Trace, b: Trace) -> None:
        self.a, self.b = a, b
        self._traces = {"a": a, "b": b}
        self._findings = {name: findings(trace) for name, trace in self._traces.items()}
        self._answers_ms = {name: _answers_ms(trace) for name, trace in self._traces.items()}

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

        roles, texts = [next(turn.role for turn in pair if turn) for pair in self.pairs], map(_marked, self.pairs)
        frame = pd.DataFrame({"role": roles, "text": list(texts)})
        for side, (name, trace) in enumerate(self._traces.items()):
            turns = [pair[side] for pair in self.pairs]
            rules = _rules(trace, self._findings[name])
            about = [rules[turn.item_id] + rules[turn.response_id] if turn else [] for turn in turns]
            answers_ms = self._answers_ms[name]
            frame[f"start_ms_{name}"] = [turn.start_ms if turn else nan for turn in turns]
            frame[f"status_{name}"] = [turn.status if turn else "missing" for turn in turns]
            frame[f"answer_ms_{name}"] = [answers_ms.get(turn.response_id, nan) if turn else nan for turn in turns]
            frame[f"findings_{name}"] = [", ".join(dict.fromkeys(found)) for found in about]
        return frame

    @property
    def settings(self) -> pd.DataFrame:
        """Settings at the end that differ, indexed by their path; NaN where a session does not have one."""
        import pandas as pd

        left, right = (flat_json(plain_settings(trace.settings_at(trace.duration_ms))) for trace in (self.a, self.b))
        paths = [path for path in {**left, **right} if path not in _OWN and left.get(path) != right.get(path)]
        table = {"a": [left.get(path) for path in paths], "b": [right.get(path) for path in paths]}
        return pd.DataFrame(table, index=pd.Index(paths, name="setting"), dtype=object)

    @property
    def measures(self) -> pd.DataFrame:
        """Counts, latency of the answers (with n), tokens and estimated cost of both.

        NaN, an empty place in a cell: the 95th percentile of fewer than 20 answers, the cost where a price is unknown.
        """
        import pandas as pd

        return pd.DataFrame({name: self._measured(name, trace) for name, trace in self._traces.items()})

    def _measured(self, name: str, trace: Trace) -> dict[str, float]:
        answers_ms, found = np.array([*self._answers_ms[name].values()]), self._findings[name]
        return {
            "duration (s)": round(trace.duration_ms / 1000, 1),
            "turns": len(trace.turns),
            "interruptions": sum(turn.status == "interrupted" for turn in trace.turns),
            "user cut off": sum(finding.rule == "user-cut-off" for finding in found),
            "findings": len(found),
            "answers (n)": len(answers_ms),
            "answer p50 (ms)": float(np.median(answers_ms)) if len(answers_ms) else nan,
            "answer p95 (ms)": float(np.quantile(answers_ms, 0.95)) if len(answers_ms) >= MIN_ANSWERS else nan,
            "tokens": trace.cost.tokens,
            "cost (USD, about)": nan if trace.cost.unknown else trace.cost.usd,
        }

    def plot(self, *, ax: Any = None) -> Any:
        """Draw the turns of both on one time axis, interrupted ones hatched; return the matplotlib Axes."""
        from rtnb.analysis.plots.deltas import plot_lanes

        lanes = {}
        for name, trace in self._traces.items():
            for role in ("user", "assistant"):
                turns = [turn for turn in trace.turns if turn.role == role]
                lanes[f"{role}, {name}"] = [(one.start_ms, one.stop_ms, one.status == "interrupted") for one in turns]
        return plot_lanes(lanes, ax=ax)

    def __repr__(self) -> str:
        same = sum(one is not None and other is not None and one.text == other.text for one, other in self.pairs)
        return f"<Comparison: {len(self.pairs)} turns, {same} the same, {len(self.settings)} settings differ>"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        frame["text"] = [_marked(pair, escape, "<del>{}</del>", "<ins>{}</ins>") for pair in self.pairs]
        for name in frame.columns[frame.columns.str.contains("status|findings|role")]:
            frame[name] = frame[name].map(escape)
        measures = table_html(self.measures, float_format="{:.6g}".format, na_rep="not shown")
        turns = table_html(frame, escape=False, na_rep="", float_format="{:.0f}".format)
        return measures + table_html(self.settings) + turns


compare = Comparison


def _answers_ms(trace: Trace) -> dict[str, float]:
    """Return the latency of each response, to its first sound or, without sound, to its first token."""
    return {turn.response_id: turn.answer_ms for turn in trace.latency.turns if turn.answer_ms is not None}


def _rules(trace: Trace, found: Findings) -> dict[str, list[str]]:
    """Return the rules of findings by the item or response that they are about."""
    rows: dict[int, Any] = {row.number: row.event for row in trace.log}
    rules: dict[str, list[str]] = defaultdict(list)
    for finding in found:
        for id in {id for number in finding.events for id in ids_of(rows.get(number))}:
            rules[id].append(finding.rule)
    return rules


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
