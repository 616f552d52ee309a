"""Flat names and short spellings become protocol values; updates hold only changes; wrong settings are explained."""

import json
from typing import Any

import pytest

from rtnb.protocol import (
    PCM16,
    PCMA,
    PCMU,
    UNSET,
    AudioFormat,
    ContentPart,
    Dialect,
    Item,
    NoiseReduction,
    ResponseConfig,
    SemanticVad,
    ServerVad,
    SessionConfig,
    Transcription,
    events,
    wire,
)
from rtnb.protocol.service.schema import check_event
from rtnb.protocol.values import Audio, AudioInput, AudioOutput, Tool

FUNCTION = {"type": "function", "name": "f"}

# --- SessionConfig.of -------------------------------------------------------------------------------------------------


def test_flat_names_move_into_audio() -> None:
    config = SessionConfig.of(voice="marin", speed=1.1, output_format=PCMU, input_format=PCMA, instructions="Hi.")
    assert config == SessionConfig(
        instructions="Hi.",
        audio=Audio(input=AudioInput(format=PCMA), output=AudioOutput(voice="marin", speed=1.1, format=PCMU)),
    )


def test_flat_names_are_laid_over_a_given_audio() -> None:
    given = Audio(output=AudioOutput(voice="ash", speed=1.2))
    assert SessionConfig.of(audio=given, voice="marin").audio == Audio(output=AudioOutput(voice="marin", speed=1.2))


@pytest.mark.parametrize(
    "spelled, made",
    [
        ("pcm16", PCM16),
        ("audio/pcm", PCM16),
        ("g711_ulaw", PCMU),
        ("audio/pcmu", PCMU),
        ("g711_alaw", PCMA),
        ({"type": "audio/pcm", "rate": 24_000}, PCM16),
        (PCMA, PCMA),
    ],
)
def test_spellings_of_formats(spelled: Any, made: AudioFormat) -> None:
    config = SessionConfig.of(input_format=spelled, output_format=spelled)
    assert (config.input_format, config.output_format) == (made, made)


@pytest.mark.parametrize(
    "spelled, made",
    [
        ("server_vad", ServerVad()),
        ("semantic_vad", SemanticVad()),
        ({"type": "server_vad", "threshold": 0.4}, ServerVad(threshold=0.4)),
        ({"threshold": 0.4}, ServerVad(threshold=0.4)),
        ({"type": "semantic_vad", "eagerness": "low", "x": 1}, SemanticVad(eagerness="low", extra={"x": 1})),
        ({"type": "other_vad"}, {"type": "other_vad"}),
        ("other_vad", {"type": "other_vad"}),
        (None, None),
    ],
)
def test_spellings_of_turn_detection(spelled: Any, made: Any) -> None:
    assert SessionConfig.of(turn_detection=spelled).turn_detection == made


def test_spellings_of_transcription_noise_reduction_and_lists() -> None:
    config = SessionConfig.of(
        transcription="whisper-1", noise_reduction="near_field", output_modalities="text", tools=[FUNCTION],
        include="item.input_audio_transcription.logprobs",
    )  # fmt: skip
    assert config.audio == Audio(
        input=AudioInput(
            transcription=Transcription(model="whisper-1"), noise_reduction=NoiseReduction(type="near_field")
        )
    )
    assert (config.output_modalities, config.tools) == (("text",), (FUNCTION,))
    assert config.include == ("item.input_audio_transcription.logprobs",)
    assert isinstance(config.tools, tuple)
    assert isinstance(config.tools[0], Tool)
    assert SessionConfig.of(output_modalities=["audio"]).output_modalities == ("audio",)


