"""Secrets are hidden where something is shown or written, and nowhere else; what cannot be shown is replaced."""

import base64
import gc
import json
import random
import time
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

import rtnb
from rtnb.errors import ServiceError
from tests.client.peer import Message, Peer, failure
from tests.client.virtual import outcome, said, settle, talk, talking, virtual

REPLY = "Hello there."
KEY = "sk-abcdefgh12345678ijklmnop"
WORDS = "hunter2-hunter2"
"""A key that has no shape of one."""
SECRET = "canary7"
"""A value that is a secret only by the name of its field."""
AUTHORIZATION = "mcp-5f0c2b71d9e84a3c"
HEADER = "gateway-77aa3e90c1d2"
MCP = {
    "type": "mcp",
    "server_label": "docs",
    "server_url": "https://docs.example/mcp",
    "authorization": f"Bearer {AUTHORIZATION}",
    "headers": {"x-gateway": HEADER},
}
FUNCTION = {
    "type": "function",
    "name": "token",
    "description": "Return a token.",
    "parameters": {"type": "object", "properties": {"token": {"type": "string"}}, "required": ["token"]},
}


def shown(session: rtnb.Session, response: rtnb.Response | None, *files: Path) -> dict[str, str]:
    """Return every text about a session that a person can see, by its source; the first file is written here."""
    session.log.save(files[0])
    parts = {"session": session, "state": session.state, "response": response}
    texts = {name: f"{part!r} {part!s} {getattr(part, '__dict__', '')!r}" for name, part in parts.items()}
    texts |= {str(path): path.read_text(encoding="utf-8") for path in files}
    texts["html"] = session._repr_html_() + session.log._repr_html_()
    texts["log"] = repr(list(session.log)) + repr(session.log) + session.log.to_frame().to_string()
    texts["events"] = repr([row.event for row in session.log])
    texts["faults"] = repr(session.errors) + repr(session.problems)
    texts["settings"] = repr(session.config) + repr(session.state.session) + repr(session.state.snapshot())
    if response is not None:
        texts["answer"] = repr(response.config) + repr(response.deltas) + response._repr_html_()
    return texts


def leaks(texts: dict[str, str], *secrets: str) -> list[str]:
    """Return the sources that show a secret."""
    return [name for name, text in texts.items() if any(secret in text for secret in secrets)]


# --- what is not a secret stays as it came ----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"api_key": key} for key in ("1", "4", "test", "resp", "item")], ids=str)
@talking()
async def test_a_short_key_does_not_destroy_the_conversation(peer: Peer, session: rtnb.Session, options: Any) -> None:
    assert session.id == peer.session["id"]
    config = await outcome(session.update(instructions="A test: 1 item, 4 responses."))
    assert config.instructions == "A test: 1 item, 4 responses."
    for _ in range(2):
        response = await outcome(session.ask("1 test, 4 items?", metadata={"test": "1 resp 4"}))
        assert getattr(response, "transcript", response) == REPLY
        assert response.metadata == {"test": "1 resp 4"}
        assert [item.id for item in response.items] == [list(peer.items)[-1]]
        assert response.items[0].content[0].transcript == REPLY
    assert [item.id for item in session.conversation.items] == list(peer.items)
    assert response.id in session.state.responses


@talking()
async def test_metadata_named_token_and_ids_that_look_like_keys_survive(peer: Peer, session: rtnb.Session) -> None:
    response = await outcome(session.ask("Hello?", metadata={"token": "blue", "api_key": "none"}))
    assert response.metadata == {"token": "blue", "api_key": "none"}
    (done,) = session.log.filter("response.done")
    assert "blue" in repr(done.event), "shown as it came, too"
    item_id = "0123456789abcdef0123456789abcdef"
    made = await session.conversation.item.create({"id": item_id, "role": "user", "content": []})
    assert made.id == session.log.filter("conversation.item.create")[-1].event.item.id == item_id


@pytest.mark.parametrize(
    "old, new", [(FUNCTION, {**FUNCTION, "name": "headers"}), (MCP, FUNCTION)], ids=["named token", "with a credential"]
)
@talking()
async def test_a_tool_can_be_sent_again_from_the_effective_settings(
    peer: Peer, session: rtnb.Session, old: Message, new: Message
) -> None:
    await session.update(tools=[old])
    assert session.config.tools == (old,)
    await session.update(tools=(*session.config.tools, new))
    assert peer.session["tools"] == [old, new]
    assert session.config.tools == session.state.session.tools == (old, new)


# --- what is a secret is hidden ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["settings", "response"])
@virtual
async def test_the_authorization_of_an_mcp_tool_is_hidden_wherever_it_is_shown(where: str, tmp_path: Path) -> None:
    followed, settings = tmp_path / "followed.jsonl", {"tools": [MCP]}
    async with talk(log_path=followed) as (peer, session):
        await session.update(**(settings if where == "settings" else {"instructions": "Be brief."}))
        response = await outcome(session.ask("Hello?", **(settings if where == "response" else {})))
        assert AUTHORIZATION in json.dumps(peer.heard), "the service gets the credential itself"
        assert leaks(shown(session, response, tmp_path / "saved.jsonl", followed), AUTHORIZATION, HEADER) == []


