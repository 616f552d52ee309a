"""`rtnb doctor`: what is missing on this machine, and what to do about it.

Every check is a row: what was looked at, how it stands, what was found, what to do. A row that says ``do`` makes the
report (and the command) fail; one that says ``note`` names something optional. Settings are reported as set or missing:
no value is read into a row.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from typing import Any, Literal

from rtnb._loop import BackgroundLoop
from rtnb.errors import RtnbError
from rtnb.transport.credentials import redact
from rtnb.transport.services import AZURE_VARIABLES, Azure, OpenAI

SETTINGS = {
    "AZURE_OPENAI_ENDPOINT": "the address of your Azure resource, https://NAME.openai.azure.com",
    "AZURE_OPENAI_DEPLOYMENT_NAME": "the name you gave the realtime model when you deployed it",
    "AZURE_OPENAI_API_KEY": "a key of the resource; leave it out to sign in with Microsoft Entra ID (az login)",
    "OPENAI_API_VERSION": "only for the preview API of Azure, e.g. 2025-04-01-preview",
    "OPENAI_API_KEY": "a key of the OpenAI platform, if you use that instead of Azure",
}
"""The environment variables that are read, and what each is for."""

_AZURE = tuple(name for name in SETTINGS if name.startswith("AZURE_"))
_MINIMUM_PYTHON = (3, 11)
_PACKAGE = "rtnb"
_PIP = "python -m pip"
_LONGEST_ANSWER = 300  # characters shown of an unexpected first event; chosen

Standing = Literal["ok", "note", "do"]


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the report."""

    what: str
    """What was looked at."""
    standing: Standing
    """``ok``; ``note``: optional; ``do``: something must be done."""
    found: str
    """How it is; never the value of a setting."""
    advice: str = ""
    """What to do."""


@dataclass(frozen=True, slots=True)
class Report:
    """What `doctor` found: prints as a table, shows as one in a notebook."""

    checks: tuple[Check, ...]
    """All rows, in the order they were looked at."""

    @property
    def ok(self) -> bool:
        """Whether nothing must be done."""
        return all(check.standing != "do" for check in self.checks)

    @property
    def verdict(self) -> str:
        """The report in one sentence."""
        missing = sum(check.standing == "do" for check in self.checks)
        return "All is well." if not missing else f"{missing} thing{'s' * (missing > 1)} to do."

    def __str__(self) -> str:
        rows = [(check.standing, check.what, check.found) for check in self.checks]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        lines = []
        for check, (standing, what, found) in zip(self.checks, rows, strict=True):
            lines.append(f"{standing:<{widths[0]}}  {what:<{widths[1]}}  {found}")
            if check.advice:
                lines.append(f"{'':<{sum(widths) + 2}}  → {check.advice}")
        return "\n".join([*lines, "", self.verdict])

    def __repr__(self) -> str:
        return f"<doctor: {self.verdict}>"

    def _repr_html_(self) -> str:
        """What is not well, each with its remedy; what is well is folded away."""
        open_, well = ([one for one in self.checks if (one.standing == "ok") is good] for good in (False, True))
        open_.sort(key=lambda one: one.standing != "do")
        table = _html_table(open_) if open_ else ""
        folded = f"<details><summary>{len(well)} things are well</summary>{_html_table(well)}</details>" if well else ""
        return f"<p><strong>{escape(self.verdict)}</strong></p>{table}{folded}"


_MARKS = {"ok": ("✓ ok", "success"), "note": ("– note", "warn"), "do": ("✗ do", "error")}


