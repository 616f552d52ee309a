"""A credential at every place where one can live reaches no trait, no page, no export and no copied text."""

import json
from pathlib import Path
from typing import Any

import ipywidgets
import pytest

import rtnb
from rtnb.protocol import events
from rtnb.transport import TargetFacts
from rtnb.tuning.updates import SettingStatus
from rtnb.widgets import EventInspector, Playground
from rtnb.widgets import _events as detail
from rtnb.widgets.code_export import LANGUAGES, code
from rtnb.widgets.panel import Preset
from rtnb.widgets.settings import format_status
from tests.client.peer import Peer, failure
from tests.widgets.page import Page, eventually

KEY = "c0ffee5ec2e7" * 3
AUTHORIZATION = "mcp-5f0c2b71d9e84a3c"
HEADER = "gateway-77aa3e90c1d2"
CLIENT_SECRET = "ek_1b2c3d4e5f60718293a4"
CREDENTIALS = (KEY, AUTHORIZATION, HEADER, CLIENT_SECRET)

MCP = {
    "type": "mcp",
    "server_label": "docs",
    "server_url": "https://docs.example/mcp",
    "authorization": f"Bearer {AUTHORIZATION}",
    "headers": {"x-gateway": HEADER},
}


def leaks(places: dict[str, str]) -> list[str]:
    """The places that show a credential."""
    return [name for name, text in places.items() if any(credential in text for credential in CREDENTIALS)]


def saved() -> str:
    """The state of all widgets of this process, as a notebook saves it."""
    widgets = ipywidgets.widgets.widget._instances.values()
    return json.dumps([[repr(widget), widget.get_state()] for widget in widgets], default=str)


async def provoke(peer: Peer, session: rtnb.Session) -> None:
    """Bring credentials into the log in every way that a session and a service can."""
    await session.update(tools=[{**MCP, "server_label": "more"}])
    await session.response.create(tools=[MCP], output_modalities=["text"])
    await session.send_raw({"type": "session.update", "session": {"type": "realtime", "tools": [MCP]}})
    preview = {"client_secret": {"value": CLIENT_SECRET, "expires_at": 1}, "tools": [MCP]}
    await peer.send(
        failure("invalid_api_key", f"Incorrect API key provided: {KEY}.", param=KEY),
        {"type": "session.updated", "session": {**peer.session, **preview}},
        {"type": "odd.event", "note": KEY, "session": preview},
    )
    assert peer._socket is not None
    await peer._socket.send(f'{{"type": "error", "error": {{"message": "Incorrect API key provided: {KEY}')
    await eventually(lambda: session.log.filter("unreadable"))


async def test_a_playground_shows_no_credential_and_keeps_it_usable(page: Page) -> None:
    async with Peer() as peer:
        playground = Playground(rtnb.Custom(peer.url, api_key=KEY), tools=[MCP])
        assert (await playground.ask("Hello!")).transcript
        session, inspector = playground.session, playground.inspector
        name = inspector.stream_name
        views = (playground.connection, playground.message_bar, playground.waveform, playground.transcript)
        await page.join(name, *(view.stream_name for view in views))
        await provoke(peer, session)
        await playground.apply()

        assert AUTHORIZATION in json.dumps(list(session.config.tools)), "the session acts on the credential itself"
        sent: Any = session.log.filter("session.update")[0].event
        assert AUTHORIZATION in repr([dict(tool) for tool in sent.session.tools])

        await page.ask(name, "from", start=0)
        await eventually(lambda: len(inspector._rows) == len(session.log))
        for credential in CREDENTIALS:
            assert (await page.ask(name, "search", terms=[credential], start=0)).header["hits"] == []
        shown = {"export": json.dumps((await page.ask(name, "export", start=0)).header)}
        for index, row in enumerate(session.log):
            shown[f"event {index}, {row.type}"] = json.dumps((await page.ask(name, "event", index=index)).header)
            shown[f"text {index}, {row.type}"] = json.dumps((await page.ask(name, "text", index=index)).header)
        shown["static table"] = json.dumps(inspector._static())
        shown["saved widgets"] = saved()
        shown["page"] = "\n".join(f"{one.kind} {one.header} {list(map(bytes, one.buffers))}" for one in page.by_message)
        shown |= {
            language: code(language, playground.panel.settings(), playground._target.facts) for language in LANGUAGES
        }
        assert '"authorization": "****"' in json.loads(shown["text 1, session.update"])["text"]
        assert leaks(shown) == []
        playground.disconnect()
        await eventually(lambda: session.closed)  # `close` would block the loop that the peer runs on


async def test_a_typed_key_opens_the_session_and_is_nowhere_to_be_read() -> None:
    with rtnb.Simulator(latency="fast", voice="babble", key=KEY) as simulator:
        playground = Playground(rtnb.Custom(simulator.url.replace("http", "ws")))
        playground.connection._handle_custom_msg({"kind": "key", "key": f" {KEY}\n"}, [])
        log = playground.session.log.to_frame().to_csv()
        parts = "".join(map(repr, vars(playground).values()))
        assert leaks({"saved": saved(), "parts": parts, "log": log}) == []
        playground.close()


def test_a_list_of_events_shows_no_credential() -> None:
    update = {"type": "session.update", "session": {"type": "realtime", "tools": [MCP]}}
    odd = events.UnknownEvent(type="odd", payload={}, problem=f"not read: Bearer {AUTHORIZATION}")
    inspector = EventInspector([update, odd])
    inspector._rows.read(10)
    panes = [detail.detail(inspector._rows, index, index) for index in (0, 1)]
    assert panes[1]["meaning"] == "not read: Bearer ****"
    rows = str(inspector._rows.pack(0, 2))
    assert leaks({"panes": str(panes), "table": str(inspector._static()), "rows": rows, "saved": saved()}) == []


def test_a_preset_with_tools_is_kept_compared_and_shared_without_their_keys(tmp_path: Path) -> None:
    preset, bare = Preset("with tools", {"tools": [MCP]}), Preset("bare", {})
    path = preset.save(tmp_path)
    text = json.dumps({"rtnb_preset": 1, "name": "pasted", "session": {"tools": [MCP]}})
    shown = {
        "repr": repr(preset),
        "text": preset.to_json(),
        "file": path.read_text(encoding="utf-8"),
        "table": preset.diff(bare).to_csv(),
        "pasted": Preset.from_json(text).to_json(),
    }
    assert leaks(shown) == []
    assert "docs.example" in shown["file"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_exported_code_holds_no_credential(language: str) -> None:
    facts = TargetFacts(service="openai", url="wss://api.openai.com/v1/realtime", model="gpt-realtime")
    written = code(language, {"tools": [MCP], "audio.output.voice": "cedar"}, facts)
    assert "docs.example" in written
    assert leaks({language: written}) == []


def test_the_status_of_a_setting_shows_no_credential() -> None:
    changed = SettingStatus("tools", [MCP], [MCP], "changed")
    refused = SettingStatus("tools", [MCP], None, "refused", f"not allowed: Bearer {AUTHORIZATION}")
    shown = {one.status: format_status(one) for one in (changed, refused)}
    assert "docs.example" in shown["changed"]
    assert leaks(shown) == []
