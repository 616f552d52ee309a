"""`PromptLab`: two instructions side by side, run on the same cases; grades, sound and statistics in one cell.

Between its two parts is the player of the run that is open.

`PromptForm`. Traits both ways: `texts`, `chosen`, `repeats`, `budget_usd`, `grader`; kernel to page: `names`,
`changes`, `cases`, `graders`, `state`, `status`, `problem`, `cells`, `opened`.
Messages, page to kernel: ``{"kind": "run"}``, ``stop``, ``open`` (case, variant, repeat).

`PromptOutcome`. Traits, kernel to page: `has_result`, `pair`, `code`. Messages, page to kernel: ``page``, ``sound``
(side), ``vote`` (better); kernel to page: ``page`` (html), ``sound`` (side) [WAV].
"""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from pprint import pformat
from tempfile import mkdtemp
from typing import Any
from zlib import crc32

import ipywidgets
from traitlets import Bool, Dict, Float, Int, List, Unicode

from rtnb._loop import shared_loop
from rtnb.analysis.cost import Budget
from rtnb.errors import CaseError, RtnbError, WidgetError
from rtnb.experiments import BlindPairs, Case, Result, Run, experiment, graders
from rtnb.experiments import cases as read_cases
from rtnb.experiments.graders import Grader, name_of
from rtnb.experiments.result import to_wav
from rtnb.experiments.schedule import without_keys
from rtnb.redaction import redact
from rtnb.widgets._base import Widget, format_error
from rtnb.widgets.settings import close_all
from rtnb.widgets.trace_player import TracePlayer


class PromptForm(Widget):
    """Page of a `PromptLab`."""

    names = List(Unicode(), help="Names of the two variants.").tag(sync=True)
    texts = List(Unicode(), help="Their instructions.").tag(sync=True)
    changes: Any = List(help="[same, removed or added; words] from the first instructions to the second.").tag(
        sync=True
    )
    cases: Any = List(help="[id, text] of each case.").tag(sync=True)
    chosen = List(Unicode(), help="Ids of the cases to run.").tag(sync=True)
    repeats = Int(2, min=1, max=100, help="Runs of each case under each variant.").tag(sync=True)
    budget_usd = Float(1.0, min=0.0, help="No run begins that would exceed it, US dollars; 0: no limit.").tag(sync=True)
    graders = List(Unicode(), help="Names of the graders.").tag(sync=True)
    grader = Unicode(help="The grader whose grades the grid shows.").tag(sync=True)
    state = Unicode("ready", help="ready or running.").tag(sync=True)
    status = Unicode(help="Progress and cost.").tag(sync=True)
    problem = Unicode(help="What went wrong, and the next step.").tag(sync=True)
    cells: Any = List(help="Completed runs: case, variant, repeat, grades, error.").tag(sync=True)
    opened = Dict(help="The run that is shown: case, variant, repeat, lines.").tag(sync=True)


class PromptOutcome(Widget):
    """Blind listening and code of a `PromptLab`."""

    has_result = Bool(False, help="Whether there is a result to save.").tag(sync=True)
    pair = Dict(help="Blind listening: waiting, n, preference.").tag(sync=True)
    code = Unicode(help="What Run does, as Python.").tag(sync=True)