def test_new_settings_of_a_transcription_are_written() -> None:
    new = {"model": "gpt-transcribe", "languages": ["en", "tr"], "keywords": ["rtnb"], "delay": "low"}
    config = SessionConfig.of(type="transcription", transcription=new)
    made = Transcription(model="gpt-transcribe", languages=("en", "tr"), keywords=("rtnb",), delay="low")
    assert config.audio == Audio(input=AudioInput(transcription=made))
    assert wire.encode_session(config) == {"type": "transcription", "audio": {"input": {"transcription": new}}}


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(TypeError) as caught:
        SessionConfig.of(voise="marin")
    assert str(caught.value).startswith("Unknown session setting 'voise'; did you mean 'voice'? Allowed are audio, ")
    assert "extra" not in str(caught.value)
    with pytest.raises(TypeError, match=r"Unknown session setting 'zzz'\. Allowed are .*turn_detection"):
        SessionConfig.of(zzz=1)


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"Unknown audio format 'mp3'\. Allowed are pcm16, g711_ulaw, "):
        SessionConfig.of(output_format="mp3")


# --- ResponseConfig.of and Item.of ------------------------------------------------------------------------------------


def test_response_settings_are_spelled_like_session_settings() -> None:
    config = ResponseConfig.of(voice="ash", output_format="g711_ulaw", output_modalities="audio", tools=[FUNCTION])
    assert config == ResponseConfig(
        audio=Audio(output=AudioOutput(voice="ash", format=PCMU)), output_modalities=("audio",), tools=(FUNCTION,)
    )
    assert ResponseConfig.of() == ResponseConfig()


def test_input_takes_items_mappings_and_texts() -> None:
    reference = {"type": "item_reference", "id": "i"}
    message = {"role": "user", "content": [{"type": "input_text", "text": "b"}]}
    given = [Item.of("a"), message, reference, "c"]
    config = ResponseConfig.of(input=given, conversation="none")
    part = ContentPart(type="input_text", text="b")
    second, third = Item(type="message", role="user", content=(part,)), Item(type="item_reference", id="i")
    assert config.input == (Item.of("a"), second, third, Item.of("c"))
    assert ResponseConfig.of(input=[]).input == ()


@pytest.mark.parametrize("name", ["speed", "turn_detection", "temprature"])
def test_an_unknown_response_setting_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"Unknown response setting '{name}'.* Allowed are audio, conversation, "):
        ResponseConfig.of(**{name: 1})


def test_an_item_keeps_itself_and_a_text_becomes_a_user_message() -> None:
    item = Item.of("Hello")
    assert item == Item(type="message", role="user", content=(ContentPart(type="input_text", text="Hello"),))
    assert Item.of(item) is item


def test_unknown_fields_of_an_item_are_refused_with_the_nearest_one() -> None:
    with pytest.raises(TypeError, match="Unknown item field 'rolle'; did you mean 'role'"):
        Item.of({"rolle": "user"})
    with pytest.raises(TypeError, match="Unknown field of a content part 'txt'; did you mean 'text'"):
        Item.of({"role": "user", "content": [{"type": "input_text", "txt": "a"}]})


# --- changes_to -------------------------------------------------------------------------------------------------------

NOW = SessionConfig.of(
    id="sess_1", voice="marin", instructions="Be brief.", turn_detection=ServerVad(threshold=0.5), transcription=None,
    output_format=PCM16, tools=[FUNCTION],
)  # fmt: skip


@pytest.mark.parametrize(
    "wanted, changed",
    [
        ({"voice": "ash", "instructions": "Be brief."}, {"voice": "ash"}),
        ({"turn_detection": ServerVad(threshold=0.7)}, {"turn_detection": ServerVad(threshold=0.7)}),
        ({"turn_detection": None, "voice": "marin"}, {"turn_detection": None}),
        ({"transcription": "whisper-1"}, {"transcription": "whisper-1"}),
        ({"output_format": PCMU, "speed": 1.0}, {"output_format": PCMU, "speed": 1.0}),
        ({"tools": []}, {"tools": []}),
        ({"extra": {"new": 1}}, {"extra": {"new": 1}}),
    ],
)
def test_an_update_holds_only_changes(wanted: dict[str, Any], changed: dict[str, Any]) -> None:
    assert NOW.changes_to(SessionConfig.of(**wanted)) == SessionConfig.of(**changed)


@pytest.mark.parametrize(
    "wanted", [{}, {"voice": "marin"}, {"turn_detection": ServerVad()}, {"tools": [FUNCTION]}, {"transcription": None}]
)
def test_an_update_without_changes_is_none(wanted: dict[str, Any]) -> None:
    assert NOW.changes_to(SessionConfig.of(**wanted)) is None


