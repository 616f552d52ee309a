"""Audio that stays base64 until it is read."""

import base64
import binascii
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtnb.errors import RemoteProtocolError
from rtnb.protocol import Connection, Dialect, ResponseConfig, events, wire
from rtnb.protocol.events import SERVER_EVENTS
from rtnb.protocol.values import is_base64
from tests.protocol.goldens import DIALECTS

HEAD = '{"type":"response.output_audio.delta","event_id":"e","response_id":"r","item_id":"i","content_index":0,'
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
    event = Connection("client").receive(f'{HEAD}"delta":"{base64.b64encode(audio).decode()}"}}')
    assert isinstance(event, events.ResponseOutputAudioDelta)
    assert event.audio_bytes == len(audio)
    assert event.delta == audio
    assert event.audio_bytes == len(audio)
    ids: Any = {"event_id": "e", "response_id": "r", "item_id": "i", "content_index": 0}
    assert event == events.ResponseOutputAudioDelta(delta=audio, **ids)


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
    "white space": f' {HEAD}"delta":"{AUDIO}"}}' + " " * wire.LONG,
    "no type": f'{{"delta":"{AUDIO}"}}',
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("text", LONG_TEXTS.values(), ids=LONG_TEXTS)
def test_cutting_the_audio_out_of_a_text_changes_no_event(dialect: Dialect, text: str) -> None:
    assert len(text) > wire.LONG
    whole = wire.decode(wire.parse(text), dialect=dialect, registry=SERVER_EVENTS)
    assert wire.decode(text, dialect=dialect, registry=SERVER_EVENTS) == whole


@pytest.mark.parametrize("text", [LONG_TEXTS["compact"] + "}", LONG_TEXTS["compact"][:-1], LONG_TEXTS["compact"][:-2]])
def test_a_broken_long_text_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError, match="not JSON"):
        wire.decode(text, registry=SERVER_EVENTS)


def _functions(call: Callable[[], object]) -> set[str]:
    """Return the names of the functions of rtnb that a call crosses."""
    crossed = set()

    def note(frame: Any, what: str, _: object) -> None:
        if what == "call" and f"{os.sep}rtnb{os.sep}" in frame.f_code.co_filename:
            crossed.add(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return crossed


def test_an_event_crosses_few_functions() -> None:
    side, request = Connection("client"), events.ResponseCreate(response=ResponseConfig(instructions="Be brief."))
    audio, transcript = LONG_TEXTS["compact"], f'{HEAD.replace("audio", "audio_transcript")}"delta":"Hi."}}'
    calls: list[tuple[Any, Any, int]] = [
        (side.receive, audio, 5),
        (side.receive, transcript, 4),
        (side.send, request, 3),
    ]
    for call, argument, most in calls:
        call(argument)  # the first one makes the reading plans and the item
        assert len(_functions(functools.partial(call, argument))) == most
