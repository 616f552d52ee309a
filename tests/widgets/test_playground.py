"""The playground without a page: driven from Python, closed, run again, and what goes wrong said in words."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import ipywidgets
import numpy as np
import pytest

import rtnb
from rtnb.analysis.latency import POINTS
from rtnb.errors import ConnectError, LocalProtocolError
from rtnb.widgets.connection import ConnectionControl
from rtnb.widgets.playground import Playground
from tests.widgets.page import eventually

KEY = "typed-in-by-hand-0123456789abcdef"


@pytest.fixture
def simulator() -> Iterator[rtnb.Simulator]:
    with rtnb.Simulator(latency="fast", voice="babble") as started:
        yield started


async def test_it_opens_and_a_line_of_code_is_a_knob(simulator: rtnb.Simulator) -> None:
    playground = Playground(simulator, instructions="Be brief.")
    playground.turn_detection.silence_duration_ms = 300
    statuses = await playground.apply()

    assert statuses.loc["audio.input.turn_detection.silence_duration_ms", "status"] == "applied"
    assert playground.session.config.turn_detection.silence_duration_ms == 300  # type: ignore[union-attr]
    assert playground.session.config.instructions == "Be brief."
    assert "session.updated" in set(playground.session.log.to_frame()["type"])
    playground.close()


async def test_asking_and_saying_fill_the_figures(simulator: rtnb.Simulator) -> None:
    playground = Playground(simulator, turn_detection=None)
    assert (await playground.ask("Hello!")).transcript
    spoken = await playground.say(simulator.speech("What is a delta?").audio, rate_hz=24_000)
    assert spoken.transcript
    await eventually(lambda: [turn.kind for turn in playground.talk.latency.turns] == ["text", "push to talk"])
    await eventually(lambda: len(playground.talk.cost.charges) == 2)
    names = [name for name, _, _ in playground.talk.status]
    assert names == ["acoustic end", "commit sent", *POINTS, "total", "tokens", "cost"]
    assert playground.talk.status[0][1] == "n/a"  # no microphone heard it
    await eventually(lambda: len(playground.talk._heard) == 2)
    assert [row[0] for row in playground.talk._heard] == list(playground.session.playback.heard().index)
    playground.close()


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
    await eventually(lambda: [turn for turn in playground.talk.latency.turns if turn.first_audible_s], 20)
    (turn,) = playground.talk.latency.turns
    last = (len(quiet) + np.flatnonzero(np.abs(question) > 0.01)[-1]) // 480  # the last loud frame
    log = playground.session.log
    sent = log.filter("input_audio_buffer.append")
    # It was heard when it was spoken, at the earliest, and before it was sent, however late a busy machine was.
    assert started_s + 0.02 * (last + 1) - 0.001 <= turn.acoustic_s <= sent[last].monotonic_s
    (committed,) = log.filter("input_audio_buffer.committed")
    assert turn.ms("commit") == pytest.approx(1000 * (committed.monotonic_s - turn.acoustic_s))
    assert 20 * (sum(row.number < committed.number for row in sent) - last - 1) > 290  # ms of silence until then
    await eventually(lambda: playground.talk.status[:1] == [["acoustic end", "0", playground.talk.status[0][2]]])
    playground.disconnect()
    await eventually(lambda: microphone.state != "on")
    playground.close()


async def test_a_call_waits_for_a_click_and_gives_way(simulator: rtnb.Simulator) -> None:
    with pytest.raises(ValueError, match="'websocket', 'webrtc'"):
        Playground(simulator, transport="carrier pigeon")
    before = set(ipywidgets.widgets.widget._instances)
    playground = Playground(simulator, transport="webrtc")
    await eventually(lambda: playground.peer is not None)
    with pytest.raises(ConnectError, match="not connected"):
        await playground.ask("Hello?")
    assert playground.connection.state == "closed"
    playground._way.value = "websocket"
    assert (await playground.ask("Hello!")).transcript
    assert playground.peer not in playground._voice.children
    playground.close()
    assert set(ipywidgets.widgets.widget._instances) <= before | {playground.children[-1].comm.comm_id}


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
    playground.close()


async def test_a_simulator_of_its_own_ends_with_the_session() -> None:
    playground = Playground(rtnb.Simulator(latency="fast", voice="babble"))
    target = playground._target
    assert playground.session.id
    assert target.running
    playground.disconnect()
    await eventually(lambda: not target.running)
    playground.connect()
    assert playground.session.id
    playground.close()
    assert not target.running


async def test_the_end_of_the_session_is_said(simulator: rtnb.Simulator) -> None:
    playground = Playground(simulator)
    assert playground.session.id
    await asyncio.to_thread(simulator.stop)
    await eventually(lambda: playground.connection.state == "closed")
    assert playground.connection.message
    with pytest.raises(rtnb.RtnbError, match="no open session"):
        await playground.ask("Hello?")
    playground.close()


async def test_running_its_cell_again_closes_the_one_before(simulator: rtnb.Simulator) -> None:
    first = Playground(simulator, name="cell")
    session = first.session
    second = Playground(simulator, name="cell")
    assert session.closed
    assert second.session is not session
    other = Playground(simulator, name="another cell")
    assert not second.session.closed
    for playground in (second, other):
        playground.close()


async def test_closing_leaves_nothing_behind(simulator: rtnb.Simulator) -> None:
    with_line = Playground(simulator)  # the line stays for the life of the kernel
    with_line.close()
    before = set(ipywidgets.widgets.widget._instances)
    playground = Playground(simulator)
    assert playground.session.id
    playground.close()
    playground.close()
    left = [
        type(ipywidgets.widgets.widget._instances[one]).__name__
        for one in ipywidgets.widgets.widget._instances.keys() - before
    ]
    assert left == []


async def test_what_goes_wrong_is_said_in_words_and_raised_where_it_is_asked_for() -> None:
    playground = Playground("ws://127.0.0.1:9")
    with pytest.raises(ConnectError):
        _ = playground.session
    assert playground.connection.state == "failed"
    assert "127.0.0.1:9" in playground.connection.message
    assert "Traceback" not in playground.connection.message
    playground.close()


def test_an_unknown_setting_or_target_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="'temprature'; did you mean 'temperature'"):
        Playground("sim", temprature=1.0)
    with pytest.raises(LocalProtocolError, match=r"wrong setting: .*threshold"):
        Playground("sim", turn_detection={"threshold": 7.0})
    with pytest.raises(ConnectError, match="allowed"):
        Playground("simm")


# --- keys -------------------------------------------------------------------------------------------------------------


def everything_saved() -> str:
    """All that a notebook with saved widget state could hold of the widgets of this process."""
    widgets = ipywidgets.widgets.widget._instances.values()
    return json.dumps([[repr(widget), widget.get_state()] for widget in widgets], default=str)


async def test_a_typed_key_opens_the_session_and_is_nowhere_to_be_read() -> None:
    with rtnb.Simulator(latency="fast", voice="babble", key=KEY, faults=()) as simulator:
        playground = Playground(rtnb.Custom(simulator.url.replace("http", "ws")))
        playground.connection._handle_custom_msg({"kind": "key", "key": f" {KEY}\n"}, [])
        assert playground.session.id
        assert KEY not in everything_saved()
        assert KEY not in "".join(map(repr, vars(playground).values()))
        assert KEY not in playground.session.log.to_frame().to_csv()
        playground.close()


async def test_a_simulator_takes_no_key(simulator: rtnb.Simulator) -> None:
    playground = Playground(simulator)
    assert not playground.connection.takes_key
    playground.close()


async def test_the_connection_alone_shows_a_session_and_ends_it(simulator: rtnb.Simulator) -> None:
    async with rtnb.connect(simulator) as session:  # on this loop
        connection = ConnectionControl(session)
        await eventually(lambda: connection.session_id == session.id)
        assert (connection.state, connection.dialect, connection.can_connect) == ("open", "ga", False)
        assert connection.expires_at == session.expires_at
        connection._handle_custom_msg({"kind": "disconnect"}, [])
        await eventually(lambda: connection.state == "closed")
        assert session.closed
        connection.close()


# --- the page's words to the talk bar ---------------------------------------------------------------------------------


async def test_a_recording_comes_in_pieces_and_a_broken_one_is_explained(simulator: rtnb.Simulator) -> None:
    from rtnb._loop import shared_loop
    from rtnb.audio import encode_pcm16

    playground = Playground(simulator, turn_detection=None)
    assert playground.session.id
    talk: Any = playground.talk
    sound = encode_pcm16(simulator.speech("What is a delta?").audio)

    def say(kind: str, header: dict[str, Any], *buffers: bytes) -> None:
        shared_loop().call_soon(talk._on_message, kind, header, list(buffers))

    say("sound", {"first": True, "more": True, "rate_hz": 24_000}, sound[:50_000])
    say("sound", {"first": False, "more": False, "rate_hz": 24_000}, sound[50_000:])
    await eventually(lambda: talk.latency.turns and talk.latency.turns[-1].done_s, 20)
    assert talk.problem == ""
    say("sound", {"first": True, "more": False, "rate_hz": None}, b"RIFFnonsense")
    await eventually(lambda: talk.problem)
    assert "Traceback" not in talk.problem
    say("interrupt", {})
    await eventually(lambda: not talk.problem)
    playground.close()


async def test_reconnecting_at_once_waits_for_the_end_of_a_session_that_owns_its_simulator() -> None:
    playground = Playground(rtnb.Simulator(latency="fast", voice="babble"))
    assert (await playground.ask("Hello!")).status == "completed"
    playground.disconnect()
    playground.connect()
    assert (await playground.ask("Hello again!")).status == "completed"
    playground.close()
