"""Knobs without a page: what is sent, what is shown, and what becomes of every wish."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import ipywidgets
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rtnb
from rtnb.errors import ServiceError
from rtnb.protocol.values import SemanticVad, ServerVad, SessionConfig, Transcription
from rtnb.widgets import _steering
from rtnb.widgets._steering import flat, judge, nested, same
from rtnb.widgets.instructions import InstructionsControl
from rtnb.widgets.panel import SettingsPanel
from rtnb.widgets.settings import AnswerControl, ListeningControl
from rtnb.widgets.turn_detection import TurnDetectionControl
from tests.client.service import Clock
from tests.widgets.page import eventually

HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\">\n</textarea><script>document.title='owned'</script>\u202e$$x$$"
)


@pytest.fixture(params=["ga", "preview"])
async def session(request: Any) -> AsyncIterator[rtnb.Session]:
    """A session on this test's loop; the knobs work from the background loop."""
    with rtnb.Simulator(dialect=request.param, latency="fast", voice="babble") as simulator:
        async with rtnb.connect(simulator) as opened:
            yield opened


@pytest.fixture
async def ga() -> AsyncIterator[rtnb.Session]:
    with rtnb.Simulator(latency="fast", voice="babble") as simulator:
        async with rtnb.connect(simulator) as opened:
            yield opened


def updates(session: rtnb.Session) -> list[SessionConfig]:
    return [row.event.session for row in session.log.filter("session.update")]  # type: ignore[attr-defined]


# --- comparing --------------------------------------------------------------------------------------------------------


def test_a_configuration_is_laid_out_and_put_together_again() -> None:
    config = SessionConfig.of(
        voice="marin",
        instructions="Be brief.",
        turn_detection=ServerVad(threshold=0.7),
        transcription=Transcription(model="whisper-1"),
        noise_reduction=None,
    )
    assert flat(config)["audio.input.turn_detection.threshold"] == 0.7
    assert flat(config)["audio.input.noise_reduction"] is None
    from rtnb.protocol import wire

    assert wire.decode_session(nested(flat(config))) == config


def test_every_wish_has_its_verdict() -> None:
    wishes: dict[str, Any] = {"a": 1, "b": 2, "c": 0.8, "d": 4}
    verdicts = judge(wishes, {"a": 0, "b": 0, "c": 0.5}, {"a": 0, "b": 3, "c": 0.800000011920929})
    assert [(one.field, one.verdict, one.effective) for one in verdicts] == [
        ("a", "ignored", 0),
        ("b", "changed", 3),
        ("c", "accepted", 0.800000011920929),
        ("d", "unconfirmed", None),
    ]


def test_a_refusal_blames_the_field_it_names_and_the_rest_fell_with_it() -> None:
    refusal = ServiceError("no", code="cannot_update_voice", param="session.audio.output.voice")
    voice, text = judge({"audio.output.voice": "cedar", "instructions": "x"}, {}, {}, refusal)
    assert voice.reason == "cannot_update_voice (at session.audio.output.voice): no"
    assert text.reason == "lost together with audio.output.voice: a refused update changes nothing"


@given(st.floats(0, 2), st.floats(0, 2))
def test_numbers_are_the_same_when_a_service_could_not_tell_them_apart(a: float, b: float) -> None:
    assert same(a, a)
    assert same(a, b) == same(b, a)


# --- turning ----------------------------------------------------------------------------------------------------------


async def test_what_is_confirmed_meanwhile_does_not_undo_a_wish(session: rtnb.Session) -> None:
    knobs = TurnDetectionControl(session)
    await eventually(lambda: knobs.steering._seen is session.config)
    # As the background loop may do it, between the knob's turning and our hearing of it.
    knobs.observe(lambda _: knobs.show(flat(session.config), session), "type")
    knobs.type = "none"
    await knobs.apply()
    assert knobs.type == "none"
    assert session.config.turn_detection is None
    knobs.close()


async def test_a_knob_turned_while_it_is_being_shown_keeps_the_wish(ga: rtnb.Session) -> None:
    knobs, showing, turned = AnswerControl(ga), threading.Event(), threading.Event()

    def meanwhile(change: Any) -> None:  # on the background loop, between the trait and its slider
        if change.new == 0.5:
            showing.set()
            turned.wait(0.1)

    def turn() -> None:
        showing.wait()
        knobs.speed = 1.4
        turned.set()

    await eventually(lambda: knobs._confirmed)
    knobs.observe(meanwhile, "speed")
    turning = asyncio.create_task(asyncio.to_thread(turn))
    await ga.update(speed=0.5)
    await turning
    await knobs.apply()
    in_force = flat(ga.config)["audio.output.speed"]
    assert (knobs.speed, knobs.inputs["speed"].value, in_force) == (1.4, 1.4, 1.4)
    knobs.close()


