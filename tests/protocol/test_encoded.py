"""Audio that stays base64 until it is read."""

import base64
import binascii
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtnb.errors import RemoteProtocolError
from rtnb.protocol import Connection, Dialect, Item, ResponseConfig, events, wire
from rtnb.protocol.events import SERVER_EVENTS
from rtnb.protocol.values import is_base64
from tests.protocol.goldens import DIALECTS


def _delta(audio: object) -> str:
    names = {"event_id": "event_1", "response_id": "resp_1", "item_id": "item_1"}
    return json.dumps({"type": "response.output_audio.delta", **names, "delta": audio})


encoded = st.binary().map(lambda data: base64.b64encode(data).decode())


@given(encoded | st.text(alphabet="Aa9+/= \n-_é\ud800", max_size=12))
@example("AAAA=")  # the decoder takes it, although its length is odd
def test_the_check_agrees_with_the_strict_decoder(text: str) -> None:
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        assert not is_base64(text)
    else:
        assert is_base64(text)


@given(st.binary(max_size=100))
def test_the_bytes_are_counted_before_and_after_they_are_read(audio: bytes) -> None:
    event = Connection("client").receive(_delta(base64.b64encode(audio).decode()))
    assert isinstance(event, events.ResponseOutputAudioDelta)
    assert event.audio_bytes == len(audio)
    assert event.delta == audio
    assert event.audio_bytes == len(audio)
    assert event == events.ResponseOutputAudioDelta(
        event_id="event_1", response_id="resp_1", item_id="item_1", delta=audio
    )


def test_wrong_base64_is_found_when_the_event_arrives() -> None:
    event = Connection("client").receive(_delta("AAA"))
    assert isinstance(event, events.UnknownEvent)
    assert event.problem == "delta: not base64: Incorrect padding"


def _long(text: str) -> str:
    return text + " " * (wire.LONG - len(text) + 1)


HEAD = '{"type":"response.output_audio.delta","event_id":"e","response_id":"r","item_id":"i","content_index":0,'
AUDIO = base64.b64encode(bytes(range(256)) * 6).decode()
LONG_TEXTS = {
    "compact": f'{HEAD}"delta":"{AUDIO}"}}',
    "spaces": f'{HEAD}"delta" : "{AUDIO}"}}',
    "one space": f'{HEAD}"delta": "{AUDIO}"}}',
    "delta first": f'{{"delta":"{AUDIO}",{HEAD[1:-1]}}}',
    "escaped": f'{HEAD}"delta":"\\u0041{AUDIO[1:]}"}}',
    "escaped quote": f'{HEAD}"delta":"{AUDIO}\\"x"}}',
    "no base64": f'{HEAD}"delta":"{AUDIO}?"}}',
    "twice": f'{HEAD}"delta":"{AUDIO}","delta":"AAAA"}}',
    "twice, then empty": f'{HEAD}"delta":"{AUDIO}","delta":""}}',
    "no text": f'{HEAD}"delta":5,"other":"{AUDIO}"}}',
    "inside a key": f'{HEAD}"a\\"delta":"{AUDIO}","delta":"AAAA"}}',
    "inside an object": f'{HEAD}"x":{{"delta":"{AUDIO}"}},"delta":"AAAA"}}',
    "inside a list": f'{HEAD}"x":[{{"delta":"{AUDIO}"}}],"delta":"AAAA"}}',
    "another event": f'{HEAD.replace("audio", "text")}"delta":"{AUDIO}\\n"}}',
    "preview": f'{HEAD.replace("output_", "")}"delta":"{AUDIO}"}}',
    "unknown event": f'{HEAD.replace("response.", "reply.")}"delta":"{AUDIO}"}}',
    "white space": _long(f' {HEAD}"delta":"{AUDIO}"}}'),
    "no type": f'{{"delta":"{AUDIO}"}}',
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("text", LONG_TEXTS.values(), ids=LONG_TEXTS.keys())
def test_cutting_the_audio_out_of_a_text_changes_no_event(dialect: Dialect, text: str) -> None:
    assert len(text) > wire.LONG
    whole = wire.decode(wire.parse(text), dialect=dialect, registry=SERVER_EVENTS)
    assert wire.decode(text, dialect=dialect, registry=SERVER_EVENTS) == whole


@pytest.mark.parametrize("text", [LONG_TEXTS["compact"] + "}", LONG_TEXTS["compact"][:-1], LONG_TEXTS["compact"][:-2]])
def test_a_broken_long_text_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError, match="not JSON"):
        wire.decode(text, registry=SERVER_EVENTS)


# --- path of a delta --------------------------------------------------------------------------------------------------


def _functions(call: Callable[[], object]) -> list[str]:
    """Return the names of the functions of rtnb that a call crosses, each once."""
    crossed: dict[str, None] = {}

    def note(frame: Any, what: str, _: object) -> None:
        if what == "call" and f"{os.sep}rtnb{os.sep}" in frame.f_code.co_filename:
            crossed[frame.f_code.co_name] = None

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return list(crossed)


def test_a_delta_crosses_five_functions() -> None:
    side = Connection("client")
    side.receive(LONG_TEXTS["compact"])
    transcript = f'{HEAD.replace("audio", "audio_transcript")}"delta":"Hi."}}'
    side.receive(transcript)
    audio = _functions(lambda: side.receive(LONG_TEXTS["compact"]))
    assert audio == ["receive", "decode", "_decode_fields", "checked_base64", "_delta"]
    assert _functions(lambda: side.receive(transcript)) == ["receive", "decode", "_decode_fields", "_delta"]


def test_a_request_crosses_three_functions() -> None:
    side = Connection("client")
    requests = [
        events.ConversationItemCreate(item=Item.of("Hello")),
        events.ResponseCreate(response=ResponseConfig(instructions="Be brief.")),
    ]
    for request in requests:
        side.send(request)
        assert _functions(lambda made=request: side.send(made)) == ["send", "encode", "_plain"]  # type: ignore[misc]
