"""The playground without a page: driven from Python, closed, run again, and what goes wrong said in words."""

import asyncio
import io
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ipywidgets.widgets.widget import _instances

import rtnb
from rtnb._loop import shared_loop
from rtnb.analysis.latency import POINTS
from rtnb.audio import write_wav
from rtnb.errors import ConnectError, LocalProtocolError, RequestTimeout
from rtnb.widgets import playground as playground_module
from rtnb.widgets.channel import shared_channel
from rtnb.widgets.connection import ConnectionControl
from rtnb.widgets.message_bar import MessageBar
from rtnb.widgets.playground import Playground
from rtnb.widgets.transcript import Transcript
from rtnb.widgets.waveform import Waveform
from tests.widgets.page import eventually
from tests.widgets.scene import turn


async def test_it_opens_and_a_line_of_code_is_a_knob(simulator: rtnb.Simulator) -> None:
    playground = Playground(simulator, instructions="Be brief.")
    playground.turn_detection.silence_duration_ms = 300
    outcome = await playground.apply()

    assert outcome.loc["audio.input.turn_detection.silence_duration_ms", "status"] == "applied"
    assert playground.session.config.turn_detection.silence_duration_ms == 300  # type: ignore[union-attr]
    assert playground.session.config.instructions == "Be brief."
    assert not playground.connection.takes_key, "a simulator takes none"


async def test_asking_and_saying_fill_the_figures(simulator: rtnb.Simulator) -> None:
    playground = Playground(simulator, turn_detection=None)
    assert (await playground.ask("Hello!")).transcript
    spoken = await playground.say(simulator.speech("What is a delta?").audio, rate_hz=24_000)
    assert spoken.transcript
    await eventually(lambda: [turn.kind for turn in playground.latency.turns] == ["text", "push to talk"])
    await eventually(lambda: sum(charge.what == "response" for charge in playground.connection.cost.charges) == 2)
    bar = playground.message_bar
    assert [line.split(":")[0] for line in bar.figures.splitlines()] == ["acoustic end", "end of speech", *POINTS]
    assert bar.figures.startswith("acoustic end: n/a"), "no microphone recorded it"
    assert re.fullmatch(r"end of speech → first audio \d+ ms", bar.last_turn)
    assert re.fullmatch(r"2 turns · \d+ tokens", playground.connection.usage)


async def test_it_records_into_a_file_and_shows_its_trace(simulator: rtnb.Simulator, tmp_path: Path) -> None:
    playground = Playground(simulator, turn_detection=None, trace=tmp_path / "talk.rtnb")
    answer = await playground.ask("Hello!")
    with playground.trace as so_far:
        assert so_far.turns[1].text == answer.transcript
    playground.close()
    await eventually((tmp_path / "talk.rtnb").exists)
    with rtnb.Trace(tmp_path / "talk.rtnb") as recorded:
        assert recorded.turns[1].text == answer.transcript


async def test_a_spoken_turn_counts_from_the_acoustic_end(simulator: rtnb.Simulator) -> None:
    question = simulator.speech("What is a delta?").audio
    detection = rtnb.ServerVad(silence_duration_ms=300)
    quiet = [0.0] * 13 * 480  # so that the last loud sample is in the second half of its frame of 20 ms, which ends so
    playground = Playground(simulator, microphone=quiet + list(question), turn_detection=detection)
    assert playground.session.id
    microphone: Any = playground.microphone
    assert microphone.counts["captured"] == 0  # off until somebody starts it
    started_s = time.monotonic()
    microphone.start()
    await eventually(lambda: [turn for turn in playground.latency.turns if turn.first_audible_s], 20)
    (turn,) = playground.latency.turns
    last = (len(quiet) + np.flatnonzero(np.abs(question) > 0.01)[-1]) // 480  # the last loud frame
    log = playground.session.log
    sent = log.filter("input_audio_buffer.append")
    # It was heard when it was spoken, at the earliest, and before it was sent, however late a busy machine was.
    assert started_s + 0.02 * (last + 1) - 0.001 <= turn.acoustic_s <= sent[last].monotonic_s
    (committed,) = log.filter("input_audio_buffer.committed")
    assert turn.ms("commit") == pytest.approx(1000 * (committed.monotonic_s - turn.acoustic_s))
    assert 20 * (sum(row.number < committed.number for row in sent) - last - 1) > 290  # ms of silence until then
    await eventually(lambda: playground.message_bar.figures.startswith("acoustic end: 0 ms"))
    playground.disconnect()
    await eventually(lambda: microphone.state != "on")


async def test_a_call_waits_for_a_click_and_gives_way(simulator: rtnb.Simulator) -> None:
    before = set(_instances)
    playground = Playground(simulator, transport="webrtc")
    await eventually(lambda: playground.peer is not None)
    with pytest.raises(ConnectError, match="not connected"):
        await playground.ask("Hello?")
    assert playground.connection.state == "closed"
    playground._choice.value = "websocket"
    assert (await playground.ask("Hello!")).transcript
    assert playground.peer not in playground._frame.children
    playground.close()
    assert set(_instances) <= before | {shared_channel().comm.comm_id}


