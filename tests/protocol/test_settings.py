"""Flat names and short spellings become protocol values, and updates hold only changes."""

from typing import Any

import pytest

from rtnb.protocol import (
    PCM16,
    PCMA,
    PCMU,
    UNSET,
    Item,
    ResponseConfig,
    SemanticVad,
    ServerVad,
    SessionConfig,
    merge,
    wire,
)
from rtnb.protocol.values import Audio, AudioInput, AudioOutput, ContentPart, NoiseReduction, Tools, Transcription

FUNCTION = {"type": "function", "name": "f"}
PCM16_FORMAT = {"type": "audio/pcm", "rate": 24_000}
LOGPROBS = "item.input_audio_transcription.logprobs"
NEW = {"model": "gpt-transcribe", "languages": ["en", "tr"], "keywords": ["rtnb"], "delay": "low"}
MADE = Transcription(model="gpt-transcribe", languages=("en", "tr"), keywords=("rtnb",), delay="low")

# --- spellings --------------------------------------------------------------------------------------------------------

FORMATS = {
    "pcm16": PCM16, "audio/pcm": PCM16, "g711_ulaw": PCMU, "audio/pcmu": PCMU, "g711_alaw": PCMA, "audio/pcma": PCMA,
}  # fmt: skip
SPELLINGS: list[tuple[str, Any, Any]] = [
    *(("input_format", spelled, made) for spelled, made in FORMATS.items()),
    ("output_format", PCM16_FORMAT, PCM16),
    ("output_format", PCMA, PCMA),
    ("turn_detection", "server_vad", ServerVad()),
    ("turn_detection", "semantic_vad", SemanticVad()),
    ("turn_detection", {"type": "server_vad", "threshold": 0.4}, ServerVad(threshold=0.4)),
    ("turn_detection", {"threshold": 0.4}, ServerVad(threshold=0.4)),
    ("turn_detection", {"type": "semantic_vad", "eagerness": "low", "x": 1},
     SemanticVad(eagerness="low", extra={"x": 1})),
    ("turn_detection", {"type": "other_vad"}, {"type": "other_vad"}),
    ("turn_detection", "other_vad", {"type": "other_vad"}),
    ("turn_detection", None, None),
    ("transcription", "whisper-1", Transcription(model="whisper-1")),
    ("transcription", NEW, MADE),
    ("noise_reduction", "near_field", NoiseReduction(type="near_field")),
    ("output_modalities", "text", ("text",)),
    ("output_modalities", ["audio"], ("audio",)),
    ("include", LOGPROBS, (LOGPROBS,)),
    ("tools", [FUNCTION], Tools([FUNCTION])),
]  # fmt: skip
INPUT = {
    "turn_detection": "turn_detection", "transcription": "transcription", "noise_reduction": "noise_reduction",
    "input_format": "format",
}  # fmt: skip


@pytest.mark.parametrize("name, spelled, made", SPELLINGS, ids=str)
def test_spellings(name: str, spelled: Any, made: Any) -> None:
    config = SessionConfig.of(**{name: spelled})
    if name in INPUT:
        assert config == SessionConfig(audio=Audio(input=AudioInput(**{INPUT[name]: made})))
    elif name == "output_format":
        assert config == SessionConfig(audio=Audio(output=AudioOutput(format=made)))
    else:
        assert config == SessionConfig(**{name: made})
        assert type(getattr(config, name)) is type(made)


def test_flat_names_are_laid_over_a_given_audio() -> None:
    given = Audio(output=AudioOutput(voice="ash", speed=1.2))
    made = Audio(input=AudioInput(format=PCMA), output=AudioOutput(voice="marin", speed=1.2, format=PCMU))
    config = SessionConfig.of(audio=given, voice="marin", output_format=PCMU, input_format=PCMA, instructions="Hi.")
    assert config == SessionConfig(instructions="Hi.", audio=made)


def test_new_settings_of_a_transcription_are_written() -> None:
    config = SessionConfig.of(type="transcription", transcription=NEW)
    assert wire.encode_session(config) == {"type": "transcription", "audio": {"input": {"transcription": NEW}}}


def test_response_settings_are_spelled_like_session_settings() -> None:
    config = ResponseConfig.of(voice="ash", output_format="g711_ulaw", output_modalities="audio", tools=[FUNCTION])
    assert config == ResponseConfig(
        audio=Audio(output=AudioOutput(voice="ash", format=PCMU)), output_modalities=("audio",), tools=(FUNCTION,)
    )
    assert ResponseConfig.of() == ResponseConfig()


