"""The running settings as code: `rtnb`, the `openai` package, JavaScript, curl; and the widget that shows it.

Keys are never in it: it reads them from the environment.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pprint import pformat
from typing import Any, Final

from traitlets import Enum, Unicode

from rtnb.errors import ConnectError
from rtnb.protocol import wire
from rtnb.redaction import mask_credentials
from rtnb.transport import TargetFacts
from rtnb.transport.endpoint import read_endpoint
from rtnb.widgets._base import Widget, bundle, format_error, styles
from rtnb.widgets._steering import Settings, nested

_SHORT: Final = {
    "audio.output.voice": "voice",
    "audio.output.speed": "speed",
    "audio.input.noise_reduction": "noise_reduction",
}
_CLASSES = {"server_vad": "rtnb.ServerVad", "semantic_vad": "rtnb.SemanticVad"}


def code(language: str, settings: Settings, facts: TargetFacts) -> str:
    """Write a program that opens a session with these settings.

    Parameters
    ----------
    language : str
        One of `LANGUAGES`.
    settings : dict
        By their place in the GA session object.
    facts : TargetFacts
        Where to.
    """
    return LANGUAGES[language](mask_credentials(settings), facts)


def _rtnb(settings: Settings, facts: TargetFacts) -> str:
    lines = ["import rtnb", "", "async with rtnb.connect(", f"    {_target(facts)},"]
    lines += [f"    {name}={_indented(value)}," for name, value in _keywords(settings).items()]
    lines += [
        ") as session:",
        '    response = await session.ask("Hello!")',
        "    print(response.transcript or response.text)",
    ]
    return "\n".join(lines)


def _target(facts: TargetFacts) -> str:
    dialect = ', dialect="preview"' if facts.dialect == "preview" else ""
    if facts.service == "simulator":
        return f"rtnb.Simulator({dialect[2:]})" if dialect else '"sim"'
    if facts.service == "openai":
        return f"rtnb.OpenAI({facts.model!r})"
    where = read_endpoint(facts.service, facts.url, dialect=facts.dialect, model=facts.model)
    if facts.service == "azure":
        return f"rtnb.Azure.from_env(endpoint={where.origin!r}, deployment={facts.model!r}{dialect})"
    return f"rtnb.Custom({facts.url!r}{dialect})"


def _keywords(settings: Settings) -> dict[str, str]:
    """The settings by the names that `rtnb.connect` takes, as Python source."""
    words: dict[str, str] = {}
    tables: dict[str, dict[str, Any]] = {}
    for place, value in settings.items():
        branch, _, name = place.rpartition(".")
        if place in _SHORT or not branch:
            words[_SHORT.get(place, place)] = pformat(value, width=90, sort_dicts=False)
        elif value is None and name in ("turn_detection", "transcription"):
            words[name] = "None"
        else:
            tables.setdefault(branch.rpartition(".")[2], {})[name] = value
    for branch, table in tables.items():
        cls = _CLASSES.get(table.get("type", "server_vad")) if branch == "turn_detection" else None
        if cls:
            words[branch] = (
                f"{cls}({', '.join(f'{name}={value!r}' for name, value in table.items() if name != 'type')})"
            )
        else:
            cls = "rtnb.protocol.values.Transcription" if branch == "transcription" else "dict"
            words[branch] = f"{cls}({', '.join(f'{name}={value!r}' for name, value in table.items())})"
    return words


def _openai(settings: Settings, facts: TargetFacts) -> str:
    if facts.dialect == "preview":
        return "# The openai package speaks only today's dialect (GA): connect with dialect='ga' to get this code."
    where = read_endpoint(facts.service, facts.url, model=facts.model)
    base = where.websocket().partition("?")[0].removesuffix("/realtime")
    session = {"type": "realtime", **nested(settings)}
    return "\n".join(
        [
            "import os",
            "from openai import AsyncOpenAI",
            "",
            "client = AsyncOpenAI(",
            f'    api_key=os.environ.get({_variable(facts)!r}, "none"),',
            f"    websocket_base_url={base!r},",
            ")",
            f"session = {pformat(session, width=100, sort_dicts=False)}",
            f"async with client.realtime.connect(model={facts.model or 'gpt-realtime'!r}) as connection:",
            "    await connection.session.update(session=session)",
            '    content = [{"type": "input_text", "text": "Hello!"}]',
            '    item = {"type": "message", "role": "user", "content": content}',
            "    await connection.conversation.item.create(item=item)",
            "    await connection.response.create()",
            "    async for event in connection:",
            "        print(event.type)",
            '        if event.type in ("response.done", "error"):',
            "            break",
        ]
    )


def _javascript(settings: Settings, facts: TargetFacts) -> str:
    where = read_endpoint(facts.service, facts.url, dialect=facts.dialect, model=facts.model)
    update = {"type": "session.update", "session": _session(settings, facts)}
    header = "api-key" if facts.service == "azure" else "Authorization"
    key = f"process.env.{_variable(facts)}"
    value = key if facts.service == "azure" else f"`Bearer ${{{key}}}`"
    return "\n".join(
        [
            "// npm install ws   (save as talk.mjs, run: node talk.mjs)",
            'import WebSocket from "ws";',
            "",
            f"const headers = {{ {json.dumps(header)}: {value} }};",
            f"const socket = new WebSocket({json.dumps(where.websocket())}, {{ headers }});",
            f"const update = {json.dumps(update, indent=2, ensure_ascii=False)};",
            'socket.on("open", () => socket.send(JSON.stringify(update)));',
            'socket.on("error", (error) => console.error(error.message));',
            'socket.on("message", (text) => {',
            "  const event = JSON.parse(text);",
            "  console.log(event.type);",
            '  if (event.type === "session.updated") socket.send(JSON.stringify({ type: "response.create" }));',
            '  if (["response.done", "error"].includes(event.type)) socket.close();',
            "});",
        ]
    )


def _curl(settings: Settings, facts: TargetFacts) -> str:
    where = read_endpoint(facts.service, facts.url, dialect=facts.dialect, model=facts.model)
    session = {**_session(settings, facts), "model": facts.model or "gpt-realtime"}
    body = session if facts.dialect == "preview" else {"session": session}
    variable = f"${_variable(facts)}"
    header = f"api-key: {variable}" if facts.service == "azure" else f"Authorization: Bearer {variable}"
    return "\n".join(
        [
            "# An ephemeral key for a browser; sessions opened with it start with these settings.",
            f'curl -sS "{where.ephemeral_keys()}" \\',
            f'  -H "{header}" -H "Content-Type: application/json" \\',
            "  --data-binary @- <<'JSON'",
            json.dumps(body, indent=2, ensure_ascii=False),
            "JSON",
        ]
    )


def _session(settings: Settings, facts: TargetFacts) -> dict[str, Any]:
    """The session object in the dialect that is spoken there."""
    config = wire.decode_session(nested(settings))
    return wire.encode_session(config, dialect=facts.dialect)


def _variable(facts: TargetFacts) -> str:
    return {"azure": "AZURE_OPENAI_API_KEY", "openai": "OPENAI_API_KEY"}.get(facts.service, "API_KEY")


def _indented(source: str) -> str:
    return source.replace("\n", "\n        ")


LANGUAGES: Final[dict[str, Callable[[Settings, TargetFacts], str]]] = {
    "rtnb": _rtnb,
    "openai (Python)": _openai,
    "JavaScript": _javascript,
    "curl": _curl,
}
"""Who writes each language."""


class CodeExport(Widget):
    """The running settings as code, to be copied.

    Traits: `language` (both ways), `code` (kernel to page). No messages.
    """

    _esm = bundle("code_export.js")
    _css = styles("code_export.css")

    language = Enum(list(LANGUAGES), "rtnb", help="Which language is shown.").tag(sync=True)
    code = Unicode("Connect first.", help="The program.").tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        self._settings: Settings = {}
        self._facts: TargetFacts | None = None
        super().__init__(**traits)
        self.observe(lambda change: self._write(), "language")

    def show(self, settings: Settings, facts: TargetFacts) -> None:
        """Show these settings."""
        self._settings, self._facts = settings, facts
        self._write()

    def _write(self) -> None:
        if self._facts is not None:
            try:
                self.code = code(self.language, self._settings, self._facts)
            except ConnectError as error:
                self.code = f"There is no code for this target: {format_error(error)}"