async def test_it_disconnects_and_connects_again_with_its_settings(simulator: rtnb.Simulator) -> None:
    playground = Playground(simulator, request_timeout_s=7.0)
    first = playground.session
    playground.answer.voice, playground.turn_detection.type = "sage", "none"
    await playground.apply()
    playground.disconnect()
    await eventually(lambda: playground.connection.state == "closed")
    assert playground.session is first  # what was said stays to be read
    assert first.closed

    playground.connect()
    assert playground.session is not first
    assert playground.session.config.voice == "sage"
    assert playground.session.config.turn_detection is None
    assert playground.session.request_timeout_s == 7.0


async def test_a_simulator_of_its_own_ends_with_the_session_and_before_the_next_begins() -> None:
    simulator = rtnb.Simulator(latency="fast", voice="babble")
    playground = Playground(simulator)
    assert (await playground.ask("Hello!")).status == "completed"
    playground.disconnect()
    playground.connect()  # at once: the new session waits for the end of the old one
    assert (await playground.ask("Hello again!")).status == "completed"
    playground.disconnect()
    await eventually(lambda: not simulator.running)
    playground.connect()
    assert playground.session.id
    playground.close()
    assert not simulator.running


async def test_the_end_of_the_session_is_said(simulator: rtnb.Simulator) -> None:
    playground = Playground(simulator)
    assert playground.session.id
    await asyncio.to_thread(simulator.stop)
    await eventually(lambda: playground.connection.state == "closed")
    assert playground.connection.message
    with pytest.raises(rtnb.RtnbError, match="the service ended the session"):
        await playground.ask("Hello?")


async def test_a_playground_replaces_the_one_of_its_name(simulator: rtnb.Simulator) -> None:
    first, second, other = (Playground(simulator, name=name).session for name in ("cell", "cell", "another cell"))
    assert [session.closed for session in (first, second, other)] == [True, False, False]


@pytest.mark.parametrize(
    "first_cell, next_cell, closes",
    [
        pytest.param("cell", "cell", True, id="the cell again"),
        pytest.param("cell", "another cell", False, id="another cell"),
        pytest.param(None, None, False, id="no ids of cells, as in Voilà and nbclient"),
    ],
)
async def test_the_next_run_of_a_cell_closes_its_playgrounds(
    simulator: rtnb.Simulator,
    first_cell: str | None,
    next_cell: str | None,
    closes: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def runs(run: str, cell: str | None) -> rtnb.Session:
        parent = {"header": {"msg_id": run}, "metadata": {"cellId": cell} if cell else {}}
        kernel = SimpleNamespace(get_parent=lambda: parent)
        monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=kernel))
        return Playground(simulator).session

    two = [runs("run 1", first_cell) for _ in range(2)]
    assert not any(session.closed for session in two), "both are of one run"
    assert not runs("run 2", next_cell).closed
    assert [session.closed for session in two] == [closes, closes]


async def test_a_session_that_does_not_open_names_what_was_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)  # accepts, and never answers
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setattr(playground_module, "OPENING_S", 0.2)
    playground = Playground(f"ws://127.0.0.1:{port}", timeout_s=20.0)
    with pytest.raises(RequestTimeout, match=rf"no answer of ws://127.0.0.1:{port}\S* within 0.2 s"):
        _ = playground.session
    monkeypatch.undo()
    playground.close()
    server.close()


async def test_the_simulator_transcribes_unless_told_otherwise(simulator: rtnb.Simulator) -> None:
    assert Playground(simulator).session.config.audio.input.transcription  # type: ignore[union-attr]
    playground = Playground(simulator, transcription=None)
    assert not playground.session.config.audio.input.transcription  # type: ignore[union-attr]
    shared_loop().call_soon(playground.transcript._on_message, "transcribe", {}, [])
    await eventually(lambda: playground.session.config.audio.input.transcription)  # type: ignore[union-attr]


async def test_show_and_height_choose_parts(simulator: rtnb.Simulator) -> None:
    playground = Playground(simulator, show=("conversation", "events"), height=420)
    assert playground.session.id
    await eventually(lambda: playground.transcript in playground._frame.children)
    assert playground.waveform not in playground._frame.children
    assert playground._frame.layout.height == "420px"
    assert len(playground._tabs.children) == 1
    playground.inspector.n_events = 1_204  # as a page that shows them sets it
    assert playground._tabs.titles == ("Events 1.2k",)


async def test_one_selection_in_conversation_time_axis_and_events(simulator: rtnb.Simulator) -> None:
    playground = Playground(simulator)
    await playground.ask("Hello!")
    await eventually(lambda: playground.transcript.entries)
    index = playground.transcript.entries[-1].index
    playground.transcript.selected_index = index
    assert playground.waveform.selected_index == index
    assert playground.inspector.selected_index == index
    playground.inspector.selected_index = 0
    assert (playground.transcript.selected_index, playground.waveform.selected_index) == (0, 0)