@pytest.mark.parametrize(
    "message",
    [
        {"type": "error", "error": {"type": "x", "message": f"Incorrect API key provided: {KEY}."}},
        {"type": "error", "error": {"type": "x", "message": f"wrong: {WORDS}"}},
        {"type": "error", "error": {"type": "x", "message": "no", "apikey": SECRET}},
        {"type": "brand.new", "api_key": SECRET},
        {"type": "brand.new", "connection": [{"headers": {"Api-Key": SECRET}}]},
        {"type": "brand.new", "authorization": f"Bearer {SECRET}", "message": f"key {KEY}"},
        {"type": "session.updated", "session": {"client_secret": {"value": f"ek_{SECRET}", "expires_at": 1}}},
        {"type": "session.updated", "session": {"instructions": f"The key is {WORDS}."}},
        f"oops {KEY}",
    ],
    ids=str,
)
@talking(both=True, api_key=WORDS)
async def test_a_secret_that_a_service_sends_is_shown_nowhere(
    peer: Peer, session: rtnb.Session, message: Any, tmp_path: Path
) -> None:
    await (peer.write(message) if isinstance(message, str) else peer.send(message))
    await settle()
    texts = shown(session, None, tmp_path / "saved.jsonl")
    assert leaks(texts, KEY, WORDS, SECRET) == []
    assert "****" in texts[str(tmp_path / "saved.jsonl")]


@talking(refuse={"session.update": [failure("invalid_value", f"{KEY} may not do this.")]})
async def test_a_key_that_a_service_repeats_in_a_refusal_is_hidden(
    peer: Peer, session: rtnb.Session, tmp_path: Path
) -> None:
    error = await outcome(session.update(voice="x"))
    assert isinstance(error, ServiceError)
    texts = {"error": f"{error!r} {error} {error.__dict__}", **shown(session, None, tmp_path / "saved.jsonl")}
    assert leaks(texts, KEY) == []


@virtual
async def test_a_key_that_a_tool_returns_or_the_model_says_leaves_the_log_masked(tmp_path: Path) -> None:
    key = "Zq9rT7wLk2mX8vBn4cJd"
    opened = tmp_path / "opened.jsonl"

    def environment() -> str:
        """Return the environment."""
        return f"API_KEY={key}"

    outputs = [[("environment", "{}")], [f"It is {key}."]]
    async with talk(outputs=outputs, api_key=key, log_path=opened, tools=[environment]) as (_, session):
        response = await session.ask("Which key do you use?")
        session.log.save(tmp_path / "saved.jsonl")
        texts = [repr(row) for row in session.log] + [repr(response), repr(response.deltas), session.log._repr_html_()]
        texts += [session.log.to_frame().to_string(), *(path.read_text() for path in tmp_path.iterdir())]
        assert [text for text in texts if key in text] == []
        assert f"API_KEY={key}" in session.conversation.items[-2].output  # it came as it is
        assert key in response.transcript


@talking(api_key=KEY)
async def test_no_repr_of_a_part_of_a_session_shows_the_key(peer: Peer, session: rtnb.Session) -> None:
    await outcome(session.ask("Hello?"))
    parts, waiting = {id(session): session}, [session]
    while waiting:
        for part in gc.get_referents(waiting.pop()):
            if id(part) not in parts and not isinstance(part, type | ModuleType | FunctionType):
                parts[id(part)] = part
                waiting.append(part)
    ours = [part for part in parts.values() if type(part).__module__.startswith("rtnb.")]
    ours = [part for part in ours if not isinstance(part, ClientConnection)]  # the library keeps its request
    assert len(ours) > 20
    leaking = [part for part in ours if KEY in repr(part) + repr(getattr(part, "__dict__", ""))]
    assert {type(part).__qualname__ for part in leaking} == set()


@pytest.mark.parametrize("size", [16_000, 32_000])
@talking(outputs=[[("fail", "{}")]])
async def test_base64_in_the_exception_of_a_tool_does_not_stop_the_loop(
    peer: Peer, session: rtnb.Session, size: int
) -> None:
    encoded = base64.urlsafe_b64encode(random.Random(0).randbytes(size * 3 // 4)).decode()

    def fail() -> str:
        """Fail."""
        raise ValueError(encoded)

    await session.tools.register(fail)
    start_s = time.perf_counter()
    assert await said(session.ask("Hello?")) == REPLY
    assert time.perf_counter() - start_s < 1
    (output,) = [one["item"]["output"] for one in peer.heard if one.get("item", {}).get("output")]
    assert output.startswith("error: ValueError: ")


# --- what cannot be shown as it is ------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["audio", "text"])
@virtual
async def test_a_lone_surrogate_can_be_printed_shown_and_saved(modality: str, tmp_path: Path) -> None:
    saved, followed = tmp_path / "saved.jsonl", tmp_path / "followed.jsonl"
    async with talk(outputs=[("Hello ", "\ud800", " there.")], log_path=followed) as (peer, session):
        response = await outcome(session.ask("Hello?", output_modalities=[modality]))
        words = response.text if modality == "text" else response.transcript
        assert words.startswith("Hello ")
        assert words.endswith(" there.")
        assert "\ufffd" in words or "\\ud800" in words, "the replacement can be seen"
        item = response.items[0].content[0]
        pieces = [delta.text for delta in response.deltas]
        for text in (*shown(session, response, saved, followed).values(), words, item.text or item.transcript, *pieces):
            text.encode("utf-8")
        assert len(rtnb.EventLog.load(saved)) == len(session.log)
        peer.refuse = {"session.update": [failure("invalid_value", "No \udfff.", param="session.audio.output.voice")]}
        error = await outcome(session.update(voice="x"))
        assert b"No" in f"{error} {error!r}".encode()