async def test_knobs_show_what_the_service_has(session: rtnb.Session) -> None:
    knobs = TurnDetectionControl(session)
    detection = session.config.turn_detection
    assert isinstance(detection, ServerVad)
    await eventually(lambda: knobs._confirmed)

    assert knobs.silence_duration_ms == detection.silence_duration_ms
    assert knobs.inputs["silence_duration_ms"].value == detection.silence_duration_ms
    assert updates(session) == []  # looking changes nothing
    knobs.close()


async def test_what_is_turned_together_travels_in_one_update_with_nothing_else(
    session: rtnb.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_steering, "DEBOUNCE_S", 1e9)  # however long this test takes to turn three knobs
    panel = SettingsPanel(session)
    await eventually(lambda: panel.turn_detection._confirmed)
    panel.turn_detection.silence_duration_ms = 700
    panel.instructions.text = "Be brief."
    panel.answer.speed = 1.2
    verdicts = await panel.apply()

    (update,) = updates(session)
    assert flat(update) == {
        "type": "realtime",
        "instructions": "Be brief.",
        "audio.input.turn_detection.type": "server_vad",
        "audio.input.turn_detection.silence_duration_ms": 700,
        "audio.output.speed": 1.2,
    }
    assert set(verdicts["verdict"]) == {"accepted"}
    panel.close()


