"""Checks of this installation and its settings, for `rtnb doctor`.

Each check gives a row: subject, standing, finding, advice. A row with standing ``do`` makes the report and the command
fail; ``note`` marks an optional part. Settings are reported as set or missing: no row holds the value of a setting.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Literal

from rtnb._loop import BackgroundLoop
from rtnb.errors import RtnbError
from rtnb.redaction import redact
from rtnb.simulator.parts import available_parts
from rtnb.targets import connect
from rtnb.transport.services import AZURE_VARIABLES, Azure, OpenAI, variables

SETTINGS = {
    "AZURE_OPENAI_ENDPOINT": "the address of your Azure resource, https://NAME.openai.azure.com",
    "AZURE_OPENAI_DEPLOYMENT_NAME": "the name you gave the realtime model when you deployed it",
    "AZURE_OPENAI_API_KEY": "a key of the resource; leave it out to sign in with Microsoft Entra ID (az login)",
    "OPENAI_API_VERSION": "only for the preview API of Azure, e.g. 2025-04-01-preview",
    "OPENAI_API_KEY": "a key of the OpenAI platform, if you use that instead of Azure",
}
"""Environment variables that rtnb reads, and the purpose of each."""

_PIP = "python -m pip"
_NAME_ALONE = re.compile(r"(https?://)?(?!localhost\b)[\w-]+/?")
_FAULT = ", but to a name without a domain"


@dataclass(frozen=True, slots=True)
class Check:
    """Row of the report."""

    what: str
    """Subject of the check."""
    standing: Literal["ok", "note", "do"]
    """``ok``; ``note``: optional; ``do``: an action is needed."""
    found: str
    """Finding; never the value of a setting."""
    advice: str = ""
    """Next step."""


@dataclass(frozen=True, slots=True)
class Report:
    """Result of `doctor`: a table when printed, and an HTML table in a notebook."""

    checks: tuple[Check, ...]
    """All rows, in the order of the checks."""

    @property
    def ok(self) -> bool:
        """True if no action is needed."""
        return all(check.standing != "do" for check in self.checks)

    @property
    def summary(self) -> str:
        """The report in one sentence."""
        missing = sum(check.standing == "do" for check in self.checks)
        return "All is well." if not missing else f"{missing} thing{'s' * (missing > 1)} to do."

    def __str__(self) -> str:
        first, second = (max(len(getattr(check, name)) for check in self.checks) for name in ("standing", "what"))
        lines = []
        for check in self.checks:
            lines.append(f"{check.standing:<{first}}  {check.what:<{second}}  {check.found}")
            if check.advice:
                lines.append(f"{'':<{first + second + 2}}  → {check.advice}")
        return "\n".join([*lines, "", self.summary])

    def __repr__(self) -> str:
        return f"<doctor: {self.summary}>"

    def _repr_html_(self) -> str:
        """Return the open rows, actions first; rows without advice are folded away."""
        well = [check for check in self.checks if check.standing == "ok"]
        open_ = sorted((check for check in self.checks if check.standing != "ok"), key=lambda one: one.standing)
        folded = f"<details><summary>{len(well)} things are well</summary>{_html_table(well)}</details>" if well else ""
        return f"<p><strong>{escape(self.summary)}</strong></p>{_html_table(open_) if open_ else ''}{folded}"


_MARKS = {"ok": ("✓ ok", "success"), "note": ("– note", "warn"), "do": ("✗ do", "error")}


def _html_table(checks: Iterable[Check]) -> str:
    left = "style='text-align:left; vertical-align:top'"
    rows = "".join(f"<th {left}>{title}</th>" for title in ("standing", "what", "found", "to do"))
    for check in checks:
        mark, colour = _MARKS[check.standing]
        # In a notebook, %pip installs into the Python that runs the cell.
        advice = re.sub(f"^{_PIP}(.*)", r"%pip\1   (in a cell, then restart the kernel)", check.advice)
        standing = f"<td {left}><span style='color:var(--jp-{colour}-color1); white-space:nowrap'>{mark}</span></td>"
        cells = "".join(f"<td {left}>{escape(text)}</td>" for text in (check.what, check.found, advice))
        rows += f"</tr><tr>{standing}{cells}"
    return f"<table><tr>{rows}</tr></table>"


def doctor(*, service: bool = True, timeout_s: float = 15.0) -> Report:
    """Check Python, packages, kernel, voice and settings, with advice for each.

    Parameters
    ----------
    service : bool, default True
        Connect to the service if one is configured; it costs nothing but a connection.
    timeout_s : float, default 15
        Longest wait for the service, in seconds (chosen).

    Returns
    -------
    Report
        ``report.ok`` is True if no action is needed; ``print(report)`` shows the table.

    Examples
    --------
    >>> report = doctor(service=False)
    >>> report.checks[0].what
    'Python'
    """
    settings = _settings()
    python = Check("Python", "ok", f"{sys.version.split()[0]} in {sys.prefix}")
    rows = (python, *_packages(), _kernel(), *_extras(), _microphone(), *_environment(settings))
    return Report((*rows, _service(settings, timeout_s=timeout_s)) if service else rows)


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _packages() -> Iterator[Check]:
    """Compare each required package with the version that this installation of rtnb requires."""
    if not (own := _installed("rtnb")):
        yield Check("rtnb", "do", "imported from a folder, not installed", f"{_PIP} install --editable .")
        return
    yield Check("rtnb", "ok", own)
    from packaging.requirements import Requirement

    for need in map(Requirement, requires("rtnb") or []):
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        found, wanted = _installed(need.name), need.specifier
        advice = f'{_PIP} install --upgrade "{need.name}{wanted}"'
        row = Check(need.name, "do", f"{found or 'missing'}, needed: {wanted}", advice)
        yield Check(need.name, "ok", found) if found and wanted.contains(found, prereleases=True) else row


def _kernel() -> Check:
    """Check that a notebook's `python3` kernel runs in this environment."""
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

        command = KernelSpecManager().get_kernel_spec("python3").argv
    except (ImportError, NoSuchKernel) as error:
        return Check("kernel", "do", f"none ({error})", f"{_PIP} install --upgrade ipykernel")
    # jupyter_client replaces a bare `python` by the interpreter that starts the kernel.
    if command[0] in ("python", "python3") or os.path.realpath(command[0]) == os.path.realpath(sys.executable):
        return Check("kernel", "ok", "python3 runs in this environment")
    advice = "Start with `rtnb lab`, which uses this environment, or: python -m ipykernel install --sys-prefix"
    return Check("kernel", "note", f"python3 is another Python: {command[0]}", advice)


