"""No text makes a `Connection` raise anything but its documented errors: both roles, both dialects, every state."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtnb.errors import LocalProtocolError, RemoteProtocolError
from rtnb.protocol import Connection, ContentPart, Dialect, events, wire
from rtnb.protocol.connection import Role
from rtnb.protocol.events import Event
from rtnb.protocol.preview import GA_ONLY_EVENTS
from rtnb.protocol.service.replies import answer
from tests.protocol.goldens import ALL, is_client
from tests.protocol.pair import Ids, service
from tests.protocol.strategies import damaged, json_values

SIDES: list[tuple[Role, Dialect]] = [(role, dialect) for role in ("client", "server") for dialect in ("ga", "preview")]  # type: ignore[misc,attr-defined]


def _side(role: Role, dialect: Dialect) -> Connection:
    """Return a side in the middle of a session: all its golden events were received already."""
    if role == "server":
        return service(dialect)
    side = Connection("client", dialect=dialect)
    for used, message in ALL:
        if used == dialect and not is_client(message):
            side.receive(json.dumps(message))
    return side


def receive(side: Connection, text: str | bytes) -> Event | None:
    """Pass a text to a side as its transport would; return the event, None for a refusal."""
    before = side.state.snapshot()
    try:
        event = side.receive(text)
    except RemoteProtocolError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert str(refusal).encode()
        assert side.state.snapshot() == before  # what is refused changes nothing
        if side.role == "server":
            assert isinstance(refusal.answer, events.Error)
            assert len(side.send(refusal.answer)) < 5000
        return None
    if side.role == "server":
        for reply in answer(side.state, event, make_id=Ids(), dialect=side.dialect):
            side.send(reply)
    assert (repr(event) + repr(side.state.snapshot())).encode()
    assert all(entry.audio_ms >= 0 for entry in side.state.entries.values())
    assert wire.encode(event, dialect="ga" if event.type in GA_ONLY_EVENTS else side.dialect)
    return event


@pytest.mark.parametrize("role, dialect", SIDES)
@given(text=st.text() | st.binary() | json_values.map(json.dumps))
def test_any_text(role: Role, dialect: Dialect, text: str | bytes) -> None:
    receive(_side(role, dialect), text)


@pytest.mark.parametrize("role, dialect", SIDES)
@given(data=st.data())
def test_damaged_events(role: Role, dialect: Dialect, data: st.DataObject) -> None:
    side = _side(role, dialect)
    for _ in range(3):
        receive(side, json.dumps(data.draw(damaged(client=role == "server"))))


_DEEP = 100_000
_HOSTILE = {
    "deep list": "[" * _DEEP + "]" * _DEEP,
    "deep object": '{"a":' * _DEEP + "1" + "}" * _DEEP,
    "deep field": '{"type":"session.update","session":' + "[" * _DEEP + "]" * _DEEP + "}",
    "NaN": '{"type":"session.update","session":{"type":"realtime","audio":{"output":{"speed":NaN}}}}',
    "Infinity": '{"type":"response.done","response":{"id":"r","metadata":{"a":-Infinity}}}',
    "infinite number": '{"type":"response.create","response":{"metadata":{"a":1e999}}}',
    "endless integer": f'{{"type":"conversation.item.truncate","item_id":"i","audio_end_ms":{"9" * 5000}}}',
    "two values": "{}{}",
    "byte order mark": '\ufeff{"type":"input_audio_buffer.clear"}',
    "nothing": "",
    "NUL": "\x00",
}


@pytest.mark.parametrize("role, dialect", SIDES)
@pytest.mark.parametrize("text", _HOSTILE.values(), ids=_HOSTILE)
def test_hostile_text_is_refused(role: Role, dialect: Dialect, text: str) -> None:
    assert receive(_side(role, dialect), text) is None


_HALF = "\\ud83d"  # half of a surrogate pair
_IDS = '"response_id":"r","item_id":"i","output_index":0'
_SESSION = '{"type":"session.update","session":{"type":"realtime",'
_ITEM = '{"type":"conversation.item.added","item":{"type":"message","id":"i","content":'
_HALVES = {
    "as a name": f'{_SESSION}"{_HALF}":1}}}}',
    "inside a text": f'{_SESSION}"instructions":{{"a":"{_HALF}"}}}}}}',
    "as a word": f'{_SESSION}"tool_choice":"{_HALF}"}}}}',
    "as a type": f'{{"type":"{_HALF}"}}',
    "in a transcript": f'{_ITEM}[{{"type":"output_audio","transcript":"a{_HALF}"}}]}},"{_HALF}":1}}',
    "in a delta": f'{{"type":"response.output_text.delta",{_IDS},"delta":"{_HALF}"}}',
}


@pytest.mark.parametrize("role, dialect", SIDES)
@pytest.mark.parametrize("text", _HALVES.values(), ids=_HALVES)
def test_half_a_character_is_refused_or_travels_unchanged(role: Role, dialect: Dialect, text: str) -> None:
    event = receive(_side(role, dialect), text)
    if event is not None:
        assert _HALF in wire.encode(event)


@pytest.mark.parametrize("role, dialect", SIDES)
@pytest.mark.parametrize("depth", [50, 90, 99, 100, 101, 500, 900, 950, 975])
def test_nesting_of_any_depth(role: Role, dialect: Dialect, depth: int) -> None:
    """Everything that is read can also be shown, answered and written."""
    for inside in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        for text in (
            f'{{"type":"nope","x":{inside}}}',
            f'{_SESSION}"output_modalities":{inside}}}}}',
            f'{{"type":"session.update","session":{{"modalities":{inside}}}}}',
            f'{{"type":"session.update","session":{{"tools":[{{"type":"function","name":"f","parameters":{inside}}}]}}}}',
            f'{{"type":"session.updated","session":{{"type":"realtime","audio":{inside},"tracing":{inside}}}}}',
            f"{_ITEM}{inside}}}}}",
            f'{{"type":"rate_limits.updated","rate_limits":{inside}}}',
        ):
            receive(_side(role, dialect), text)


FAULTS = [
    (b"abc", "expected a text message, got 3 bytes of binary"),
    ("hello", "not JSON: Expecting value"),
    ("[]", "expected a JSON object, got list"),
]


@pytest.mark.parametrize("text, fault", FAULTS)
def test_a_client_names_the_fault_of_a_text(text: str | bytes, fault: str) -> None:
    with pytest.raises(RemoteProtocolError, match=fault):
        Connection("client").receive(text)


@pytest.mark.parametrize("index", [-1, -5, 1, 10**30])
def test_an_index_outside_an_item_changes_nothing(index: int) -> None:
    side = Connection("client")
    side.receive(f'{_ITEM}[{{"type":"audio"}}]}}}}')
    receive(side, f'{{"type":"conversation.item.truncated",{_IDS},"content_index":{index},"audio_end_ms":1}}')
    assert side.state.entries["i"].item.content == (ContentPart(type="audio"),)


def test_what_cannot_be_written_is_a_local_error() -> None:
    side = Connection("client")
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    for odd in (float("nan"), object(), deep):
        with pytest.raises(LocalProtocolError, match=r"Cannot write 'response\.create' as JSON"):
            side.send(events.ResponseCreate(extra={"odd": odd}))
    with pytest.raises(LocalProtocolError, match="A client does not send"):
        side.send(events.InputAudioBufferCleared())
    with pytest.raises(LocalProtocolError, match="A server does not send"):
        Connection("server").send(events.InputAudioBufferClear())
    assert side.state.snapshot() == Connection("client").state.snapshot()


@pytest.mark.parametrize("rate", [0, -1, 1, 10**400])
def test_no_rate_breaks_the_arithmetic(rate: int) -> None:
    side = Connection("client")
    audio = f'{{"output":{{"format":{{"type":"audio/pcm","rate":{rate}}}}}}}'
    for text in (
        f'{{"type":"session.created","session":{{"type":"realtime","audio":{audio}}}}}',
        f'{{"type":"response.output_item.added",{_IDS},"item":{{"type":"message","id":"i"}}}}',
        f'{{"type":"response.output_audio.delta",{_IDS},"delta":"AAAA"}}',
    ):
        receive(side, text)
    assert side.state.entries["i"].parts[0].audio_bytes == 3