async def test_a_slider_that_slides_is_sent_once_when_it_rests(
    ga: rtnb.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(_steering, "time", SimpleNamespace(monotonic=clock))
    knobs = TurnDetectionControl(ga)
    await eventually(lambda: knobs._confirmed)
    for value in range(300, 600, 10):
        clock.advance(20)
        knobs.inputs["silence_duration_ms"].value = value  # as the page does
    clock.advance(1000 * _steering.DEBOUNCE_S)
    await eventually(lambda: updates(ga))
    await eventually(lambda: knobs._marks.get("silence_duration_ms") == "accepted")

    (update,) = updates(ga)
    assert update.turn_detection == ServerVad(silence_duration_ms=590)
    knobs.close()


async def test_turning_back_sends_nothing(ga: rtnb.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_steering, "DEBOUNCE_S", 1e9)
    knobs = AnswerControl(ga)
    await eventually(lambda: knobs._confirmed)
    before = knobs.voice
    knobs.voice = "cedar"
    knobs.voice = before
    await knobs.apply()
    assert updates(ga) == []
    knobs.close()


async def test_what_is_turned_before_there_is_a_session_is_sent_when_there_is_one(ga: rtnb.Session) -> None:
    knobs = TurnDetectionControl(silence_duration_ms=200)  # also where it is the default that is shown
    knobs.threshold = 0.9
    assert list(knobs.steering.verdicts["verdict"]) == ["waiting", "waiting"]
    knobs.steering.attach(ga)
    await eventually(lambda: knobs._marks.get("threshold") == "accepted")
    assert ga.config.turn_detection.threshold == 0.9  # type: ignore[union-attr]
    knobs.close()


async def test_a_refused_wish_snaps_back_and_is_explained(ga: rtnb.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_steering, "DEBOUNCE_S", 1e9)
    panel = SettingsPanel(ga)
    await ga.ask("Hello!")
    await eventually(lambda: panel.answer._confirmed)
    panel.answer.voice = "cedar"
    panel.instructions.text = "Speak like a pirate."
    verdicts = await panel.apply()

    assert verdicts.loc["audio.output.voice", "reason"].startswith("cannot_update_voice")
    assert verdicts.loc["instructions", "verdict"] == "refused"
    assert panel.answer.voice == ga.config.voice
    assert panel.answer.inputs["voice"].value == ga.config.voice
    assert "pirate" not in panel.instructions.text
    panel.close()


async def test_push_to_talk_is_the_absence_of_turn_detection(session: rtnb.Session) -> None:
    knobs = TurnDetectionControl(session)
    knobs.type = "none"
    await knobs.apply()
    assert session.config.turn_detection is None
    await eventually(lambda: knobs._marks.get("type") == "accepted")
    assert not any(knobs.available(name) for name in knobs.knobs() if name != "type")

    knobs.type = "semantic_vad"
    knobs.eagerness = "low"
    await knobs.apply()
    assert isinstance(session.config.turn_detection, SemanticVad)
    assert session.config.turn_detection.eagerness == "low"
    assert knobs.available("eagerness")
    assert not knobs.available("threshold")
    knobs.close()


async def test_a_knob_that_cannot_be_sent_says_why(ga: rtnb.Session) -> None:
    answer = AnswerControl(ga)
    await eventually(lambda: answer._confirmed)
    answer.temperature = 1.0
    verdicts = await answer.apply()
    assert tuple(verdicts.loc["temperature"]) == (1.0, None, "kept back", "only the preview dialect has it")
    assert updates(ga) == []
    answer.close()


async def test_temperature_is_sent_where_there_is_one() -> None:
    with rtnb.Simulator(dialect="preview", latency="fast", voice="babble") as simulator:
        async with rtnb.connect(simulator) as session:
            answer = AnswerControl(session)
            answer.temperature = 1.0
            assert (await answer.apply()).loc["temperature", "verdict"] == "accepted"
            answer.close()


async def test_transcription_goes_on_with_its_words_and_off_with_its_model(session: rtnb.Session) -> None:
    listening = ListeningControl(session)
    await eventually(lambda: listening._confirmed)
    listening.model, listening.language, listening.noise_reduction = "whisper-1", "en", "near_field"
    assert set((await listening.apply())["verdict"]) == {"accepted"}
    assert session.config.audio.input.transcription == Transcription(model="whisper-1", language="en")  # type: ignore[union-attr]

    listening.model, listening.noise_reduction = "", "off"
    await listening.apply()
    assert session.config.audio.input.transcription is None  # type: ignore[union-attr]
    assert session.config.audio.input.noise_reduction is None  # type: ignore[union-attr]
    listening.close()


async def test_what_code_changes_is_shown_too(ga: rtnb.Session) -> None:
    panel = SettingsPanel(ga)
    panel.answer.speed = 1.5
    await panel.apply()
    await ga.update(speed=0.5, instructions=HOSTILE)
    await eventually(lambda: panel.instructions.text == HOSTILE)
    await eventually(lambda: panel.steering.verdicts.loc["audio.output.speed", "reason"] == "changed since")
    assert panel.answer.inputs["speed"].value == 0.5  # the knobs are shown before the verdicts
    panel.close()


async def test_a_service_may_be_wider_than_our_sliders(ga: rtnb.Session) -> None:
    knobs = TurnDetectionControl(ga)
    await ga.update(turn_detection=ServerVad(silence_duration_ms=12_345, idle_timeout_ms=7_000))
    await eventually(lambda: knobs.silence_duration_ms == 12_345)
    assert knobs.inputs["silence_duration_ms"].value == 12_345
    assert knobs.inputs["idle_timeout_ms"].value == 7_000
    await knobs.apply()
    assert len(updates(ga)) == 1
    knobs.close()


# --- instructions -----------------------------------------------------------------------------------------------------


async def test_typing_instructions_changes_nothing_until_they_are_applied(ga: rtnb.Session) -> None:
    editor = InstructionsControl(ga)
    await eventually(lambda: editor._confirmed)
    own = editor.text
    editor.inputs["text"].value = HOSTILE
    await editor.apply()
    assert (editor.text, updates(ga)) == (own, [])

    editor._apply.click()
    await editor.apply()
    assert ga.config.instructions == HOSTILE
    editor._reset.click()
    await editor.apply()
    assert ga.config.instructions == own
    editor.close()


async def test_a_draft_outlives_what_the_service_says(ga: rtnb.Session) -> None:
    editor = InstructionsControl(ga)
    await eventually(lambda: editor._confirmed)
    editor.inputs["text"].value = "half a thou"
    await ga.update(instructions="from elsewhere")
    await eventually(lambda: editor.text == "from elsewhere")
    assert editor.inputs["text"].value == "half a thou"
    editor.close()


# --- as widgets -------------------------------------------------------------------------------------------------------


async def test_knobs_are_traits_that_link_and_can_be_observed(ga: rtnb.Session) -> None:
    knobs, mine, seen = TurnDetectionControl(ga), ipywidgets.IntSlider(max=2000), []
    ipywidgets.link((knobs, "silence_duration_ms"), (mine, "value"))
    knobs.observe(lambda change: seen.append(change.new), "threshold")
    mine.value = 800
    knobs.threshold = 0.25
    await knobs.apply()
    assert ga.config.turn_detection.silence_duration_ms == 800  # type: ignore[union-attr]
    assert 0.25 in seen
    knobs.close()


def test_an_unknown_knob_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword 'treshold'; did you mean 'threshold'"):
        TurnDetectionControl(treshold=0.5)


CONTROLS = [TurnDetectionControl, AnswerControl, ListeningControl, InstructionsControl]


@pytest.mark.parametrize("cls", CONTROLS)
def test_every_knob_says_what_turning_it_does(cls: Any) -> None:
    for name, trait in cls.knobs().items():
        assert trait.help.endswith("."), name
        assert "efault" in trait.help or name in ("text", "voice", "silence_duration_ms"), name


@pytest.mark.parametrize(
    "cls", [TurnDetectionControl, AnswerControl, ListeningControl, InstructionsControl, SettingsPanel]
)
def test_a_closed_control_leaves_nothing_behind(cls: Any) -> None:
    before = set(ipywidgets.widgets.widget._instances)
    control = cls()
    control.close()
    control.close()
    assert set(ipywidgets.widgets.widget._instances) <= before
    assert repr(control) == f"<{cls.__name__}>"