def _extras() -> Iterator[Check]:
    """List the optional parts of the simulator."""
    for part in available_parts():
        advice = f'{_PIP} install "{part.package}"{part.otherwise}'
        yield Check(part.name, "ok", part.found) if part.found else Check(part.name, "note", part.lack, advice)


def _microphone() -> Check:
    """Check whether a notebook page of this kernel can have a microphone."""
    if "VSCODE_PID" in os.environ:  # set for the kernels VS Code starts, not in its terminal
        advice = "Speak from a file: rtnb.Microphone(source=path) or session.say(path); or use `rtnb lab`."
        return Check("microphone", "note", "VS Code gives notebook pages no microphone", advice)
    if "COLAB_RELEASE_TAG" in os.environ:
        advice = "Try rtnb.Microphone(); if the page may not record, it takes a file instead."
        return Check("microphone", "note", "Colab: the page may refuse, and this machine is not yours", advice)
    return Check("microphone", "ok", "browsers allow it on https and localhost pages (`rtnb lab` serves localhost)")


def _settings() -> dict[str, str]:
    """Return the source of each setting by name; missing and empty ones are left out. No values."""
    # Without python-dotenv its own row gives the advice.
    values = variables() if _installed("python-dotenv") else os.environ
    found: dict[str, str] = {}
    older = {names[0]: names for names in AZURE_VARIABLES.values()}
    for name in SETTINGS:
        for spelling in older.get(name, (name,)):  # the name, then older ones that `Azure.from_env` also reads
            if value := values.get(spelling):
                source = "set" if os.environ.get(spelling) else "set in .env"
                fault = _FAULT if name.endswith("ENDPOINT") and _NAME_ALONE.fullmatch(value.strip()) else ""
                found.setdefault(name, source + (f" as {spelling}" if spelling != name else "") + fault)
    return found


def _environment(settings: Mapping[str, str]) -> Iterator[Check]:
    missing = ""
    if any(name.startswith("AZURE_") for name in settings):
        try:
            Azure.from_env()
        except RtnbError as error:
            missing = str(error)  # names the missing settings
    for name, purpose in SETTINGS.items():
        found = settings.get(name, "missing")
        if _FAULT in found or (name not in settings and name in missing):
            yield Check(name, "do", found, f"Set it to {purpose}.")
        elif name in settings:
            yield Check(name, "ok", found)
        else:
            yield Check(name, "note", "missing (the simulator needs none)", f"For a service: {purpose}.")


def _service(settings: Mapping[str, str], *, timeout_s: float) -> Check:
    """Open a session with the configured service, and close it."""
    azure = any(name.startswith("AZURE_") for name in settings)
    if not azure and "OPENAI_API_KEY" not in settings:
        return Check("service", "note", "none is configured", 'rtnb.connect("sim") opens a session with the simulator.')
    if any(_FAULT in found for found in settings.values()):
        return Check("service", "do", "not tried: the endpoint is no address", "Correct AZURE_OPENAI_ENDPOINT first.")
    try:
        target = Azure.from_env() if azure else OpenAI()
        with BackgroundLoop() as loop:  # the cell that calls blocks the notebook's own loop
            loop.run(_open(target, timeout_s))
    except (RtnbError, ImportError) as error:
        notes = " ".join(getattr(error, "__notes__", ())) or "Check the network, the address and the deployment."
        return Check("service", "do", f"{type(error).__name__}: {redact(str(error))}", redact(notes))
    return Check("service", "ok", f"{target}: opened a session")


async def _open(target: Azure | OpenAI, timeout_s: float) -> None:
    await (await connect(target, timeout_s=timeout_s)).close()