def test_input_takes_items_mappings_and_texts() -> None:
    message = {"role": "user", "content": [{"type": "input_text", "text": "b"}]}
    config = ResponseConfig.of(input=[Item.of("a"), message, {"type": "item_reference", "id": "i"}, "c"])
    first, second, third = (
        Item(type="message", role="user", content=(ContentPart(type="input_text", text=text),)) for text in "abc"
    )
    assert config.input == (first, second, Item(type="item_reference", id="i"), third)
    assert Item.of(first) is first
    assert ResponseConfig.of(input=[]).input == ()


WRONG_PART = {"role": "user", "content": [{"type": "input_text", "txt": "a"}]}
REFUSED: list[tuple[Any, Any, type[Exception], str]] = [
    (SessionConfig.of, {"voise": "marin"}, TypeError,
     "Unknown session setting 'voise'; did you mean 'voice'\\? Allowed are audio, "),
    (SessionConfig.of, {"zzz": 1}, TypeError, r"Unknown session setting 'zzz'\. Allowed are .*turn_detection"),
    (SessionConfig.of, {"output_format": "mp3"}, ValueError,
     r"Unknown audio format 'mp3'\. Allowed are pcm16, g711_ulaw, "),
    *((ResponseConfig.of, {name: 1}, TypeError,
       f"Unknown response setting '{name}'.* Allowed are audio, conversation, ")
      for name in ("speed", "turn_detection", "temprature")),
    (Item.of, {"rolle": "user"}, TypeError, "Unknown item field 'rolle'; did you mean 'role'"),
    (Item.of, WRONG_PART, TypeError, "Unknown field of a content part 'txt'; did you mean 'text'"),
]  # fmt: skip


@pytest.mark.parametrize("make, given, error, says", REFUSED, ids=str)
def test_an_unknown_name_is_refused_with_the_nearest_or_the_known_ones(
    make: Any, given: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        make(given) if make == Item.of else make(**given)
    assert "extra" not in str(caught.value)


# --- changes ----------------------------------------------------------------------------------------------------------

NOW = SessionConfig.of(
    id="sess_1", voice="marin", instructions="Be brief.", turn_detection=ServerVad(threshold=0.5), transcription=None,
    output_format=PCM16, tools=[FUNCTION],
)  # fmt: skip
CHANGES: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    ({"voice": "ash", "instructions": "Be brief."}, {"voice": "ash"}),
    ({"turn_detection": ServerVad(threshold=0.7)}, {"turn_detection": ServerVad(threshold=0.7)}),
    ({"turn_detection": None, "voice": "marin"}, {"turn_detection": None}),
    ({"transcription": "whisper-1"}, {"transcription": "whisper-1"}),
    ({"output_format": PCMU, "speed": 1.0}, {"output_format": PCMU, "speed": 1.0}),
    ({"tools": []}, {"tools": []}),
    ({"extra": {"new": 1}}, {"extra": {"new": 1}}),
    *((wanted, None) for wanted in ({}, {"voice": "marin"}, {"turn_detection": ServerVad()})),
    *((wanted, None) for wanted in ({"tools": [FUNCTION]}, {"transcription": None})),
]


@pytest.mark.parametrize("wanted, changed", CHANGES, ids=str)
def test_an_update_holds_only_changes(wanted: dict[str, Any], changed: dict[str, Any] | None) -> None:
    found = NOW.changes_to(SessionConfig.of(**wanted))
    assert found == (None if changed is None else SessionConfig.of(**changed))


def test_an_update_keeps_the_type_of_the_session() -> None:
    now = SessionConfig(type="transcription")
    assert now.changes_to(SessionConfig()) is None
    change: Any = now.changes_to(SessionConfig.of(turn_detection=None))
    assert (change.type, change.turn_detection, change.voice) == ("transcription", None, UNSET)


def test_null_switches_off_and_a_format_is_replaced_whole() -> None:
    transcription = Transcription(model="a", language="en")
    old = SessionConfig.of(
        turn_detection=ServerVad(threshold=0.5), transcription=transcription, input_format=PCM16, extra={"a": 1, "b": 1}
    )
    change = SessionConfig.of(turn_detection=None, input_format=PCMU, extra={"b": 2, "c": 2})
    made = AudioInput(turn_detection=None, format=PCMU, transcription=transcription)
    assert merge(old, change) == SessionConfig(audio=Audio(input=made), extra={"a": 1, "b": 2, "c": 2})
