"""`connect("sim", …)`: options of the simulator beside settings of the session."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

import rtnb
from rtnb.simulator import take_options
from rtnb.simulator.responder import Say, Turn
from rtnb.simulator.transcriber import Transcript
from rtnb.targets import resolve


class Parrot:
    """A responder with one sentence."""

    async def respond(self, turn: Turn) -> AsyncIterator[Say]:
        yield Say("Pieces of eight.")


class Listener:
    """A transcriber with one sentence."""

    name = "a listener"

    async def transcribe(self, audio: Any, *, rate_hz: int, language: str = "") -> Transcript:
        return Transcript("Polly wants a cracker.")

    async def aclose(self) -> None:
        pass


async def test_parts_of_the_simulator_are_options_of_connect() -> None:
    parts: dict[str, Any] = {"transcriber": Listener(), "responder": Parrot(), "turn_detector": "fade"}
    asked: dict[str, Any] = {"transcription": "whisper-1", "turn_detection": None, "instructions": "Be kind."}
    async with rtnb.connect("sim", voice="babble", latency="fast", **parts, **asked) as session:
        assert session.config.instructions == "Be kind."
        response = await session.say(rtnb.audio.babble("hello", rate_hz=24_000, seed=1).audio, rate_hz=24_000)
        assert response.transcript == "Pieces of eight."
        row = session.log.filter("conversation.item.input_audio_transcription.completed")[-1]
        assert row.event.transcript == "Polly wants a cracker."  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "voice, simulator", [("babble", True), ("espeak", True), ("neural", True), ("marin", False), ({"id": "v"}, False)]
)
def test_a_kind_of_voice_is_the_simulators_and_a_voice_of_the_service_the_sessions(voice: Any, simulator: bool) -> None:
    mixed = {"voice": voice, "instructions": "Be kind.", "seed": 3}
    taken = take_options(mixed)
    assert taken == {"seed": 3} | ({"voice": voice} if simulator else {})
    assert mixed == {"instructions": "Be kind."} | ({} if simulator else {"voice": voice})


async def test_another_target_refuses_the_simulators_options() -> None:
    with pytest.raises(TypeError, match="transcriber"):
        await rtnb.connect("ws://127.0.0.1:1", transcriber="whisper")


def test_resolve_leaves_settings_of_other_targets_alone() -> None:
    options = {"voice": "babble"}
    resolve("ws://127.0.0.1:1", options=options)
    assert options == {"voice": "babble"}


@pytest.mark.parametrize("wrong, said", [({"responder": "nonsense"}, "responder is 'nonsense'; allowed: 'rules'")])
def test_an_unknown_responder_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rtnb.Simulator(**wrong)


def test_a_responder_and_a_chat_service_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="not both"):
        rtnb.Simulator(responder=Parrot(), chat_url="http://127.0.0.1:1/v1")