def _html_table(checks: Iterable[Check]) -> str:
    """Rows for a notebook: there packages are installed with ``%pip``, into the Python that runs the cell."""
    left = "style='text-align:left; vertical-align:top'"
    head = "".join(f"<th {left}>{title}</th>" for title in ("standing", "what", "found", "to do"))
    rows = []
    for check in checks:
        mark, colour = _MARKS[check.standing]
        advice = check.advice
        if advice.startswith(_PIP):
            advice = f"%pip{advice.removeprefix(_PIP)}   (in a cell, then restart the kernel)"
        standing = f"<td {left}><span style='color:var(--jp-{colour}-color1); white-space:nowrap'>{mark}</span></td>"
        cells = "".join(f"<td {left}>{escape(text)}</td>" for text in (check.what, check.found, advice))
        rows.append(f"<tr>{standing}{cells}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def doctor(*, service: bool = True, timeout_s: float = 15.0) -> Report:
    """Look at Python, packages, kernel, voice and settings, and say what to do about each.

    Parameters
    ----------
    service : bool, default True
        Connect to the service if one is set up; it costs nothing but a connection.
    timeout_s : float, default 15
        How long to wait for the service, in seconds (chosen).

    Returns
    -------
    Report
        ``report.ok`` says whether all is well; ``print(report)`` gives the table.
    """
    settings = _settings()
    checks = [_python(), *_packages(), *_kernel(), *_voice(), _microphone(), *_environment(settings)]
    if service:
        checks.append(_service(settings, timeout_s=timeout_s))
    return Report(tuple(checks))


def _python() -> Check:
    found = f"{sys.version.split()[0]} in {sys.prefix}"
    if sys.version_info < _MINIMUM_PYTHON:  # reachable only where an installer ignored requires-python
        return Check("Python", "do", found, "Install Python 3.11 or newer and make a new virtual environment.")
    return Check("Python", "ok", found)


def _packages() -> Iterator[Check]:
    """Each required package, its version against the one this installation of rtnb asks for."""
    try:
        lines = requires(_PACKAGE) or []
    except PackageNotFoundError:
        yield Check(_PACKAGE, "do", "imported from a folder, not installed", "python -m pip install --editable .")
        return
    from packaging.requirements import Requirement

    yield Check(_PACKAGE, "ok", version(_PACKAGE))
    for requirement in map(Requirement, lines):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        wanted = str(requirement.specifier)
        advice = f'python -m pip install --upgrade "{requirement.name}{wanted}"'
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Check(requirement.name, "do", "missing", advice)
            continue
        if requirement.specifier.contains(found, prereleases=True):
            yield Check(requirement.name, "ok", found)
        else:
            yield Check(requirement.name, "do", f"{found}, needed: {wanted}", advice)


def _kernel() -> Iterator[Check]:
    """Does a notebook's `python3` kernel run in this environment?"""
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

        command = KernelSpecManager().get_kernel_spec("python3").argv
    except (ImportError, NoSuchKernel) as error:
        yield Check("kernel", "do", f"none ({error})", "python -m pip install --upgrade ipykernel")
        return
    # A bare `python` stands for the interpreter that starts the kernel (jupyter_client replaces it).
    same = command[0] in ("python", "python3") or os.path.realpath(command[0]) == os.path.realpath(sys.executable)
    if same:
        yield Check("kernel", "ok", "python3 runs in this environment")
    else:
        advice = "Start with `rtnb lab`, which uses this environment, or: python -m ipykernel install --sys-prefix"
        yield Check("kernel", "note", f"python3 is another Python: {command[0]}", advice)


def _voice() -> Iterator[Check]:
    """Can the simulator speak intelligibly, and over WebRTC?"""
    advice = f'python -m pip install "{_PACKAGE}[sim]"'
    on_path = shutil.which("espeak-ng") or shutil.which("espeak")
    if find_spec("espeakng_loader"):
        yield Check("audio worker", "ok", f"espeakng-loader {version('espeakng-loader')}")
    elif on_path:
        yield Check("audio worker", "ok", on_path)
    else:
        yield Check("audio worker", "note", "no espeak: the simulator babbles instead of speaking", advice)
    if find_spec("aiortc"):
        yield Check("WebRTC", "ok", f"aiortc {version('aiortc')}")
    else:
        yield Check("WebRTC", "note", "no aiortc: the simulator serves WebSockets only", advice)


def _microphone() -> Check:
    """Can a notebook's page here have a microphone?"""
    if "VSCODE_PID" in os.environ:  # set for the kernels VS Code starts, not in its terminal
        advice = "rtnb.Microphone shows a link to a capture page on this machine, or takes a file; or use `rtnb lab`."
        return Check("microphone", "note", "VS Code gives notebook pages no microphone", advice)
    if "COLAB_RELEASE_TAG" in os.environ:
        advice = "Try rtnb.Microphone(); where the page may not listen, it takes a file instead."
        return Check("microphone", "note", "Colab: the page may refuse, and this machine is not yours", advice)
    return Check("microphone", "ok", "browsers allow it on https and localhost pages (`rtnb lab` serves localhost)")


def _settings() -> dict[str, str]:
    """Where each setting comes from, by name; those that are missing or empty are left out. No values."""
    try:
        from dotenv import dotenv_values, find_dotenv

        path = find_dotenv(usecwd=True)
        in_file: Mapping[str, str | None] = dotenv_values(path) if path else {}
    except ImportError:
        in_file = {}  # the row of python-dotenv says what to do
    found = {}
    for name in SETTINGS:
        for spelling in _spellings(name):
            told = "" if spelling == name else f" as {spelling}"
            if os.environ.get(spelling):
                found[name] = f"set{told}"
                break
            if in_file.get(spelling):
                found[name] = f"set in .env{told}"
                break
    return found


def _spellings(name: str) -> tuple[str, ...]:
    """The setting's name and the older ones that `Azure.from_env` also reads."""
    return next((names for names in AZURE_VARIABLES.values() if names[0] == name), (name,))


def _environment(settings: Mapping[str, str]) -> Iterator[Check]:
    missing = _missing_for_azure() if any(name in settings for name in _AZURE) else ""
    for name, purpose in SETTINGS.items():
        if name in settings:
            yield Check(name, "ok", settings[name])
        elif name in missing:
            yield Check(name, "do", "missing", f"Set it to {purpose}.")
        else:
            yield Check(name, "note", "missing (the simulator needs none)", f"For a service: {purpose}.")


def _missing_for_azure() -> str:
    """The message that names what `Azure.from_env` misses; empty if nothing."""
    try:
        Azure.from_env()
    except RtnbError as error:
        return str(error)
    return ""


def _service(settings: Mapping[str, str], *, timeout_s: float) -> Check:
    """Connect to the service that is set up, and wait for its first event."""
    azure = any(name in settings for name in _AZURE)
    if not azure and "OPENAI_API_KEY" not in settings:
        return Check("service", "note", "none is set up", 'Without one, rtnb.connect("sim") talks to the simulator.')
    try:
        target = Azure.from_env() if azure else OpenAI()
        with BackgroundLoop() as loop:  # a notebook's own loop is busy with the cell that asks
            first = loop.run(_first_event(target), timeout_s)
    except (RtnbError, TimeoutError, ImportError) as error:
        notes = " ".join(getattr(error, "__notes__", ())) or "Look at the network, the address and the deployment."
        return Check("service", "do", f"{type(error).__name__}: {redact(str(error))}", redact(notes))
    if first.get("type") != "session.created":
        found = redact(json.dumps(first)[:_LONGEST_ANSWER])
        return Check("service", "do", f"{target}: answered {found}", "Look up the code in the service's documentation.")
    return Check("service", "ok", f"{target}: opened a session")


async def _first_event(target: Azure | OpenAI) -> dict[str, Any]:
    transport = await target.open()
    try:
        event = json.loads(await transport.receive())
        return event if isinstance(event, dict) else {}
    finally:
        await transport.close()
