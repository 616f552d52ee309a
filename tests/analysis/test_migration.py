"""Old JSON becomes new JSON that a strict GA service takes; the same conversation in both dialects, side by side."""

import copy
import json
from types import SimpleNamespace
from typing import Any

import pytest

from rtnb.analysis import migrate
from rtnb.analysis.migration import side_by_side
from rtnb.errors import RemoteProtocolError
from rtnb.protocol import Connection, wire
from rtnb.protocol.events import SERVER_EVENTS, UnknownEvent
from tests.protocol.goldens import CLIENT, DIALECTS, SERVER, name
from tests.protocol.pair import service

OLD_CLIENT = [message for dialect, message in CLIENT if dialect == "preview"]
OLD_SERVER = [message for dialect, message in SERVER if dialect == "preview"]


def refusal(side: Connection, message: dict[str, Any]) -> Any:
    """What a strict service has against a message; None where it takes it."""
    try:
        side.receive(json.dumps(message))
    except RemoteProtocolError as error:
        return error.answer.error.code, error.answer.error.param
    return None


@pytest.mark.parametrize("old", OLD_CLIENT, ids=name)
def test_what_a_preview_service_takes_a_ga_service_takes_after_migration(old: dict[str, Any]) -> None:
    transcription = old["type"].startswith("transcription_session")
    before = copy.deepcopy(old)
    (new,) = migrate(old).messages
    assert old == before
    ga, preview = (service(dialect, transcription=transcription) for dialect in DIALECTS)
    assert refusal(ga, new) == refusal(preview, old)


@pytest.mark.parametrize("old", OLD_SERVER, ids=name)
def test_what_a_preview_service_says_becomes_events_of_ga(old: dict[str, Any]) -> None:
    for new in migrate(old).messages:
        assert not isinstance(wire.decode(new, registry=SERVER_EVENTS), UnknownEvent)
        assert "temperature" not in json.dumps(new)


def test_the_first_quickstarts_request() -> None:
    old = """{"type": "response.create",
              "response": {"modalities": ["audio", "text"], "instructions": "Please assist the user."}}"""
    new = migrate(old)
    assert json.loads(str(new)) == {
        "type": "response.create",
        "response": {"instructions": "Please assist the user.", "output_modalities": ["audio"]},
    }
    assert new.notes == (
        "GA speaks or writes: ask for audio, its transcript comes along",
        "modalities is now output_modalities",
    )
    assert refusal(service(), json.loads(old)) == ("unknown_parameter", "response.modalities")
    assert refusal(service(), new.messages[0]) is None


def test_an_ephemeral_keys_request_and_reply() -> None:
    expiry, model = {"expires_after": {"s": 1}}, "gpt-4o-realtime-preview"
    asked = migrate({"model": model, "voice": "verse", "client_secret": expiry})
    session = {"type": "realtime", "model": model, "audio": {"output": {"voice": "verse"}}}
    assert asked.messages == ({**expiry, "session": session},)
    assert any("retired" in note for note in asked.notes)
    got = migrate({"id": "sess_1", "client_secret": {"value": "not to be shown", "expires_at": 7}})
    assert got.messages[0]["session"] == {"type": "realtime", "id": "sess_1"}
    assert "not to be shown" not in str(got) + repr(got) + got._repr_html_()


def test_settings_alone_stay_alone() -> None:
    old = {"turn_detection": {"type": "none"}, "input_audio_transcription": {"model": "whisper-1"}, "temperature": 0.8}
    new = migrate(old)
    heard = {"transcription": {"model": "whisper-1"}, "turn_detection": None}
    assert new.messages == ({"type": "realtime", "audio": {"input": heard}},)
    assert {"GA has no temperature: it is left out", 'push to talk is "turn_detection": null'} <= set(new.notes)


def test_one_created_item_becomes_two_events_and_a_pasted_log_stays_in_order() -> None:
    log = """{"type": "conversation.item.created", "item": {"id": "i", "type": "message", "content": []}}
             {"type": "response.audio.delta", "delta": "AAA="}, [{"type": "input_audio_buffer.commit"}]"""
    new = migrate(log)
    made = ["conversation.item.added", "conversation.item.done", "response.output_audio.delta"]
    assert [message["type"] for message in new.messages] == [*made, "input_audio_buffer.commit"]
    assert "response.audio.delta is now response.output_audio.delta" in new.notes


def test_what_is_new_or_unknown_is_left_as_it_is() -> None:
    for same in ({"type": "realtime", "audio": {"output": {"voice": "marin"}}}, {"type": "no.such.event"}):
        assert migrate(same).messages == (same,)
    assert migrate({"type": "response.cancel"}).notes == ("This is said alike in both dialects.",)
    assert "no event of either" in migrate({"type": "no.such.event"}).notes[0]


@pytest.mark.parametrize(
    "text, complaint", [("{'a': 1}", "line 1 is not JSON"), ('{"a": 1}\n{"b"', "line 2"), ("[7]", "int: 7")]
)
def test_what_is_no_json_is_refused_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        migrate(text)


def test_what_it_looks_like_in_a_notebook_is_escaped() -> None:
    html = migrate({"instructions": "<script>", "temperature": 1})._repr_html_()
    assert "<script>" not in html
    assert "GA has no temperature" in html


# --- side by side -----------------------------------------------------------------------------------------------------


def log(*types: str) -> list[Any]:
    """Return received events, by GA names, as a log holds them in both dialects."""
    return [SimpleNamespace(direction="received", type=kind) for kind in types]


def test_renamed_doubled_and_missing_events_are_seen() -> None:
    sound, words = "response.output_audio.delta", "response.output_audio_transcript.delta"
    table = side_by_side(
        log("conversation.created", "conversation.item.created", words, sound, words, sound, sound, "response.done"),
        log("conversation.item.added", "conversation.item.done", sound, words, "response.done", "response.done"),
    )
    shown = table[["preview", "GA", "n_preview", "n_ga", "renamed"]].to_numpy().tolist()
    assert shown == [
        ["conversation.created", "", 1, 0, False],
        ["conversation.item.created", "conversation.item.added", 1, 1, True],
        ["", "conversation.item.done", 0, 1, False],
        ["response.audio.delta", sound, 3, 1, True],
        ["response.audio_transcript.delta", words, 2, 1, True],
        ["response.done", "response.done", 1, 2, False],
    ]


def test_a_log_beside_itself_differs_in_nothing_but_names() -> None:
    mine = log("session.created", "response.output_text.delta", "response.output_text.delta", "response.done")
    table = side_by_side(mine, mine)
    assert table["preview"].tolist() == ["session.created", "response.text.delta", "response.done"]
    assert table["n_ga"].tolist() == table["n_preview"].tolist() == [1, 2, 1]
    assert table["renamed"].tolist() == [False, True, False]
    assert side_by_side([], []).empty
