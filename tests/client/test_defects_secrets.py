"""Secrets are hidden where something is shown or written, and nowhere else; what cannot be shown is replaced."""

import base64
import gc
import json
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection

import rtnb
from rtnb.errors import AudioError
from tests.client.peer import Peer, failure
from tests.client.virtual import hold, outcome, talking

REPLY = "Hello there."
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

Test = Callable[[Peer, rtnb.Session], Awaitable[None]]


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
    new = {**FUNCTION, "name": "headers"}
    await session.update(tools=(*session.config.tools, new))
    assert peer.session["tools"] == [FUNCTION, new]
    assert session.config.tools == (FUNCTION, new)
    (done,) = session.log.filter("response.done")
    assert "blue" in repr(done.event), "shown as it came, too"


@talking()
async def test_a_tool_with_a_credential_can_be_sent_again_from_the_effective_settings(
    peer: Peer, session: rtnb.Session
) -> None:
    await session.update(tools=[MCP])
    assert session.config.tools == (MCP,)
    await session.update(tools=(*session.config.tools, FUNCTION))
    assert peer.session["tools"] == [MCP, FUNCTION]
    assert session.state.session.tools == (MCP, FUNCTION)


# --- what is a secret is hidden ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["settings", "response"])
def test_the_authorization_of_an_mcp_tool_is_hidden_wherever_it_is_shown(where: str, tmp_path: Path) -> None:
    shown: dict[str, str] = {}

    async def test(peer: Peer, session: rtnb.Session) -> None:
        settings = {"tools": [MCP]}
        await session.update(**(settings if where == "settings" else {"instructions": "Be brief."}))
        response = await outcome(session.ask("Hello?", **(settings if where == "response" else {})))
        assert AUTHORIZATION in json.dumps(peer.heard), "the service gets the credential itself"
        session.log.save(tmp_path / "saved.jsonl")
        shown.update(
            session=repr(session.state.session) + str(session.state.session),
            config=repr(session.config),
            state=repr(session.state) + repr(vars(session.state)),
            snapshot=repr(session.state.snapshot()),
            response=repr(response) + repr(vars(response)),
            response_config=repr(response.config),
            saved=(tmp_path / "saved.jsonl").read_text(),
            followed=(tmp_path / "followed.jsonl").read_text(),
            frame=session.log.to_frame().to_string(),
            rows=repr(list(session.log)) + repr(session.log),
            html=session.log._repr_html_() + session._repr_html_() + response._repr_html_(),
            repr=repr(session) + repr(vars(session)),
        )

    hold(test, Peer(), log_path=tmp_path / "followed.jsonl")
    leaks = [name for name, text in shown.items() if AUTHORIZATION.split()[1] in text or HEADER in text]
    assert leaks == []


def test_a_key_that_a_service_repeats_in_an_error_is_hidden() -> None:
    key = "sk-abcdefgh12345678ijklmnop"

    async def test(peer: Peer, session: rtnb.Session) -> None:
        error = await outcome(session.update(voice="x"))
        assert key not in f"{error!r} {error} {error.__dict__}"
        assert key not in repr(list(session.log)) + session.log.to_frame().to_string()
        assert key not in repr(session.errors)

    refusal = failure("invalid_value", f"The key {key} may not do this.", param="session.audio.output.voice")
    hold(test, Peer(refuse={"session.update": [refusal]}), api_key=key)


def test_a_key_that_a_tool_returns_or_the_model_says_leaves_the_log_masked(tmp_path: Path) -> None:
    key = "Zq9rT7wLk2mX8vBn4cJd"
    opened, saved = tmp_path / "opened.jsonl", tmp_path / "saved.jsonl"

    async def test(peer: Peer, session: rtnb.Session) -> None:
        await session.tools.register(environment)
        response = await session.ask("Which key do you use?")
        session.log.save(saved)
        shown = [repr(row) for row in session.log] + [repr(response), repr(response.deltas), session.log._repr_html_()]
        shown += [session.log.to_frame().to_string(), opened.read_text(), saved.read_text()]
        assert [text for text in shown if key in text] == []
        assert f"API_KEY={key}" in session.conversation.items[-2].output  # it came as it is
        assert key in response.transcript

    def environment() -> str:
        """Return the environment."""
        return f"API_KEY={key}"

    hold(test, Peer(outputs=[[("environment", "{}")], [f"It is {key}."]]), api_key=key, log_path=opened)


def test_no_repr_of_a_part_of_a_session_shows_the_key() -> None:
    key = "sk-abcdefgh12345678ijklmnop"

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
        assert {
            type(part).__qualname__ for part in ours if key in repr(part) + repr(getattr(part, "__dict__", ""))
        } == set()

    hold(test, Peer(), api_key=key)


@pytest.mark.parametrize("size", [16_000, 32_000])
def test_base64_in_the_exception_of_a_tool_does_not_stop_the_loop(size: int) -> None:
    encoded = base64.urlsafe_b64encode(random.Random(0).randbytes(size * 3 // 4)).decode()

    def fail() -> str:
        """Fail."""
        raise ValueError(encoded)

    async def test(peer: Peer, session: rtnb.Session) -> None:
        start_s = time.perf_counter()
        response = await outcome(session.ask("Hello?"))
        assert getattr(response, "transcript", response) == REPLY
        assert time.perf_counter() - start_s < 1
        (output,) = [one["item"]["output"] for one in peer.heard if one.get("item", {}).get("output")]
        assert output.startswith("error: ValueError: ")

    hold(test, Peer(outputs=[[("fail", "{}")]]), tools=[fail])


# --- what cannot be shown as it is ------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_a_lone_surrogate_can_be_printed_shown_and_saved(modality: str, tmp_path: Path) -> None:
    async def test(peer: Peer, session: rtnb.Session) -> None:
        response = await outcome(session.ask("Hello?", output_modalities=[modality]))
        said = response.text if modality == "text" else response.transcript
        assert said.startswith("Hello ")
        assert said.endswith(" there.")
        assert "\ufffd" in said or "\\ud800" in said, "the replacement can be seen"
        session.log.save(tmp_path / "saved.jsonl")
        loaded = rtnb.EventLog.load(tmp_path / "saved.jsonl")
        assert len(loaded) == len(session.log)
        item = response.items[0].content[0]
        texts = (
            said,
            repr(response),
            response._repr_html_(),
            repr([delta.text for delta in response.deltas]),
            "".join(delta.text for delta in response.deltas),
            item.text or item.transcript or "",
            session.log.to_frame().to_string(),
            session.log._repr_html_(),
            (tmp_path / "followed.jsonl").read_text(encoding="utf-8"),
        )
        for text in texts:
            text.encode("utf-8")

    peer = Peer(outputs=[("Hello ", "\ud800", " there.")])
    hold(test, peer, log_path=tmp_path / "followed.jsonl")


@talking()
async def test_a_lone_surrogate_in_an_error_can_be_printed(peer: Peer, session: rtnb.Session) -> None:
    refusal = failure("invalid_value", "No \udfff.", param="session.audio.output.voice")
    peer.refuse = {"session.update": [refusal]}
    error = await outcome(session.update(voice="x"))
    f"{error} {error!r}".encode()
    assert "No" in str(error)


# --- audio that cannot be understood ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
@talking()
async def test_an_array_without_a_rate_is_refused(peer: Peer, session: rtnb.Session, dtype: str) -> None:
    error = await outcome(session.say(np.zeros(24_000, dtype)))
    assert isinstance(error, AudioError), error
    assert "rate_hz" in " ".join([str(error), *error.__notes__])
    assert peer.heard == []
