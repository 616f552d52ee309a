"""Secrets are hidden where something is shown or written, and nowhere else; what cannot be shown is replaced."""

import asyncio
import base64
import gc
import json
import random
import time
from dataclasses import replace
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

import rtnb
from rtnb.client import open_session
from rtnb.errors import ServiceError
from rtnb.protocol import events, wire
from rtnb.protocol.events import SERVER_EVENTS, UnknownEvent
from rtnb.protocol.values import ErrorDetail
from rtnb.redaction import remember
from tests.client.conftest import Joined
from tests.client.peer import Peer, failure
from tests.client.service import ScriptedTarget
from tests.client.virtual import hold, outcome, said, talking

REPLY = "Hello there."
KEY = "sk-abcdefgh12345678ijklmnop"
NO_SHAPE = "canary7"
CANARY = "sk-canary0123456789abcdef"
AUTHORIZATION = "Bearer mcp-5f0c2b71d9e84a3c"
HEADER = "gateway-77aa3e90c1d2"
MCP = {
    "type": "mcp",
    "server_label": "docs",
    "server_url": "https://docs.example/mcp",
    "authorization": AUTHORIZATION,
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


# --- what is not a secret stays as it came ----------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["1", "4", "test", "resp", "item"])
def test_a_short_key_does_not_destroy_the_conversation(key: str) -> None:
    async def test(peer: Peer, session: rtnb.Session) -> None:
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

    hold(test, Peer(), api_key=key)


@talking()
async def test_a_tool_and_a_metadata_entry_named_token_survive(peer: Peer, session: rtnb.Session) -> None:
    await session.update(tools=[FUNCTION])
    assert session.config.tools == (FUNCTION,)
    response = await outcome(session.ask("Hello?", metadata={"token": "blue", "api_key": "none"}))
    assert response.metadata == {"token": "blue", "api_key": "none"}
    (done,) = session.log.filter("response.done")
    assert "blue" in repr(done.event), "shown as it came, too"


@pytest.mark.parametrize(
    "old, new", [(FUNCTION, {**FUNCTION, "name": "headers"}), (MCP, FUNCTION)], ids=["named token", "with a credential"]
)
@talking()
async def test_a_tool_can_be_sent_again_from_the_effective_settings(
    peer: Peer, session: rtnb.Session, old: dict[str, Any], new: dict[str, Any]
) -> None:
    await session.update(tools=[old])
    assert session.config.tools == (old,)
    await session.update(tools=(*session.config.tools, new))
    assert peer.session["tools"] == [old, new]
    assert session.config.tools == session.state.session.tools == (old, new)


async def test_ids_and_schemas_that_look_like_keys_stay(joined: Joined) -> None:
    item_id = "0123456789abcdef0123456789abcdef"
    made = await joined.session.conversation.item.create({"id": item_id, "role": "user", "content": []})
    assert made.id == item_id
    with pytest.raises(ServiceError):
        await joined.session.conversation.item.delete("item_" + "a" * 27)
    assert joined.session.log.filter("conversation.item.create")[0].event.item.id == item_id  # type: ignore[attr-defined]


# --- what is a secret is hidden ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["settings", "response"])
def test_the_authorization_of_an_mcp_tool_is_hidden_wherever_it_is_shown(where: str, tmp_path: Path) -> None:
    followed = tmp_path / "followed.jsonl"

    async def test(peer: Peer, session: rtnb.Session) -> None:
        settings = {"tools": [MCP]}
        await session.update(**(settings if where == "settings" else {"instructions": "Be brief."}))
        response = await outcome(session.ask("Hello?", **(settings if where == "response" else {})))
        assert AUTHORIZATION in json.dumps(peer.heard), "the service gets the credential itself"
        texts = shown(session, response, tmp_path / "saved.jsonl", followed)
        assert [name for name, text in texts.items() if AUTHORIZATION.split()[1] in text or HEADER in text] == []

    hold(test, Peer(), log_path=followed)


def test_a_key_that_a_service_repeats_in_an_error_is_hidden(tmp_path: Path) -> None:
    async def test(peer: Peer, session: rtnb.Session) -> None:
        error = await outcome(session.update(voice="x"))
        assert KEY not in f"{error!r} {error} {error.__dict__}"
        assert [name for name, text in shown(session, None, tmp_path / "saved.jsonl").items() if KEY in text] == []

    refusal = failure("invalid_value", f"The key {KEY} may not do this.", param="session.audio.output.voice")
    hold(test, Peer(refuse={"session.update": [refusal]}), api_key=KEY)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "brand.new", "api_key": NO_SHAPE},
        {"type": "brand.new", "connection": [{"headers": {"Api-Key": NO_SHAPE}}]},
        {"type": "error", "error": {"type": "x", "message": "no", "apikey": NO_SHAPE}},
    ],
    ids=["unknown event", "inside of it", "unknown field of an error"],
)
def test_a_field_that_is_named_like_a_key_is_hidden(message: dict[str, Any], tmp_path: Path) -> None:
    log = rtnb.EventLog()
    log.record("received", wire.decode(message, registry=SERVER_EVENTS))
    log.save(tmp_path / "saved.jsonl")
    texts = [(tmp_path / "saved.jsonl").read_text(), repr(log[0]), log._repr_html_(), log.to_frame().to_string()]
    assert [text for text in texts if NO_SHAPE in text] == []
    assert '"****"' in texts[0]


