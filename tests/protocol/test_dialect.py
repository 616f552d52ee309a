"""Dialect of the peer: recognised by its first session object, and by its refusals."""

import json
from typing import Any

import pytest

from rtnb.errors import RemoteProtocolError
from rtnb.protocol import Connection, Dialect, ErrorDetail, SessionConfig, events
from rtnb.protocol.connection import dialect_hint
from rtnb.protocol.values import AudioFormat, ResponseConfig, Transcription
from tests.protocol.goldens import DIALECTS, SERVER
from tests.protocol.pair import service, update

CREATED = [(d, m) for d, m in SERVER if m["type"].endswith("session.created")]


@pytest.mark.parametrize("mine", DIALECTS)
@pytest.mark.parametrize("theirs, message", CREATED, ids=lambda value: str(value)[:40])
def test_the_first_session_object_shows_the_dialect(mine: Dialect, theirs: Dialect, message: dict[str, Any]) -> None:
    side = Connection("client", dialect=mine)
    assert side.peer_dialect is None
    event = side.receive(json.dumps(message))
    if message["type"] == "transcription_session.created" and mine == "ga":
        assert isinstance(event, events.UnknownEvent)  # kept, but this name does not exist in GA
        return
    assert isinstance(event, events.SessionCreated)
    assert side.peer_dialect == theirs


def test_a_session_object_without_marks_leaves_the_dialect_open() -> None:
    for dialect in DIALECTS:
        side = Connection("client", dialect=dialect)
        side.receive('{"type":"session.created","session":{"id":"sess_1"}}')
        assert side.peer_dialect is None


def test_a_server_does_not_guess_a_dialect() -> None:
    assert service().peer_dialect is None


REQUESTS: list[tuple[Dialect, events.Event]] = [
    *((mine, update()) for mine in DIALECTS),
    ("ga", update(voice="marin")),
    ("preview", update(voice="alloy")),
    *((mine, events.ResponseCreate(response=ResponseConfig(output_modalities=("text",)))) for mine in DIALECTS),
    ("preview", events.ResponseCreate(response=ResponseConfig(temperature=0.8))),
]


@pytest.mark.parametrize("mine, event", REQUESTS, ids=str)
def test_a_client_at_a_service_of_the_other_dialect_gets_a_hint(mine: Dialect, event: events.Event) -> None:
    client = Connection("client", dialect=mine)
    theirs: Dialect = "preview" if mine == "ga" else "ga"
    with pytest.raises(RemoteProtocolError) as caught:
        service(theirs).receive(client.send(event))
    received: Any = client.receive(service(theirs).send(caught.value.answer))
    assert f"dialect='{theirs}'" in (dialect_hint(received.error, dialect=mine) or "")


ONLY_GA = ("type", "audio", "output_modalities", "audio.input.format")
ONLY_PREVIEW = ("modalities", "voice", "turn_detection", "temperature", "input_audio_transcription")
ONLY_PREVIEW += ("max_response_output_tokens",)


@pytest.mark.parametrize(
    "dialect, code, param, hinted",
    [
        *(("ga", "unknown_parameter", f"session.{name}", True) for name in ONLY_GA),
        ("ga", "missing_required_parameter", "session.type", False),  # a GA service refuses it like this
        ("ga", "unknown_parameter", "session.voice", False),
        ("ga", "unknown_parameter", "session.tools[0].meta", False),
        ("ga", "invalid_value", "session.type", False),
        *(("preview", "unknown_parameter", f"session.{name}", True) for name in ONLY_PREVIEW),
        ("preview", "missing_required_parameter", "session.type", True),
        ("preview", "unknown_parameter", "session.tracing", False),
        ("preview", "beta_api_shape_disabled", None, True),
        ("ga", "beta_api_shape_disabled", None, True),
        ("ga", None, None, False),
        ("preview", "unknown_parameter", None, False),
    ],
)
def test_hint(dialect: Dialect, code: str | None, param: str | None, hinted: bool) -> None:
    error = ErrorDetail(type="invalid_request_error", code=code, param=param)
    assert (dialect_hint(error, dialect=dialect) is not None) is hinted


def test_a_session_of_the_other_dialect_is_still_read() -> None:
    """A client set to the wrong dialect still follows the session well enough to name the mistake."""
    preview, ga = [next(m for d, m in CREATED if d == dialect) for dialect in ("preview", "ga")]
    side = Connection("client", dialect="preview")
    side.receive(json.dumps(ga))
    assert side.state.session.voice == "alloy"
    side = Connection("client", dialect="ga")
    side.receive(json.dumps(preview))
    assert side.state.session.extra["voice"] == "verse"


def test_preview_spellings() -> None:
    """The migration table, line by line."""
    session = SessionConfig.of(
        output_modalities=("audio",), voice="alloy", speed=1.1, max_output_tokens=9,
        input_format=AudioFormat(type="audio/pcmu"), output_format=AudioFormat(type="audio/pcma"),
        transcription=Transcription(model="whisper-1"), turn_detection=None, noise_reduction=None,
        tool_choice={"type": "function", "name": "f"},
    )  # fmt: skip
    text = Connection("client", dialect="preview").send(events.SessionUpdate(session=session))
    assert json.loads(text) == {
        "type": "session.update",
        "session": {
            "modalities": ["text", "audio"],
            "voice": "alloy",
            "speed": 1.1,
            "max_response_output_tokens": 9,
            "input_audio_format": "g711_ulaw",
            "output_audio_format": "g711_alaw",
            "input_audio_transcription": {"model": "whisper-1"},
            "turn_detection": None,
            "input_audio_noise_reduction": None,
            "tool_choice": {"type": "function", "function": {"name": "f"}},
        },
    }
