"""Audio that stays base64 until somebody asks for it."""

from __future__ import annotations

import base64
import binascii
import json

from hypothesis import given
from hypothesis import strategies as st

from rtnb.protocol import Connection, events
from rtnb.protocol.values import is_base64


def _delta(audio: object) -> str:
    names = {"event_id": "event_1", "response_id": "resp_1", "item_id": "item_1"}
    return json.dumps({"type": "response.output_audio.delta", **names, "delta": audio})


encoded = st.binary().map(lambda data: base64.b64encode(data).decode())


@given(encoded | st.text(alphabet="Aa9+/= \n-_é\ud800", max_size=12))
def test_the_check_says_what_the_strict_decoder_says(text: str) -> None:
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        assert not is_base64(text)
    else:
        assert is_base64(text)


@given(st.binary(max_size=100))
def test_the_bytes_are_counted_before_and_after_they_are_asked_for(audio: bytes) -> None:
    event = Connection("client").receive(_delta(base64.b64encode(audio).decode()))
    assert isinstance(event, events.ResponseOutputAudioDelta)
    assert event.audio_bytes == len(audio)
    assert event.delta == audio
    assert event.audio_bytes == len(audio)
    assert event == events.ResponseOutputAudioDelta(
        event_id="event_1", response_id="resp_1", item_id="item_1", delta=audio
    )


def test_no_base64_is_found_out_when_it_is_read() -> None:
    event = Connection("client").receive(_delta("AAA"))
    assert isinstance(event, events.UnknownEvent)
    assert event.problem == "delta: not base64: Incorrect padding"
