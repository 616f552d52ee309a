"""Callers of an experiment: scripts, and personas that a chat model plays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from rtnb.analysis.latency import AUDIBLE
from rtnb.audio import RATE_HZ, Audio, read_wav
from rtnb.client import Response, Session
from rtnb.errors import CaseError
from rtnb.experiments.case import Case, Turn
from rtnb.experiments.chat import ChatModel
from rtnb.simulator.voice import Voice, open_voice

_HANG_UP: Final = "[hang up]"
_BRIEF: Final = (
    "You play a person who calls a voice assistant. Speak as that person, one short turn at a time, without stage "
    f"directions. When your goal is reached, or you have lost patience, answer only {_HANG_UP}."
)


class Caller(Protocol):
    """Anything that decides what the user does next."""

    async def next_turn(self, heard: Sequence[tuple[str, str]]) -> Turn | None:
        """Return the next turn, None to hang up; `heard` has (role, text) of everything said so far."""


@dataclass(frozen=True)
class Persona:
    """A caller that a chat model plays.

    Parameters
    ----------
    chat : ChatModel
        Model that decides what the person says.
    goal : str
        What the person wants from the call.
    facts : str
        What the person knows: names, dates, numbers.
    style : str
        How the person speaks.
    patience : int, default 6
        Most turns; then the person hangs up.
    speak : bool, default True
        Speak the turns with the caller's voice; False types them.
    """

    chat: ChatModel
    goal: str
    facts: str = ""
    style: str = ""
    patience: int = 6
    speak: bool = True

    async def next_turn(self, heard: Sequence[tuple[str, str]]) -> Turn | None:
        """Ask the chat model for the next turn; None where it hangs up or patience ends."""
        if sum(role == "user" for role, _ in heard) >= self.patience:
            return None
        roles = {"user": "assistant", "assistant": "user"}  # the persona is the other side
        messages = [{"role": "system", "content": self.prompt}]
        messages += [{"role": roles[role], "content": text} for role, text in heard if role in roles]
        if len(messages) == 1:
            messages.append({"role": "user", "content": "(The call is connected. You speak first.)"})
        words = (await self.chat.answer(messages)).strip()
        if not words or _HANG_UP in words.lower():
            return None
        return Turn(say=words) if self.speak else Turn(text=words)

    @property
    def prompt(self) -> str:
        """The system prompt of the chat model; kept with every run."""
        parts = {"Goal": self.goal, "You know": self.facts, "Style": self.style}
        return "\n".join([_BRIEF, *(f"{name}: {text}" for name, text in parts.items() if text)])


@asynccontextmanager
async def opened_voice(kind: str | Voice, cases: Iterable[Case]) -> AsyncIterator[str | Voice]:
    """Open the voice that a case needs and close it again; yield `kind` as it is where none needs one."""
    if not isinstance(kind, str) or not any(map(_speaks, cases)):
        yield kind
        return
    voice = await open_voice(kind)
    try:
        yield voice
    finally:
        await voice.aclose()


def _speaks(case: Case) -> bool:
    user = case.user
    return any(turn.say for turn in user) if isinstance(user, tuple) else bool(getattr(user, "speak", True))


async def converse(session: Session, case: Case, voice: Any, *, timeout_s: float = 60.0) -> None:
    """Hold the conversation of a case; the log of the session has everything that was said.

    Raises
    ------
    CaseError
        A turn that cannot be played here.
    """
    response: Response | None = None
    script = list(case.user) if isinstance(case.user, tuple) else None
    number = 0
    while True:
        if script is None:
            turn = await case.user.next_turn(_heard(session))
        else:
            turn = script[number] if number < len(script) else None
        following = script[number + 1] if script is not None and number + 1 < len(script) else None
        if turn is None:
            break
        sound = None if turn.text else await _sound(turn, voice)
        if turn.interrupt:
            if response is None:
                raise CaseError(f"case {case.id!r}, turn {number + 1}: there is no answer to interrupt")
            await _until_heard(session, response, turn, timeout_s=timeout_s)
        else:
            if response is not None:
                await _played(session, response)
            await asyncio.sleep(turn.after_ms / 1000)
        stream = following is not None and following.interrupt
        response = await _perform(session, turn, sound, stream=stream) or response
        number += 1
    if response is not None and not response.done:
        await response.wait_done()


async def _perform(session: Session, turn: Turn, sound: tuple[Audio, int] | None, *, stream: bool) -> Response | None:
    if sound is None:
        return await session.ask(turn.text, stream=stream)
    audio, rate_hz = sound
    if turn.kind != "speech":
        await session.say(audio, rate_hz=rate_hz, respond=False)
        return None
    answer: Response = await session.say(audio, rate_hz=rate_hz, stream=stream)
    return answer


async def _sound(turn: Turn, voice: Any) -> tuple[Audio, int]:
    """Return the audio of a spoken turn and its rate; an interruption without the silence in front of it."""
    if turn.audio:
        audio, rate_hz = read_wav(turn.audio)
    else:
        audio, rate_hz = (await voice.speak(turn.say)).audio, RATE_HZ
    loud = np.flatnonzero(np.abs(audio) > AUDIBLE)
    return (audio[loud[0] :] if turn.interrupt and len(loud) else audio), rate_hz


async def _until_heard(session: Session, response: Response, turn: Turn, *, timeout_s: float) -> None:
    """Wait until the moment in the playback of the answer at which an interruption begins.

    The words of an answer arrive ahead of its sound; a word is played at about its share of the characters.
    """
    async with asyncio.timeout(timeout_s):
        async for delta in response:
            if delta.kind == "audio":
                break
        else:
            raise CaseError("the answer has no sound to interrupt; ask for output_modalities='audio'")
        first_s = response.requested_s + (response.time_to_first_audio_ms or 0.0) / 1000
        if not turn.at_word:
            await asyncio.sleep(max(0.0, first_s + turn.after_ms / 1000 - time.monotonic()))
            return
        await response.wait_done()
        place = response.transcript.lower().find(turn.at_word.lower())
        if place < 0:
            raise CaseError(f"the answer has no word {turn.at_word!r}: {response.transcript[:80]!r}")
        heard_s = response.audio_ms / 1000 * place / max(1, len(response.transcript))
        await asyncio.sleep(max(0.0, first_s + heard_s - time.monotonic()))


async def _played(session: Session, response: Response) -> None:
    """Wait until an answer is complete, and where turn detection listens, until it has been played."""
    await response.wait_done()
    if session.config.turn_detection and response.audio_ms:
        end_s = response.requested_s + ((response.time_to_first_audio_ms or 0.0) + response.audio_ms) / 1000
        if response.status == "completed":
            await asyncio.sleep(max(0.0, end_s - time.monotonic()))


def _heard(session: Session) -> list[tuple[str, str]]:
    """Return (role, text) of the messages of the conversation, in order."""
    found = []
    for item in session.state.conversation:
        if item.type == "message" and item.role in ("user", "assistant"):
            parts = (part.transcript or part.text or "" for part in item.content or ())
            found.append((item.role, " ".join(part for part in parts if part)))
    return found
