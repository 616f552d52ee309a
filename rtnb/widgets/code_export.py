"""Settings as code for `rtnb`, the `openai` package, JavaScript and curl, and the widget that shows it.

The code holds no key: it reads keys from the environment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pprint import pformat
from textwrap import indent
from typing import Any, Final

from traitlets import Enum, Unicode

from rtnb.errors import ConnectError
from rtnb.protocol import wire
from rtnb.redaction import mask_credentials
from rtnb.transport import TargetFacts
from rtnb.transport.endpoint import Endpoint, read_endpoint
from rtnb.widgets._base import FOLDER, Widget, bundle, format_error, styles
from rtnb.widgets._settings_update import Settings, nested

LANGUAGES: Final = {
    "rtnb": "rtnb.py.txt",
    "openai (Python)": "openai.py.txt",
    "JavaScript": "websocket.mjs.txt",
    "curl": "curl.sh.txt",
}
"""Languages: name -> file of the program in ``programs``, with ``<names>`` of `VALUES` in it."""
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
    shown = mask_credentials(settings)
    text = (FOLDER / "programs" / LANGUAGES[language]).read_text(encoding="utf-8").rstrip("\n")
    text = re.sub("<([a-z_]+)>", lambda name: VALUES[name[1]](shown, facts), text)
    if form == "script" and ".py" in LANGUAGES[language]:
        imports, _, body = text.partition("\n\n")
        text = f"import asyncio\n{imports}\n\n\nasync def main():\n{indent(body, '    ')}\n\n\nasyncio.run(main())"
    return text


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


def _variable(facts: TargetFacts) -> str:
    return {"azure": "AZURE_OPENAI_API_KEY", "openai": "OPENAI_API_KEY"}.get(facts.service, "API_KEY")


def _header(facts: TargetFacts, *, azure: str, others: str) -> str:
    return (azure if facts.service == "azure" else others) % _variable(facts)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _session(settings: Settings, facts: TargetFacts) -> dict[str, Any]:
    """Return the session object in the target's dialect."""
    return wire.encode_session(wire.decode_session(nested(settings)), dialect=facts.dialect)


def _body(settings: Settings, facts: TargetFacts) -> dict[str, Any]:
    """Return the body of a request for an ephemeral key."""
    session = {**_session(settings, facts), "model": facts.model or "gpt-realtime"}
    return session if facts.dialect == "preview" else {"session": session}


VALUES: Final[dict[str, Callable[[Settings, TargetFacts], str]]] = {
    "arguments": _arguments,
    "variable": lambda settings, facts: _variable(facts),
    "base_url": lambda settings, facts: repr(_endpoint(facts).websocket().partition("?")[0].removesuffix("/realtime")),
    "session": lambda settings, facts: pformat({"type": "realtime", **nested(settings)}, width=100, sort_dicts=False),
    "model": lambda settings, facts: repr(facts.model or "gpt-realtime"),
    "url": lambda settings, facts: json.dumps(_endpoint(facts).websocket()),
    "headers": lambda settings, facts: _header(
        facts, azure='"api-key": process.env.%s', others='"Authorization": `Bearer ${process.env.%s}`'
    ),
    "update": lambda settings, facts: _json({"type": "session.update", "session": _session(settings, facts)}),
    "keys_url": lambda settings, facts: _endpoint(facts).ephemeral_keys(),
    "header": lambda settings, facts: _header(facts, azure="api-key: $%s", others="Authorization: Bearer $%s"),
    "body": lambda settings, facts: _json(_body(settings, facts)),
}
"""Values of the ``<names>`` in the programs."""


class CodeExport(Widget):
    """Settings in force as code, with a button that copies it.

    Traits: `language` and `form` (both ways), `code` (kernel to page). No messages.
    """

    _esm = bundle("code_export.js")
    _css = styles("code_export.css")

    language = Enum(list(LANGUAGES), "rtnb", help="Language of the code.").tag(sync=True)
    form = Enum(FORMS, "notebook", help="Form of Python code.").tag(sync=True)
    code = Unicode("Connect first: the code shows the settings in force.", help="The program.").tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        self._settings: Settings = {}
        self._facts: TargetFacts | None = None
        super().__init__(**traits)
        self.observe(lambda _: self._write(), ["language", "form"])

    def show(self, settings: Settings, facts: TargetFacts) -> None:
        """Show these settings as code."""
        self._settings, self._facts = settings, facts
        self._write()

    def _write(self) -> None:
        if self._facts is not None:
            try:
                self.code = code(self.language, self._settings, self._facts, self.form)
            except ConnectError as error:
                self.code = f"There is no code for this target: {format_error(error)}"