def test_a_key_that_a_tool_returns_or_the_model_says_leaves_the_log_masked(tmp_path: Path) -> None:
    key = "Zq9rT7wLk2mX8vBn4cJd"
    opened, saved = tmp_path / "opened.jsonl", tmp_path / "saved.jsonl"

    def environment() -> str:
        """Return the environment."""
        return f"API_KEY={key}"

    async def test(peer: Peer, session: rtnb.Session) -> None:
        await session.tools.register(environment)
        response = await session.ask("Which key do you use?")
        session.log.save(saved)
        texts = [repr(row) for row in session.log] + [repr(response), repr(response.deltas), session.log._repr_html_()]
        texts += [session.log.to_frame().to_string(), opened.read_text(), saved.read_text()]
        assert [text for text in texts if key in text] == []
        assert f"API_KEY={key}" in session.conversation.items[-2].output  # it came as it is
        assert key in response.transcript

    hold(test, Peer(outputs=[[("environment", "{}")], [f"It is {key}."]]), api_key=key, log_path=opened)


def test_no_repr_of_a_part_of_a_session_shows_the_key() -> None:
    async def test(peer: Peer, session: rtnb.Session) -> None:
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
        leaks = [part for part in ours if KEY in repr(part) + repr(getattr(part, "__dict__", ""))]
        assert {type(part).__qualname__ for part in leaks} == set()

    hold(test, Peer(), api_key=KEY)


async def test_no_secret_that_a_service_sends_gets_anywhere(joined: Joined, tmp_path: Path) -> None:
    session, service = joined.session, joined.service
    iterated: list[Any] = []

    async def follow() -> None:
        iterated.extend([event async for event in session])

    following = asyncio.create_task(follow())
    await joined.settle()
    # The service echoes a key, a preview service hands out an ephemeral one, unknown events and broken texts hold one.
    await service.say(events.Error(error=ErrorDetail(message=f"Incorrect API key provided: {CANARY}.")))
    secret = {"client_secret": {"value": "ek_canary", "expires_at": 1}}
    await service.say(events.SessionUpdated(session=replace(session.config, extra=secret)))
    unknown = {"type": "brand.new", "authorization": "Bearer canary1", "message": f"key {CANARY}"}
    await service.say_raw(json.dumps(unknown))
    await service.say_raw(f"oops {CANARY}")
    await joined.settle()
    if session.dialect == "ga":  # we hand a key to a tool server, and it is kept when another tool follows
        tool = {"type": "mcp", "server_label": "s", "server_url": "https://x", "authorization": "canary-of-mcp"}
        for new in (tool, {"type": "function", "name": "f", "parameters": {}}):
            await session.tools.register(new)
            assert service.said(events.SessionUpdate)[-1].session.tools[0]["authorization"] == "canary-of-mcp"
    service.refuse = lambda event: ErrorDetail(message=f"bad key {CANARY}") if event.type == "session.update" else None
    with pytest.raises(ServiceError) as caught:
        await session.update(instructions="new")
    service.refuse = lambda event: None
    await session.close()
    await following
    texts = {"error": str(caught.value), "iterated": repr(iterated), **shown(session, None, tmp_path / "log.jsonl")}
    assert [name for name, text in texts.items() if "canary" in text] == []
    assert any(isinstance(event, UnknownEvent) for event in iterated)


async def test_known_secrets_are_taken_out_wherever_they_stand() -> None:
    """Keys in use are remembered; then even one that looks like a word is found."""
    target = ScriptedTarget()
    running = asyncio.create_task(target.service.run())
    remember(["hunter2-hunter2"])
    await target.service.open(instructions="The key is hunter2-hunter2.")
    async with await open_session(target) as session:
        await target.service.say(events.Error(error=ErrorDetail(message="wrong: hunter2-hunter2")))
        await asyncio.sleep(0)
        await session.update(voice="ash")
        assert "hunter2" not in repr(list(session.log)) + repr(session.errors) + repr(session.config)
    await running


@pytest.mark.parametrize("size", [16_000, 32_000])
def test_base64_in_the_exception_of_a_tool_does_not_stop_the_loop(size: int) -> None:
    encoded = base64.urlsafe_b64encode(random.Random(0).randbytes(size * 3 // 4)).decode()

    def fail() -> str:
        """Fail."""
        raise ValueError(encoded)

    async def test(peer: Peer, session: rtnb.Session) -> None:
        start_s = time.perf_counter()
        assert await said(session.ask("Hello?")) == REPLY
        assert time.perf_counter() - start_s < 1
        (output,) = [one["item"]["output"] for one in peer.heard if one.get("item", {}).get("output")]
        assert output.startswith("error: ValueError: ")

    hold(test, Peer(outputs=[[("fail", "{}")]]), tools=[fail])


# --- what cannot be shown as it is ------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_a_lone_surrogate_can_be_printed_shown_and_saved(modality: str, tmp_path: Path) -> None:
    saved, followed = tmp_path / "saved.jsonl", tmp_path / "followed.jsonl"

    async def test(peer: Peer, session: rtnb.Session) -> None:
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

    hold(test, Peer(outputs=[("Hello ", "\ud800", " there.")]), log_path=followed)


@talking()
async def test_a_lone_surrogate_in_an_error_can_be_printed(peer: Peer, session: rtnb.Session) -> None:
    peer.refuse = {"session.update": [failure("invalid_value", "No \udfff.", param="session.audio.output.voice")]}
    error = await outcome(session.update(voice="x"))
    assert b"No" in f"{error} {error!r}".encode()
