"""Chat models behind any OpenAI-compatible address: `Persona` plays a caller with one, `Judge` grades runs with one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any, Final

import numpy as np
from aiohttp import ClientError, ClientSession, ClientTimeout

from rtnb.errors import CaseError, ServiceError, TransportError
from rtnb.experiments.case import Turn
from rtnb.experiments.run import Run
from rtnb.redaction import redact, remember

_RESAMPLES: Final = 2_000
_HANG_UP: Final = "[hang up]"
_BRIEF: Final = (
    "You play a person who calls a voice assistant. Speak as that person, one short turn at a time, without stage "
    f"directions. When your goal is reached, or you have lost patience, answer only {_HANG_UP}."
)
_TASK: Final = (
    "You judge the ASSISTANT in a conversation by this rubric:\n{rubric}\n\n"
    'Answer with JSON only: {{"evidence": "a literal quote of the assistant", "pass": true or false}}.'
)


@dataclass(frozen=True)
class ChatModel:
    """A chat model.

    Parameters
    ----------
    url : str
        Address up to and without ``/chat/completions``, e.g. ``"https://NAME.openai.azure.com/openai/v1"`` or
        ``"http://localhost:11434/v1"``.
    model : str
        Name of the model or deployment there.
    key : str, optional
        Bearer token; never shown or stored.
    seed : int, optional
        Sent with each request, where the service supports it.
    timeout_s : float, default 60
        Longest wait for one answer.

    Examples
    --------
    >>> ChatModel("http://localhost:11434/v1", "llama", key="sk-secret")
    ChatModel(url='http://localhost:11434/v1', model='llama', seed=None, timeout_s=60.0)
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    seed: int | None = None
    timeout_s: float = 60.0

    async def answer(self, messages: Sequence[Mapping[str, str]], **more: Any) -> str:
        """Return the text of the model's answer.

        Raises
        ------
        TransportError
            The service cannot be reached, or gave no answer in time.
        ServiceError
            It refuses, or its answer is none of chat completions.
        """
        remember([self.key or ""])
        body = {"model": self.model, "messages": list(messages), **more}
        body |= {} if self.seed is None else {"seed": self.seed}
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        url, limit = f"{self.url.rstrip('/')}/chat/completions", ClientTimeout(total=self.timeout_s)
        try:
            async with ClientSession(headers=headers) as http, http.post(url, json=body, timeout=limit) as reply:
                text = await reply.text()
        except (ClientError, TimeoutError) as error:
            reason = redact(str(error) or f"no answer within {self.timeout_s:g} s")
            raise TransportError(f"the chat model at {redact(url)} cannot be reached: {reason}") from error
        try:
            return str(json.loads(text)["choices"][0]["message"]["content"] or "")
        except (ValueError, LookupError, TypeError) as error:
            message = f"the chat model answered {reply.status}: {redact(shorten(text, 300))}"
            raise ServiceError(message, type="server_error", code=str(reply.status)) from error


# --- the caller ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Persona:
    """A caller that a chat model plays.

    Parameters
    ----------
    chat : ChatModel
        Model that decides what the person says.
    goal : str
        What the person wants from the call.
    facts : str
        What the person knows: names, dates, numbers.
    style : str
        How the person speaks.
    patience : int, default 6
        Most turns; then the person hangs up.
    speak : bool, default True
        Speak the turns with the caller's voice; False types them.
    """

    chat: ChatModel
    goal: str
    facts: str = ""
    style: str = ""
    patience: int = 6
    speak: bool = True

    async def next_turn(self, said: Sequence[tuple[str, str]]) -> Turn | None:
        """Ask the chat model for the next turn; None where it hangs up or patience ends."""
        if sum(role == "user" for role, _ in said) >= self.patience:
            return None
        roles = {"user": "assistant", "assistant": "user"}  # the persona is the other side
        parts = {"Goal": self.goal, "You know": self.facts, "Style": self.style}
        brief = "\n".join([_BRIEF, *(f"{name}: {text}" for name, text in parts.items() if text)])
        messages = [{"role": "system", "content": brief}]
        messages += [{"role": roles[role], "content": text} for role, text in said if role in roles]
        if len(messages) == 1:
            messages.append({"role": "user", "content": "(The call is connected. You speak first.)"})
        words = (await self.chat.answer(messages)).strip()
        if not words or _HANG_UP in words.lower():
            return None
        return Turn(say=words) if self.speak else Turn(text=words)


# --- the judge -----------------------------------------------------------------------------------------------------


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
    def note(self) -> str:
        """Text beside its results."""
        if (found := self.validation) is None:
            return "not validated"
        low, high = found.kappa_interval
        return f"agreement {found.agreement:.0%}, κ {found.kappa:.2f} ({low:.2f} to {high:.2f}), n = {found.n}"

    async def __call__(self, run: Run | str) -> dict[str, Any]:
        """Judge a run, or a conversation as text: a grade and the quote that it rests on.

        A judge without a real quote gives no grade.
        """
        conversation = run if isinstance(run, str) else run.trace.transcript
        task = {"role": "system", "content": _TASK.format(rubric=self.rubric)}
        messages = [task, {"role": "user", "content": conversation}]
        answer = await self.chat.answer(messages, temperature=0)
        found = re.search(r"\{.*\}", answer, re.DOTALL)
        try:
            data = json.loads(found[0] if found else answer)
            quote, passed = str(data["evidence"]), data["pass"]
        except (ValueError, KeyError, TypeError):
            return {"grade": None, "evidence": f"unusable answer: {answer[:200]}"}
        if not isinstance(passed, bool) or not _plain(quote) or _plain(quote) not in _plain(conversation):
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
        labels = np.array([bool(label) for _, label in pairs])
        grades = [(await self(one))["grade"] for one, _ in pairs]
        judged = np.array([not label if grade is None else grade for grade, label in zip(grades, labels, strict=True)])
        drawn = np.random.default_rng(seed).integers(len(labels), size=(_RESAMPLES, len(labels)))
        shares = (judged == labels)[drawn].mean(axis=1)
        kappas = np.array([kappa(judged[rows], labels[rows]) for rows in drawn])
        agreement = float((judged == labels).mean())
        self.validation = Validation(
            len(labels), agreement, _ends(shares), kappa(judged, labels), _ends(kappas), grades.count(None)
        )
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


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _ends(values: Any) -> tuple[float, float]:
    low, high = np.nanquantile(values, (0.025, 0.975)) if not np.isnan(values).all() else (np.nan, np.nan)
    return float(low), float(high)
