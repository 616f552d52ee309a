"""Settings as code for `rtnb`, the `openai` package, JavaScript and curl, and the widgets that show it.

The code holds no key: it reads keys from the environment.
"""

from __future__ import annotations

import json
import re
from pprint import pformat
from textwrap import indent
from typing import Any, Final

import ipywidgets
from traitlets import Enum, Unicode, link

from rtnb.errors import ConnectError
from rtnb.protocol import wire
from rtnb.redaction import mask_credentials
from rtnb.transport import Endpoint, TargetFacts, read_endpoint
from rtnb.tuning.updates import Settings, nested
from rtnb.widgets._base import FOLDER, SafeRepr, format_error
from rtnb.widgets.settings import Look

LANGUAGES: Final = {
    "rtnb": "rtnb.py.txt",
    "openai (Python)": "openai.py.txt",
    "JavaScript": "websocket.mjs.txt",
    "curl": "curl.sh.txt",
}
"""Languages: name -> file of the program in ``programs``, with ``<names>`` in it."""
FORMS: Final = ("notebook", "script")
"""Forms of Python code: a cell, which may await at its top level, or a file for ``python``."""

_CLASSES: Final = {"server_vad": "rtnb.ServerVad", "semantic_vad": "rtnb.SemanticVad"}


def code(language: str, settings: Settings, facts: TargetFacts, form: str = "notebook") -> str:
    """Write a program that opens a session with these settings.

    Parameters
    ----------
    language : str
        One of `LANGUAGES`.
    settings : dict
        By path in the GA session object.
    facts : TargetFacts
        The target.
    form : {"notebook", "script"}, default "notebook"
        Form of Python code; the other languages have one.
    """
    if language == "openai (Python)" and facts.dialect == "preview":
        return "# The openai package speaks only the GA dialect: connect with dialect='ga' to get this code."
    values = _values(language, mask_credentials(settings), facts)
    text = (FOLDER / "programs" / LANGUAGES[language]).read_text(encoding="utf-8").rstrip("\n")
    text = re.sub("<([a-z_]+)>", lambda name: values[name[1]], text)
    if form == "script" and ".py" in LANGUAGES[language]:
        imports, _, body = text.partition("\n\n")
        text = f"import asyncio\n{imports}\n\n\nasync def main():\n{indent(body, '    ')}\n\n\nasyncio.run(main())"
    return text


def _values(language: str, settings: Settings, facts: TargetFacts) -> dict[str, str]:
    """Return the values of the ``<names>`` in a program."""
    if language == "rtnb":
        return {"arguments": _arguments(settings, facts)}
    endpoint, model = _endpoint(facts), facts.model or "gpt-realtime"
    variable = {"azure": "AZURE_OPENAI_API_KEY", "openai": "OPENAI_API_KEY"}.get(facts.service, "API_KEY")
    is_azure = facts.service == "azure"
    header = "api-key: $%s" if is_azure else "Authorization: Bearer $%s"
    script_header = '"api-key": process.env.%s' if is_azure else '"Authorization": `Bearer ${process.env.%s}`'
    session = wire.encode_session(wire.decode_session(nested(settings)), dialect=facts.dialect)
    body = {**session, "model": model}
    return {
        "variable": variable,
        "base_url": repr(endpoint.websocket().partition("?")[0].removesuffix("/realtime")),
        "session": pformat({"type": "realtime", **nested(settings)}, width=100, sort_dicts=False),
        "model": repr(model),
        "url": json.dumps(endpoint.websocket()),
        "headers": script_header % variable,
        "update": _json({"type": "session.update", "session": session}),
        "keys_url": endpoint.ephemeral_keys(),
        "header": header % variable,
        "body": _json(body if facts.dialect == "preview" else {"session": body}),
    }


def _arguments(settings: Settings, facts: TargetFacts) -> str:
    """Return the arguments of `rtnb.connect`, one per line."""
    session = nested(settings)
    audio = session.pop("audio", {})
    arguments = [_target(facts)]
    for name, value in {**session, **audio.get("input", {}), **audio.get("output", {})}.items():
        source = pformat(value, width=90, sort_dicts=False)
        kind = value.get("type", "server_vad") if name == "turn_detection" and value else None
        if kind in _CLASSES:
            source = f"{_CLASSES[kind]}({', '.join(f'{key}={v!r}' for key, v in value.items() if key != 'type')})"
        arguments.append(f"{name}={source}")
    return "\n    ".join(f"{argument},".replace("\n", "\n        ") for argument in arguments)


def _target(facts: TargetFacts) -> str:
    dialect = ', dialect="preview"' if facts.dialect == "preview" else ""
    if facts.service == "simulator":
        return f"rtnb.Simulator({dialect[2:]})" if dialect else '"sim"'
    if facts.service == "openai":
        return f"rtnb.OpenAI({facts.model!r})"
    if facts.service == "azure":
        return f"rtnb.Azure.from_env(endpoint={_endpoint(facts).origin!r}, deployment={facts.model!r}{dialect})"
    return f"rtnb.Custom({facts.url!r}{dialect})"


def _endpoint(facts: TargetFacts) -> Endpoint:
    return read_endpoint(facts.service, facts.url, dialect=facts.dialect, model=facts.model)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


class CodeExport(SafeRepr, ipywidgets.VBox):  # type: ignore[misc]
    """Settings in force as code, as a text to copy.

    Parameters
    ----------
    look : Look, optional
        Maker of its plain widgets; a panel has one for all its parts.
    """

    language = Enum(list(LANGUAGES), "rtnb", help="Language of the code.")
    form = Enum(FORMS, "notebook", help="Form of Python code.")
    code = Unicode("Connect first: the code shows the settings in force.", help="The program.")

    def __init__(self, look: Look | None = None) -> None:
        look = look or Look()
        self._shown: tuple[Settings, TargetFacts] | None = None
        language = look.make(ipywidgets.Dropdown, description="Language", options=[*LANGUAGES])
        form = look.make(ipywidgets.Dropdown, description="Form of Python", options=FORMS)
        text = look.make(ipywidgets.Textarea, placeholder="Code")
        super().__init__([language, form, text], layout=look.layout)
        self.add_class("rtnb-code")
        for name, widget in (("language", language), ("form", form), ("code", text)):
            link((self, name), (widget, "value"))
        self.observe(lambda _: self._write(), ["language", "form"])

    def show(self, settings: Settings, facts: TargetFacts) -> None:
        """Show these settings as code."""
        self._shown = settings, facts
        self._write()

    def _write(self) -> None:
        if self._shown is not None:
            try:
                self.code = code(self.language, *self._shown, self.form)
            except ConnectError as error:
                self.code = f"There is no code for this target: {format_error(error)}"