async def test_closing_leaves_nothing_behind_and_says_so(simulator: rtnb.Simulator) -> None:
    shared_channel()  # stays for the life of the kernel
    before = set(_instances)
    playground = Playground(simulator)
    assert playground.session.id
    playground.close()
    playground.close()
    assert [type(_instances[one]).__name__ for one in _instances.keys() - before] == []
    with pytest.raises(ConnectError, match="the playground is closed"):
        _ = playground.session
    with pytest.raises(ConnectError, match="the playground is closed"):
        await playground.ask("Hello?")
    with pytest.raises(ConnectError, match="the playground is closed"):
        playground.connect()


async def test_what_goes_wrong_is_said_in_words_and_raised_where_it_is_asked_for() -> None:
    playground = Playground("ws://127.0.0.1:9")
    with pytest.raises(ConnectError):
        _ = playground.session
    assert playground.connection.state == "failed"
    assert "127.0.0.1:9" in playground.connection.message
    assert "Traceback" not in playground.connection.message


@pytest.mark.parametrize(
    "target, options, error, words",
    [
        ("sim", {"temprature": 1.0}, TypeError, "'temprature'; did you mean 'temperature'"),
        ("sim", {"turn_detection": {"threshold": 7.0}}, LocalProtocolError, "wrong setting: .*threshold"),
        ("simm", {}, ConnectError, "allowed"),
        ("sim", {"transport": "carrier pigeon"}, ValueError, "'websocket', 'webrtc'"),
        ("sim", {"show": ("conversation", "event")}, ValueError, "'events', 'code'"),
    ],
)
def test_wrong_arguments_are_refused_at_once(target: str, options: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        Playground(target, **options)


async def test_the_connection_alone_shows_a_session_and_ends_it(session: rtnb.Session) -> None:
    connection = ConnectionControl(session)
    await eventually(lambda: connection.session_id == session.id)
    assert (connection.state, connection.dialect, connection.can_connect) == ("open", "ga", False)
    assert connection.expires_at == session.expires_at
    connection._handle_custom_msg({"kind": "disconnect"}, [])
    await eventually(lambda: connection.state == "closed")
    assert session.closed


# --- messages of the page to the message bar --------------------------------------------------------------------------


def upload(bar: MessageBar, sound: bytes, *, piece_bytes: int = 50_000) -> None:
    """Send a sound file as the page does."""
    for at in range(0, len(sound), piece_bytes):
        header = {"upload": {"id": "u", "at": at, "size": len(sound)}}
        shared_loop().call_soon(bar._on_message, "sound", header, [sound[at : at + piece_bytes]])


def wav(audio: Any) -> bytes:
    file = io.BytesIO()
    write_wav(file, audio, rate_hz=24_000)
    return file.getvalue()


async def test_an_audio_file_is_sent_and_a_broken_one_is_explained(simulator: rtnb.Simulator) -> None:
    playground = Playground(simulator, turn_detection=None)
    assert playground.session.id
    bar = playground.message_bar
    upload(bar, wav(simulator.speech("What is a delta?").audio))
    await eventually(lambda: bar.latency.turns and bar.latency.turns[-1].done_s, 20)
    await eventually(lambda: not bar.busy)
    assert not bar.is_problem
    upload(bar, b"RIFFnonsense")
    await eventually(lambda: bar.is_problem)
    assert "no sound file that can be read" in bar.status
    shared_loop().call_soon(bar._on_message, "interrupt", {}, [])
    await eventually(lambda: not bar.is_problem)


async def test_a_recording_that_is_being_sent_can_be_cancelled() -> None:
    playground = Playground(rtnb.Simulator(latency="real_time", voice="babble"), turn_detection=None)
    assert playground.session.id
    bar = playground.message_bar
    upload(bar, wav([0.0] * 24_000 * 60), piece_bytes=2**20)
    await eventually(lambda: bar.busy)
    shared_loop().call_soon(bar._on_message, "cancel", {}, [])
    await eventually(lambda: not bar.busy)
    assert (bar.status, bar.is_problem) == ("", False)


async def test_the_status_line_shows_the_newest_problem_and_takes_it_back() -> None:
    bar = MessageBar()
    bar.set_status("message", "Waiting for the answer …")
    bar.set_status("microphone", "No microphone was found.", is_problem=True)
    bar.set_status("speaker", "Click anywhere.", is_problem=True)
    assert (bar.status, bar.is_problem) == ("Click anywhere.", True)
    bar.set_status("speaker")
    assert bar.status == "No microphone was found."
    bar.set_status("microphone")
    assert (bar.status, bar.is_problem) == ("Waiting for the answer …", False)


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_script_that_had_a_playground_ends() -> None:
    script = """
import rtnb
with rtnb.Simulator(voice="babble") as simulator:
    playground = rtnb.Playground(simulator)
    playground.session
    playground.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", [Transcript, Waveform, MessageBar])
def test_a_view_that_closes_after_the_loop_starts_no_thread(kind: Any) -> None:
    view = kind()
    view.session = rtnb.EventLog()
    turn()  # it follows the log
    shared_loop().stop()
    view.close()
    assert not shared_loop().running
