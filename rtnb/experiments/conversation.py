"""A conversation of a case, whose turns are typed, spoken, or interrupt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import numpy as np

from rtnb.analysis.latency import AUDIBLE
from rtnb.audio import RATE_HZ, Audio, read_wav
from rtnb.client import Response, Session
from rtnb.client.dispatcher import creates_response
from rtnb.errors import CaseError
from rtnb.experiments.case import Case, Turn
from rtnb.simulator.responder import text_of
from rtnb.simulator.voice import Voice, open_voice

CHECK_S: Final = 0.02
"""Time between two looks at the playback (chosen)."""


@asynccontextmanager
async def opened_voice(kind: str | Voice, cases: Iterable[Case]) -> AsyncIterator[str | Voice]:
    """Open the voice that a case needs and close it again; yield `kind` as it is where none needs one."""
    turns = [turn for case in cases for turn in (case.user if isinstance(case.user, tuple) else [case.user])]
    if isinstance(kind, str) and any(getattr(turn, "say", True) for turn in turns):
        async with aclosing(await open_voice(kind)) as voice:
            yield voice
    else:
        yield kind


async def converse(session: Session, user: Any, voice: Any) -> None:
    """Hold a conversation; the log of the session has everything that was said.

    Parameters
    ----------
    session : Session
        Open.
    user : sequence of Turn, or Caller
        See `Case.user`.
    voice : Voice or str
        Speaks the turns with `say`.

    Raises
    ------
    CaseError
        A turn that cannot be played here.
    """
    response: Response | None = None
    async for turn in _turns(session, user):
        sound = None if turn.text else await _sound(turn, voice)
        if turn.interrupt and response is not None:
            await _until_heard(response, turn)
        else:
            if response is not None:
                await session.follow(response)
            if session.config.turn_detection:  # it would hear the user interrupt
                await until_played(session)
            await asyncio.sleep(turn.after_ms / 1000)
        response = await _perform(session, turn, sound) or response
        if response is not None and not isinstance(user, tuple):
            await session.follow(response)  # the caller answers to it
    if response is not None:
        await session.follow(response)


async def _turns(session: Session, user: Any) -> AsyncIterator[Turn]:
    if isinstance(user, tuple):
        for turn in user:
            yield turn
    else:
        while (turn := await user.next_turn(_heard(session))) is not None:
            yield turn


async def _perform(session: Session, turn: Turn, sound: tuple[Audio, int] | None) -> Response | None:
    if sound is None:
        return await session.ask(turn.text, stream=True)
    (audio, rate_hz), detection = sound, session.config.turn_detection
    respond = turn.kind == "speech" and (not detection or creates_response(detection))
    return await session.say(audio, rate_hz=rate_hz, respond=respond, stream=True)  # type: ignore[no-any-return]


async def _sound(turn: Turn, voice: Any) -> tuple[Audio, int]:
    """Return the audio of a spoken turn and its rate; an interruption without the silence in front of it."""
    audio, rate_hz = read_wav(turn.audio) if turn.audio else ((await voice.speak(turn.say)).audio, RATE_HZ)
    loud = np.flatnonzero(np.abs(audio) > AUDIBLE)
    return (audio[loud[0] :] if turn.interrupt and len(loud) else audio), rate_hz


async def _until_heard(response: Response, turn: Turn) -> None:
    """Wait until the moment in the playback of the answer at which an interruption begins.

    The words of an answer arrive ahead of its sound; a word is played at about its share of the characters.
    """
    async for delta in response:
        if delta.kind == "audio":
            break
    else:
        raise CaseError("the answer has no sound to interrupt; ask for output_modalities='audio'")
    at_ms = (response.time_to_first_audio_ms or 0.0) + turn.after_ms
    if turn.at_word:
        await response.wait_done()
        place = response.transcript.lower().find(turn.at_word.lower())
        if place < 0:
            raise CaseError(f"the answer has no word {turn.at_word!r}: {response.transcript[:80]!r}")
        at_ms += response.audio_ms * place / len(response.transcript)
    await asyncio.sleep(response.requested_s + at_ms / 1000 - time.monotonic())


async def until_played(session: Session) -> None:
    """Wait until no response is in progress and none is being played."""
    end_s = time.monotonic() + session.response_timeout_s
    while session.playback.playing or (session.state.active_response_id and time.monotonic() < end_s):  # noqa: ASYNC110
        await asyncio.sleep(CHECK_S)  # the playback does not announce its end


def _heard(session: Session) -> list[tuple[str, str]]:
    """Return (role, text) of the messages of the conversation, in order."""
    messages = (item for item in session.state.conversation if item.type == "message")
    return [(str(item.role), text_of(item) or "") for item in messages]