def test_an_update_keeps_the_type_of_the_session() -> None:
    now = SessionConfig(type="transcription")
    assert now.changes_to(SessionConfig()) is None
    change = now.changes_to(SessionConfig.of(turn_detection=None))
    assert change is not None
    assert (change.type, change.turn_detection, change.voice) == ("transcription", None, UNSET)


# --- check before sending ---------------------------------------------------------------------------------------------


def explanation(dialect: Dialect, **settings: Any) -> str:
    """Return what a check before sending says about session settings; an empty text where they are right."""
    text = wire.encode(events.SessionUpdate(session=SessionConfig.of(**settings)), dialect=dialect)
    refusal = check_event(json.loads(text), dialect=dialect)
    return refusal.explanation if refusal else ""


@pytest.mark.parametrize("dialect", ["ga", "preview"])
def test_right_settings_pass_the_check(dialect: Dialect) -> None:
    assert not explanation(dialect, voice="alloy", turn_detection="semantic_vad", transcription="whisper-1", speed=1.1)
    assert not explanation(dialect, type="transcription", transcription={"model": "m", "language": "en"})


def test_settings_of_a_transcription_session_pass_the_check() -> None:
    assert not explanation(
        "ga", type="transcription", include="item.input_audio_transcription.logprobs", noise_reduction="far_field",
        transcription={"model": "m", "languages": ["en"], "keywords": ["rtnb"], "delay": "xhigh"}, turn_detection=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    "dialect, settings, pieces",
    [
        ("ga", {"speed": 9}, ["session.audio.output.speed", "9", "<= 1.5"]),
        ("preview", {"speed": 9}, ["session.speed", "9", "<= 1.5"]),
        ("ga", {"transcription": {"delay": "slow"}}, ["'slow'", "'minimal'", "'xhigh'"]),
        ("ga", {"turn_detection": {"treshold": 1, "type": "server_vad"}},
         ["turn_detection.treshold", "Did you mean 'threshold'?", "silence_duration_ms"]),
        ("preview", {"turn_detection": {"threshold": "low"}},
         ["session.turn_detection.threshold", "'low'", "a decimal"]),
        ("ga", {"turn_detection": "vad"},
         ["session.audio.input.turn_detection.type: ", "'vad'", "'server_vad' and 'semantic_vad'"]),
        ("preview", {"transcription": {"languages": ["en"]}},
         ["input_audio_transcription.languages", "Allowed are model, language, prompt"]),
        ("preview", {"truncation": "auto"}, ["session.truncation", "Allowed are ", "temperature"]),
        ("ga", {"temperature": 0.8}, ["session.temperature", "Allowed are "]),
        ("ga", {"max_output_tokens": 2.5}, ["session.max_output_tokens", "2.5", "an integer"]),
        ("ga", {"instructions": 5}, ["session.instructions", "5", "a string"]),
        ("ga", {"output_modalities": ["text", "audio"]}, ["modalities: ['text', 'audio']", "['text'] and ['audio']"]),
        ("ga", {"type": "transcription", "voice": "ash"}, ["session.audio.output", "Allowed are input"]),
    ],
)  # fmt: skip
def test_wrong_settings_are_explained_with_path_value_and_choice(
    dialect: Dialect, settings: dict[str, Any], pieces: list[str]
) -> None:
    found = explanation(dialect, **settings)
    assert [piece for piece in pieces if piece not in found] == []


@pytest.mark.parametrize(
    "item",
    [
        {"type": "mcp_approval_response", "id": "p", "approval_request_id": "q", "approve": True},
        {"type": "mcp_approval_response", "id": "p", "approval_request_id": "q", "approve": False, "reason": "no"},
        {
            "role": "user",
            "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}],
        },
    ],
)
def test_images_and_approvals_pass_the_check(item: dict[str, Any]) -> None:
    text = wire.encode(events.ConversationItemCreate(item=Item.of(item)))
    assert check_event(json.loads(text), dialect="ga") is None
