"""A chat model as a grader, with quoted evidence and a check against people's labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from rtnb.errors import CaseError
from rtnb.experiments.chat import ChatModel
from rtnb.experiments.run import Run

_RESAMPLES: Final = 2_000
_TASK: Final = (
    "You judge the ASSISTANT in a conversation by this rubric:\n{rubric}\n\n"
    'Answer with JSON only: {{"evidence": "a literal quote of the assistant", "pass": true or false}}.'
)


@dataclass(frozen=True)
class Validation:
    """Agreement of a judge with people's labels; intervals at 95 %, bootstrap over the labelled conversations."""

    n: int
    agreement: float
    agreement_interval: tuple[float, float]
    kappa: float
    """Cohen's κ: 0 is chance, 1 is full agreement; NaN where all labels are equal."""
    kappa_interval: tuple[float, float]
    n_unusable: int = 0
    """Answers of the judge that could not be used; they count as disagreement."""

    def __str__(self) -> str:
        low, high = self.kappa_interval
        return f"agreement {self.agreement:.0%}, κ {self.kappa:.2f} ({low:.2f} to {high:.2f}), n = {self.n}"


@dataclass
class Judge:
    """A grader that asks a chat model; give it to `rtnb.experiment` like any other.

    Parameters
    ----------
    rubric : str
        What counts as good, in one paragraph.
    chat : ChatModel
        The model that judges.
    name : str, default "judge"
        Heads its column. Results of a judge that `validate` has not checked are marked "not validated".

    References
    ----------
    J. Cohen, Educational and Psychological Measurement 20 (1960), 37–46 (κ).
    """

    rubric: str
    chat: ChatModel
    name: str = "judge"
    validation: Validation | None = field(default=None, init=False)

    @property
    def __name__(self) -> str:
        return self.name

    @property
    def note(self) -> str:
        """Text beside its results."""
        return "not validated" if self.validation is None else str(self.validation)

    async def __call__(self, run: Run) -> dict[str, Any]:
        """Judge one run: a grade and the quote that it rests on. A judge without a real quote gives no grade."""
        return await self.judge(conversation_of(run))

    async def judge(self, conversation: str) -> dict[str, Any]:
        """Judge a conversation given as text."""
        task = _TASK.format(rubric=self.rubric)
        messages = [{"role": "system", "content": task}, {"role": "user", "content": conversation}]
        answer = await self.chat.answer(messages, temperature=0)
        found = re.search(r"\{.*\}", answer, re.DOTALL)
        try:
            data = json.loads(found[0] if found else answer)
            quote, passed = str(data["evidence"]), data["pass"]
        except (ValueError, KeyError, TypeError):
            return {"grade": None, "evidence": f"unusable answer: {answer[:200]}"}
        if not isinstance(passed, bool) or _plain(quote) not in _plain(conversation):
            return {"grade": None, "evidence": f"not a quote of the conversation: {quote[:200]}"}
        return {"grade": passed, "evidence": quote}

    async def validate(self, labelled: Iterable[tuple[Run | str, bool]], *, seed: int = 0) -> Validation:
        """Compare the judge with people's labels and keep the outcome as `validation`.

        Parameters
        ----------
        labelled : iterable of (Run or text, bool)
            Conversations and whether people passed them; 50 or more give useful intervals.

        Raises
        ------
        CaseError
            Fewer than two labels.
        """
        pairs = list(labelled)
        if len(pairs) < 2:
            raise CaseError(f"{len(pairs)} labelled conversations; at least 2 are needed, 50 give useful intervals")
        texts = [conversation_of(one) if isinstance(one, Run) else one for one, _ in pairs]
        grades = [(await self.judge(text))["grade"] for text in texts]
        labels = np.array([bool(label) for _, label in pairs])
        unusable = np.array([grade is None for grade in grades])
        judged = np.where(unusable, ~labels, np.array([bool(grade) for grade in grades]))
        drawn = np.random.default_rng(seed).integers(len(labels), size=(_RESAMPLES, len(labels)))
        shares = (judged == labels)[drawn].mean(axis=1)
        kappas = np.array([kappa(judged[rows], labels[rows]) for rows in drawn])
        self.validation = Validation(
            len(labels), float((judged == labels).mean()), _ends(shares), kappa(judged, labels), _ends(kappas),
            int(unusable.sum()),
        )  # fmt: skip
        return self.validation


def kappa(a: Any, b: Any) -> float:
    """Return Cohen's κ of two sequences of labels.

    Examples
    --------
    >>> round(kappa([1, 1, 0, 0], [1, 0, 0, 0]), 2)
    0.5
    """
    first, second = np.asarray(a, bool), np.asarray(b, bool)
    p, q = first.mean(), second.mean()
    chance = p * q + (1 - p) * (1 - q)
    return float(((first == second).mean() - chance) / (1 - chance)) if chance < 1 else float("nan")


def conversation_of(run: Run) -> str:
    """Return a run as text for a judge: the turns in their order."""
    lines = []
    for number in range(max(len(run.user), len(run.answers))):
        if number < len(run.user):
            lines.append(f"USER: {run.user[number]}")
        if number < len(run.answers):
            lines.append(f"ASSISTANT: {run.answers[number]['text']}")
    lines += [
        f"FUNCTION CALL: {call['name']}({json.dumps(call['arguments'], ensure_ascii=False)})" for call in run.calls
    ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _ends(values: Any) -> tuple[float, float]:
    low, high = np.nanquantile(values, (0.025, 0.975)) if not np.isnan(values).all() else (np.nan, np.nan)
    return float(low), float(high)
