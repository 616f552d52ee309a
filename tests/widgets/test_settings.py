"""Knobs without a page: the updates they send, the values they show, and the status of each setting."""

import asyncio
import threading
from html import unescape
from typing import Any

import ipywidgets
import pytest
from traitlets import TraitError

import rtnb
from rtnb.errors import ConnectionClosed, RequestTimeout, ServiceError
from rtnb.protocol import wire
from rtnb.protocol.service.schema import check_session
from rtnb.protocol.values import SemanticVad, ServerVad, SessionConfig, Transcription
from rtnb.tuning.updates import MISSING, compare, flat, nested
from rtnb.widgets import _settings_update, knobs
from rtnb.widgets.knobs import KNOBS, TEXTS, TURN_PRESETS, Knob
from rtnb.widgets.panel import SettingsPanel
from rtnb.widgets.settings import AnswerControl, Control, InstructionsControl, ListeningControl, TurnDetectionControl
from tests.client.peer import Message, Peer, failure
from tests.widgets.page import eventually
from tests.widgets.scene import at_work

HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\">\n</textarea><script>document.title='owned'</script>\u202e$$x$$"
)
CONTROLS = [TurnDetectionControl, AnswerControl, ListeningControl, InstructionsControl]

both_dialects = pytest.mark.parametrize("simulator", ["ga", "preview"], indirect=True)


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes are sent by `apply` only, however long a test takes to make them."""
    monkeypatch.setattr(_settings_update, "DEBOUNCE_S", 1e6)


async def ready(control: Any) -> Any:
    """Wait until a control shows what is in force."""
    await eventually(lambda: control.updater.effective)
    return control


async def change(control: Any, **knobs: Any) -> Any:
    """Set knobs, send them, and return the outcome."""
    for name, value in knobs.items():
        setattr(control, name, value)
    return await control.apply()


def with_peer(peer: Peer) -> Any:
    return rtnb.connect(rtnb.Custom(peer.url, api_key="k" * 20))


def updates(session: rtnb.Session) -> list[SessionConfig]:
    return [row.event.session for row in session.log.filter("session.update")]  # type: ignore[attr-defined]


def status_of(control: Control, name: str) -> str:
    status = control.updater.statuses.get(control.wire(name)[0])
    return "" if status is None else status.status


def shown(control: Control, name: str) -> str:
    """The line under a knob."""
    return unescape(control._notes[name].value.partition(">")[2].removesuffix("</span>"))


def rows_with_a_button(control: Control) -> list[Any]:
    return [child for child in control.children if isinstance(child, ipywidgets.HBox)]


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.name)
def test_every_knob_has_a_short_help_and_a_wire_value_that_it_reads_back(knob: Knob) -> None:
    assert len(knob.help.split()) <= 12
    assert knob.help.endswith(".")
    for value in {knob.default, *(value for _, value in knob.options)}:
        read = knob.from_wire(knob.to_wire(value))
        assert knob.codec == "is_set" or read in (value, MISSING), value


@pytest.mark.parametrize("dialect", ["ga", "preview"])
@pytest.mark.parametrize("cls", CONTROLS)
def test_the_service_accepts_every_choice_and_both_ends_of_every_slider(cls: Any, dialect: Any) -> None:
    for name, knob in cls.knobs().items():
        for value in (knob.default, *(value for _, value in knob.options), *(knob.range or ())[:2]):
            control = cls()
            control.updater.dialect = dialect
            if knob.needs is not None:
                needs = knobs._TABLE["needs"][knob.needs]
                setattr(control, needs["knob"], needs["values"][0])
            setattr(control, name, type(knob.default)(value) if knob.range else value)
            settings, not_sent = control.collect()
            assert not_sent == [] or knob.dialect not in (None, dialect)
            body = wire.encode_session(wire.decode_session(nested(settings)), dialect=dialect)
            assert check_session(body, dialect=dialect) is None, (name, value)


def test_help_lists_the_knobs_with_range_and_default() -> None:
    trait = TurnDetectionControl.class_traits()["silence_duration_ms"]
    assert trait.help.endswith("audio.input.turn_detection.silence_duration_ms: 0 to 2000; default 200")
    assert "silence_duration_ms" in dir(TurnDetectionControl)


# --- comparing --------------------------------------------------------------------------------------------------------


def test_every_requested_setting_has_a_status() -> None:
    requested: dict[str, Any] = {"a": 1, "b": 2, "c": 0.8, "d": 4}
    statuses = compare(requested, {"a": 0, "b": 0, "c": 0.5}, {"a": 0, "b": 3, "c": 0.800000011920929})
    assert [(one.setting, one.status, one.effective) for one in statuses] == [
        ("a", "ignored", 0),
        ("b", "changed", 3),
        ("c", "applied", 0.800000011920929),
        ("d", "not confirmed", None),
    ]


@pytest.mark.parametrize(
    "error, status",
    [
        (RequestTimeout("session.update", awaited="session.updated", timeout_s=1), "not confirmed"),
        (ConnectionClosed("over"), "not confirmed"),
        (ServiceError("no"), "refused"),
        (TypeError("text"), "not sent"),
    ],
)
def test_an_error_has_its_status_and_its_message(error: Exception, status: str) -> None:
    (one,) = compare({"a": 1}, {"a": 0}, {"a": 0}, error)
    assert (one.status, one.effective) == (status, 0)
    assert one.reason.endswith(str(error))


# --- changes ----------------------------------------------------------------------------------------------------------


async def test_a_confirmation_during_a_change_does_not_undo_it(session: rtnb.Session) -> None:
    control = TurnDetectionControl(session)
    await eventually(lambda: control.updater._seen is session.config)
    # As the background loop may do it, between the change and its request.
    control.observe(lambda _: control.refresh(), "type")
    await change(control, type="none")
    assert control.type == "none"
    assert session.config.turn_detection is None


async def test_a_knob_set_while_it_is_being_shown_keeps_the_request(session: rtnb.Session) -> None:
    control, showing, was_set = await ready(AnswerControl(session)), threading.Event(), threading.Event()

    def meanwhile(change: Any) -> None:  # on the background loop, between the trait and its slider
        if change.new == 0.5:
            showing.set()
            was_set.wait(0.1)

    def set_speed() -> None:
        showing.wait()
        control.speed = 1.4
        was_set.set()

    control.observe(meanwhile, "speed")
    setting = asyncio.create_task(asyncio.to_thread(set_speed))
    await session.update(speed=0.5)
    await setting
    await control.apply()
    in_force = flat(session.config)["audio.output.speed"]
    assert (control.speed, control.inputs["speed"].value, in_force) == (1.4, 1.4, 1.4)


async def test_knobs_show_what_is_in_force_also_by_code_and_beyond_their_sliders(session: rtnb.Session) -> None:
    panel = await ready(SettingsPanel(session))
    detection = panel.turn_detection
    assert detection.silence_duration_ms == session.config.turn_detection.silence_duration_ms  # type: ignore[union-attr]
    assert updates(session) == []  # looking changes nothing
    panel.answer.speed = 1.5
    await panel.updater.apply()
    wide = ServerVad(silence_duration_ms=12_345, idle_timeout_ms=7_000)
    await session.update(speed=0.5, instructions=HOSTILE, turn_detection=wide)
    await eventually(lambda: panel.instructions.text == HOSTILE)
    await eventually(lambda: status_of(panel.answer, "speed") == "")  # requested and effective differ by intent
    assert panel.answer.inputs["speed"].value == 0.5
    assert detection.silence_duration_ms == detection.inputs["silence_duration_ms"].value == 12_345
    assert detection.inputs["idle_timeout_ms"].value == 7_000
    await panel.updater.apply()
    assert len(updates(session)) == 2


@both_dialects
async def test_changes_travel_in_one_update_with_nothing_else(session: rtnb.Session) -> None:
    panel = await ready(SettingsPanel(session))
    assert panel.turn_detection.silence_duration_ms == session.config.turn_detection.silence_duration_ms  # type: ignore[union-attr]
    panel.turn_detection.silence_duration_ms = 700
    panel.instructions.text = "Be brief."
    panel.answer.speed = 1.2
    table = await panel.updater.apply()

    (update,) = updates(session)
    assert flat(update) == {
        "type": "realtime",
        "instructions": "Be brief.",
        "audio.input.turn_detection.type": "server_vad",
        "audio.input.turn_detection.silence_duration_ms": 700,
        "audio.output.speed": 1.2,
    }
    assert list(table.columns) == ["requested", "effective", "status", "reason"]
    assert set(table["status"]) == {"applied"}


async def test_a_slider_that_slides_is_sent_once_when_it_rests(session: rtnb.Session, monkeypatch: Any) -> None:
    control = await ready(TurnDetectionControl(session))
    for value in range(300, 590, 10):
        control.inputs["silence_duration_ms"].value = value  # as the page does
    monkeypatch.setattr(_settings_update, "DEBOUNCE_S", 0.0)  # the last timer replaces the others
    control.inputs["silence_duration_ms"].value = 590
    await eventually(lambda: status_of(control, "silence_duration_ms") == "applied")

    (update,) = updates(session)
    assert update.turn_detection == ServerVad(silence_duration_ms=590)


async def test_a_change_taken_back_sends_nothing_and_leaves_no_status(session: rtnb.Session) -> None:
    control = await ready(AnswerControl(session))
    before = control.voice
    control.voice = "cedar"
    assert shown(control, "voice") == "not sent yet"
    control.voice = before
    assert (await control.apply()).empty
    assert updates(session) == []


async def test_changes_before_there_is_a_session_are_sent_when_there_is_one(session: rtnb.Session) -> None:
    control = TurnDetectionControl(silence_duration_ms=200)  # also where it equals the knob's default
    control.threshold = 0.9
    assert [one.status for one in control.updater.statuses.values()] == ["pending", "pending"]
    control.updater.attach(session)
    await eventually(lambda: status_of(control, "threshold") == "applied")
    assert session.config.turn_detection.threshold == 0.9  # type: ignore[union-attr]


@both_dialects
async def test_push_to_talk_is_the_absence_of_turn_detection(session: rtnb.Session) -> None:
    control = TurnDetectionControl(session)
    await change(control, type="none")
    assert session.config.turn_detection is None
    assert status_of(control, "type") == "applied"
    assert not any(control.available(name) for name in control.knobs() if name != "type")

    await change(control, type="semantic_vad", eagerness="low")
    assert isinstance(session.config.turn_detection, SemanticVad)
    assert session.config.turn_detection.eagerness == "low"
    assert control.available("eagerness")
    assert not control.available("threshold")


@pytest.mark.parametrize(
    "simulator, status, reason",
    [("ga", "not sent", "only the preview dialect has it"), ("preview", "applied", "")],
    indirect=["simulator"],
)
async def test_a_knob_of_one_dialect_is_sent_only_there(session: rtnb.Session, status: str, reason: str) -> None:
    answer = await ready(AnswerControl(session))
    table = await change(answer, temperature=1.0)
    assert tuple(table.loc["temperature"])[2:] == (status, reason)
    assert shown(answer, "temperature") == (f"{status}: {reason}" if reason else status)
    assert len(updates(session)) == (status == "applied")


@both_dialects
@pytest.mark.parametrize("name, on, off", [("transcribe", True, False), ("model", "whisper-1", "")])
async def test_transcription_has_two_switches(session: rtnb.Session, name: str, on: Any, off: Any) -> None:
    listening = await ready(ListeningControl(session))
    assert (listening.transcribe, listening.available("model")) == (False, False)
    table = await change(listening, **{name: on}, language="en", noise_reduction="near_field")
    assert set(table["status"]) == {"applied"}
    heard: Any = session.config.audio.input  # type: ignore[union-attr]
    assert heard.transcription == Transcription(model="whisper-1", language="en")
    assert heard.noise_reduction.type == "near_field"
    assert shown(listening, "transcribe") == "applied"
    assert listening.available("model")

    await change(listening, **{name: off}, noise_reduction="off")
    assert not listening.transcribe
    heard = session.config.audio.input  # type: ignore[union-attr]
    assert (heard.transcription, heard.noise_reduction) == (None, None)


# --- statuses beside the knobs ----------------------------------------------------------------------------------------


async def test_applied_is_shown_for_a_while_and_then_the_help_again(session: rtnb.Session, monkeypatch: Any) -> None:
    control = AnswerControl(session)
    for shown_s, line in ((1e6, "applied"), (0.0, AnswerControl.knobs()["speed"].help)):
        monkeypatch.setattr(_settings_update, "APPLIED_S", shown_s)
        control.speed += 0.1
        await control.apply()
        await eventually(lambda line=line: shown(control, "speed") == line)
        assert status_of(control, "speed") == "applied"


async def test_a_refused_voice_returns_to_the_one_in_force_and_offers_a_new_session(session: rtnb.Session) -> None:
    await session.ask("Hello!")
    panel = await ready(SettingsPanel(session))
    panel.answer.voice = "cedar"
    panel.instructions.text = "Speak like a pirate."
    table = await panel.updater.apply()

    assert table.loc["audio.output.voice", "reason"].startswith("cannot_update_voice")
    lost = "lost together with audio.output.voice: a refused update changes nothing"
    assert tuple(table.loc["instructions", ["status", "reason"]]) == ("refused", lost)
    assert panel.answer.voice == panel.answer.inputs["voice"].value == session.config.voice
    assert "pirate" not in panel.instructions.text
    assert shown(panel.answer, "voice") == TEXTS["voice_is_fixed"]
    assert rows_with_a_button(panel.answer) == [], "there is no way to reconnect"

    opened: list[Any] = []
    panel.updater.on_reconnect = lambda: opened.append(panel.chosen)
    panel.answer.refresh()
    (row,) = rows_with_a_button(panel.answer)
    assert row.children[1].description == TEXTS["reconnect"]
    row.children[1].click()
    config = wire.decode_session(nested(opened[0]))
    assert config.voice == "cedar"
    async with rtnb.connect("sim", latency="fast", voice="babble", config=config) as another:
        panel.updater.attach(another)
        await eventually(lambda: panel.answer.voice == "cedar")
        assert status_of(panel.answer, "voice") == ""
        assert rows_with_a_button(panel.answer) == []
        assert panel.chosen["audio.output.voice"] == "cedar"


@pytest.mark.parametrize("name, requested, effective", [("speed", 1.4, 1.1), ("voice", "cedar", "marin")])
async def test_a_value_that_the_service_changes_is_shown_with_both(name: str, requested: Any, effective: Any) -> None:
    def script(messages: list[Message]) -> list[Message]:
        for message in messages:
            if message["type"] == "session.updated":
                message["session"]["audio"]["output"][name] = effective
        return messages

    async with Peer(script=script) as peer, with_peer(peer) as session:
        control = AnswerControl(session)
        table = await change(control, **{name: requested})
        assert tuple(table.loc[f"audio.output.{name}"])[:3] == (requested, effective, "changed")
        assert shown(control, name) == f"changed by the service: {requested} → {effective}"
        assert getattr(control, name) == effective


async def test_while_an_update_waits_for_its_reply_the_next_one_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_settings_update, "DEBOUNCE_S", 0.0)
    async with Peer(drop={"session.updated": 1}) as peer, with_peer(peer) as session:
        panel = await ready(SettingsPanel(session))
        panel.answer.speed = 1.2
        await eventually(lambda: updates(session))
        assert shown(panel.answer, "speed") == "sending"
        panel.instructions.text = "Be brief."  # before: it waited until the first update had timed out
        await eventually(lambda: status_of(panel.instructions, "text") == "applied")


async def test_a_timed_out_update_leaves_the_knobs_usable() -> None:
    async with Peer() as peer, with_peer(peer) as session:
        await session.update(speed=1.0)
        control = AnswerControl(session)
        await eventually(lambda: control.effective("speed") == 1.0)
        peer.drop["session.updated"] = 1
        session.request_timeout_s = 0.05
        table = await change(control, speed=1.2)
        assert table.loc["audio.output.speed", "status"] == "not confirmed"
        assert shown(control, "speed") == "not confirmed: session.update: no session.updated within 0.05 s"
        assert control.speed == 1.0
        session.request_timeout_s = 15.0
        assert (await change(control, speed=1.3)).loc["audio.output.speed", "status"] == "applied"


async def test_a_session_whose_loop_has_stopped_leaves_no_endless_pending() -> None:
    async def elsewhere() -> rtnb.Session:
        async with Peer() as peer:
            return await with_peer(peer)  # type: ignore[no-any-return]

    control = AnswerControl(await asyncio.to_thread(asyncio.run, elsewhere()))
    table = await change(control, speed=1.2)
    assert table.loc["audio.output.speed", "status"] in ("not sent", "not confirmed", "pending")
    assert shown(control, "speed") != "sending"


async def test_a_reason_of_the_service_is_text_and_holds_no_key() -> None:
    refusal = failure("bad", f"no {HOSTILE} sk-c0ffee5ec2e7c0ffee5ec2e7", param="session.audio.output.speed")
    async with Peer(refuse={"session.update": [refusal]}) as peer, with_peer(peer) as session:
        control = AnswerControl(session)
        await change(control, speed=1.2)
        assert status_of(control, "speed") == "refused"
        note = control._notes["speed"].value
        assert "<img" not in note
        assert "c0ffee" not in note


# --- presets of turn detection, instructions --------------------------------------------------------------------------


@pytest.mark.parametrize("name", TURN_PRESETS)
async def test_a_preset_sets_its_knobs_and_its_button_is_pressed(name: str, session: rtnb.Session) -> None:
    control = await ready(TurnDetectionControl(session))
    await change(control, threshold=0.8)
    assert control._presets.selected == ""
    control._presets._handle_custom_msg({"preset": name}, [])  # as the page does
    await control.apply()
    meaning, values = TURN_PRESETS[name]["meaning"], TURN_PRESETS[name]["knobs"]
    assert {key: getattr(session.config.turn_detection, key) for key in values} == values
    assert control._presets.selected == name
    assert [name, meaning] in control._presets.presets


async def test_typing_instructions_changes_nothing_until_they_are_applied(session: rtnb.Session) -> None:
    editor = await ready(InstructionsControl(session))
    own = editor.text
    editor.inputs["text"].value = HOSTILE
    assert shown(editor, "text") == "Draft: not applied yet"
    await editor.apply()
    assert (editor.text, updates(session)) == (own, [])

    editor._apply.click()
    await editor.apply()
    assert session.config.instructions == HOSTILE
    editor.reset()
    await editor.apply()
    assert session.config.instructions == own


async def test_a_draft_outlives_other_instructions(session: rtnb.Session) -> None:
    editor = await ready(InstructionsControl(session))
    editor.inputs["text"].value = "half a thou"
    await session.update(instructions="from elsewhere")
    await eventually(lambda: editor.text == "from elsewhere")
    assert editor.inputs["text"].value == "half a thou"


# --- as widgets -------------------------------------------------------------------------------------------------------


def test_an_unknown_knob_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(TypeError, match=r"'treshold'; did you mean 'threshold'"):
        TurnDetectionControl(treshold=0.5)


async def test_a_value_of_the_wrong_type_is_refused_and_the_knob_still_follows(session: rtnb.Session) -> None:
    control = await ready(AnswerControl(session))
    with pytest.raises(TraitError):
        control.speed = "fast"
    await session.update(speed=1.25)
    await eventually(lambda: control.speed == 1.25)


@pytest.mark.parametrize("cls", [*CONTROLS, SettingsPanel])
def test_a_closed_control_leaves_no_widget(cls: Any) -> None:
    before = set(ipywidgets.widgets.widget._instances)
    control = cls()
    control.close()
    control.close()
    assert set(ipywidgets.widgets.widget._instances) <= before
    assert repr(control) == f"<{cls.__name__}>"


async def test_a_closed_control_leaves_no_task_timer_or_subscription() -> None:
    async with Peer(drop={"session.updated": 1}) as peer, with_peer(peer) as session:
        before, subscribers = at_work(), session.log._subscribers
        panel = SettingsPanel()
        panel.answer.speed = 1.2
        panel.updater.attach(session)  # sends, and no reply comes
        await eventually(lambda: updates(session))
        panel.turn_detection.threshold = 0.9
        assert at_work() == before + 3, "the update, its look at the session's loop, and the timer of the second change"
        panel.close()
        await eventually(lambda: at_work() == before, 10)
        assert session.log._subscribers == subscribers
        await session.update(instructions="Be brief.")
        assert panel.instructions.text == ""