class PromptLab(ipywidgets.VBox):  # type: ignore[misc]
    """Compare two instructions: edit, run, hear, vote, and see whether a difference is shown.

    Parameters
    ----------
    target : str, Azure, OpenAI, Custom or Simulator, default "sim"
        As for `rtnb.connect`.
    cases : list or path
        As for `rtnb.experiment`.
    variants : mapping, optional
        Two names -> instructions, or settings with instructions. Default: "A" and "B" with one instruction each.
    graders : sequence of functions, optional
        As for `rtnb.experiment`; default `n_words` and `first_audio_ms`.
    repeats : int, default 2
        Runs of each case under each variant.
    budget_usd : float, default 1.0
        No run begins that would exceed it, US dollars; 0 for no limit.
    folder : path, optional
        Folder for the results, each in a folder of its own; default a new temporary one.
    **options
        `concurrency`, `voice` and `seed` of `rtnb.experiment`.

    Raises
    ------
    CaseError
        A wrong case, or not two variants.

    Examples
    --------
    >>> lab = PromptLab(cases=["Hello!"], variants={"short": "Be brief.", "long": "Explain at length."})
    >>> print(lab.code.splitlines()[6])
        'short': {'instructions': 'Be brief.'},
    >>> lab.close()
    """

    def __init__(
        self,
        target: Any = "sim",
        cases: Iterable[Any] | str | Path = ("Hello, who are you?", "What can you do?", "Goodbye!"),
        variants: Mapping[str, Any] | None = None,
        *,
        graders: Sequence[Grader] = (graders.n_words, graders.first_audio_ms),
        repeats: int = 2,
        budget_usd: float = 1.0,
        folder: str | Path | None = None,
        **options: Any,
    ) -> None:
        variants = variants or {"A": "Answer in one sentence.", "B": "Answer in one sentence. Be warm and friendly."}
        if len(variants) != 2:
            raise CaseError(f"{len(variants)} variants; a prompt lab compares two")
        self.result: Result | None = None
        """The last result; None before the first run."""
        self._target, self._graders, self._options = target, list(graders), options
        self._source = cases if isinstance(cases, str | Path) else list(cases)
        self._cases = {case.id: case for case in read_cases(self._source)}
        self._settings = [{"instructions": one} if isinstance(one, str) else dict(one) for one in variants.values()]
        self._folder = Path(folder or mkdtemp(prefix="rtnb-prompts-"))
        self._future: Future[Result] | None = None
        self._pairs: BlindPairs | None = None
        self._player: TracePlayer | None = None
        names = [name_of(grader) for grader in graders]
        self.form = PromptForm(
            names=list(variants), texts=[str(one.get("instructions", "")) for one in self._settings],
            cases=[[case.id, _first_words(case.user)] for case in self._cases.values()], chosen=list(self._cases),
            graders=names, grader=names[0] if names else "", repeats=repeats, budget_usd=budget_usd,
        )  # fmt: skip
        """Its page, whose traits may be set: `texts`, `chosen`, `repeats`, `budget_usd`, `grader`."""
        self.outcome = PromptOutcome()
        """Its page below the player."""
        self._statistics = ipywidgets.HTML()
        self._statistics.add_class("rtnb").add_class("rtnb-prompt-lab")
        super().__init__([self.form, self.outcome, self._statistics])
        self.form.observe(lambda _: self._describe(), ["texts", "chosen", "repeats", "budget_usd"])
        for part in (self.form, self.outcome):
            part.on_msg(self._on_message)
        self._describe()

    @property
    def variants(self) -> dict[str, dict[str, Any]]:
        """The two variants as they stand on the page: name -> settings."""
        rows = zip(self.form.names, self._settings, self.form.texts, strict=True)
        return {name: {**settings, "instructions": text} for name, settings, text in rows}

    @property
    def code(self) -> str:
        """Python that does what `run` does."""
        return str(self.outcome.code)

    async def run(self) -> Result:
        """Run all chosen cases under both variants, as the button does.

        Raises
        ------
        WidgetError
            It runs already.
        CaseError, ConnectError
            As of `rtnb.experiment`; the page shows them, too.
        """
        return await asyncio.wrap_future(self._start())

    def stop(self) -> None:
        """Stop; completed runs are kept, and the same settings go on from there."""
        if self._future is not None:
            self._future.cancel()

    def close(self) -> None:
        """Stop, and leave the page; closing twice is fine."""
        self.stop()
        self._close_player()
        close_all(self.form, self.outcome, self._statistics)
        super().close()

    def __repr__(self) -> str:
        return "<PromptLab>"

    # --- runs ---------------------------------------------------------------------------------------------------------

    def _start(self) -> Future[Result]:
        if self._future is not None and not self._future.done():
            raise WidgetError("it runs already; stop it first")
        self.form.set_trait("state", "running")
        self._future = shared_loop().submit(self._run())
        return self._future

    async def _run(self) -> Result:
        form, folder = self.form, self._run_folder()
        form.cells, form.opened, form.problem, form.status = [], {}, "", "Opening sessions…"
        self._statistics.value, self.outcome.has_result, self.outcome.pair = "", False, {}
        self._close_player()
        try:
            await experiment(
                self._target, [self._cases[name] for name in form.chosen], self.variants, repeats=form.repeats,
                graders=self._graders, budget=Budget(usd=form.budget_usd) if form.budget_usd else None, folder=folder,
                on_run=self._on_run, progress=False, **self._options,
            )  # fmt: skip
        except Exception as error:
            form.problem = format_error(error)
            raise
        finally:
            if (folder / "experiment.json").exists():
                self._show(Result(folder))
            form.set_trait("state", "ready")
        assert self.result is not None
        return self.result

    def _run_folder(self) -> Path:
        """Return the folder of what is chosen: the same choice goes on where it stopped."""
        form = self.form
        return self._folder / f"{crc32(repr([form.names, form.texts, form.chosen]).encode()):08x}"

    def _on_run(self, run: Run) -> None:
        form = self.form
        cell = {"case": run.case.id, "variant": run.variant, "repeat": run.repeat, "error": run.error}
        form.cells = [*form.cells, {**cell, "grades": dict(run.grades)}]
        form.status = f"{len(form.cells)} of {2 * len(form.chosen) * form.repeats} runs"

    def _show(self, result: Result) -> None:
        self.result = result
        self.form.status = result.line
        self._statistics.value, self.outcome.has_result = result._repr_html_(), True
        try:
            self._pairs = BlindPairs(result, *self.form.names)
        except CaseError:  # typed answers, or none of both: there is nothing to hear
            self._pairs = None
        self._show_pair()

    # --- the page -----------------------------------------------------------------------------------------------------

    def _on_message(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        kind = content.get("kind")
        try:
            if kind == "run":
                self._start()
            elif kind == "stop":
                self.stop()
            elif kind == "open":
                self.show_run(content["case"], content["variant"], content["repeat"])
            elif kind == "sound" and self._pairs is not None and (pair := self._pairs.next):
                self.outcome.send({"kind": "sound", "side": content["side"]}, [to_wav(pair[content["side"]])])
            elif kind == "vote" and self._pairs is not None:
                self._pairs.vote(content["better"])
                self._show_pair()
            elif kind == "page" and self.result is not None:
                self.outcome.send({"kind": "page", "html": self.result.to_html()})
        except RtnbError as error:
            self.form.problem = format_error(error)

    def show_run(self, case: str, variant: str, repeat: int) -> None:
        """Show a run below the grid: its sound, transcript and findings, and the reasons of its grades.

        Raises
        ------
        CaseError
            There is no such run.
        """
        wanted = (case, variant, repeat)
        runs = [] if self.result is None else self.result.runs
        run = next((run for run in runs if (run.case.id, run.variant, run.repeat) == wanted), None)
        if run is None:
            raise CaseError(f"there is no run of case {case!r}, variant {variant!r}, repeat {repeat}")
        reasons = [f"{name}: {evidence}" for name, evidence in run.evidence.items() if evidence]
        self._close_player()
        if run.trace_file:
            self._player = TracePlayer(run.trace)
            self.children = [self.form, self._player, self.outcome, self._statistics]
        lines = [*([f"Failed: {run.error}"] if run.error else []), *reasons]
        self.form.opened = {"case": case, "variant": variant, "repeat": repeat, "lines": lines}

    def _close_player(self) -> None:
        if self._player is not None:
            self._player.close()
            self._player.trace.close()
            self._player = None
            self.children = [self.form, self.outcome, self._statistics]

    def _show_pair(self) -> None:
        pairs = self._pairs
        if pairs is not None:
            waiting = 0 if pairs.next is None else len(pairs.pairs) - len(pairs.votes)
            self.outcome.pair = {"waiting": waiting, "n": len(pairs.pairs), "preference": str(pairs.preference)}

    def _describe(self) -> None:
        """Show what the second instructions change, and the code."""
        form = self.form
        old, new = (re.findall(r"\S+\s*", text) for text in form.texts)
        changes: list[list[str]] = []
        for kind, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            parts = [("same", old[i:j])] if kind == "equal" else [("removed", old[i:j]), ("added", new[k:m])]
            changes += [[name, "".join(words)] for name, words in parts if words]
        form.changes = changes
        target = repr(self._target) if isinstance(self._target, str) else "target"
        source = self._source
        given = repr(str(source)) if isinstance(source, str | Path) else "[" + _lines(map(_source_of, source)) + "]"
        lines = ["import rtnb", "", f"cases = rtnb.cases({given})"]
        if len(form.chosen) < len(self._cases):
            lines.append(f"cases = [case for case in cases if case.id in {list(form.chosen)}]")
        lines.append(f"variants = {{{_lines(f'{name!r}: {_source_of(one)}' for name, one in self.variants.items())}}}")
        names = (f"rtnb.graders.{name}" if name.split("(")[0] in graders.READY else name for name in form.graders)
        options = {"repeats": form.repeats, "folder": str(self._run_folder()), **self._options}
        arguments = [target, "cases", "variants", *(f"{name}={value!r}" for name, value in options.items())]
        arguments.append(f"graders=[{', '.join(names)}]")
        if form.budget_usd:
            arguments.append(f"budget=rtnb.Budget(usd={form.budget_usd:g})")
        call = f"result = await rtnb.experiment({_lines(arguments)})"
        self.outcome.code = redact("\n".join([*lines, call, "result.comparisons"]))


def _lines(parts: Iterable[str]) -> str:
    """Return the parts of a bracket, one to a line."""
    return "\n" + "".join(f"    {part},\n" for part in parts)


def _source_of(value: Any) -> str:
    """Return a case or settings as Python, without keys."""
    if isinstance(value, Case):
        value = {name: one for name, one in vars(value).items() if one}
    if isinstance(value, Mapping) and isinstance(user := value.get("user"), tuple):
        value = {**value, "user": [{name: one for name, one in vars(turn).items() if one} for turn in user]}
    return pformat(without_keys(value), width=100, sort_dicts=False).replace("\n", "\n    ")


def _first_words(user: Any) -> str:
    """Return what the user of a case says first, for a list."""
    turn = user[0] if isinstance(user, tuple) else user
    return str(
        getattr(turn, "text", "") or getattr(turn, "say", "") or getattr(turn, "audio", "") or getattr(turn, "goal", "")
    )
