"""Who decides what is said: a scenario's steps, a chat model, or the rules; one brain per session."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from rtnb.protocol import Item
from rtnb.simulator.behaviour import Behaviour, Call, Say, Turn, text_of
from rtnb.simulator.chat import ChatBrain
from rtnb.simulator.pacing import LatencyProfile
from rtnb.simulator.scenario import Scenario, Step

MakeBehaviour = Callable[[int], Behaviour]
"""session number -> its behaviour."""


class Chat:
    """Asks a language model; the words are its own, and so are its mistakes."""

    def __init__(self, brain: ChatBrain) -> None:
        self._brain = brain

    async def reply(self, turn: Turn) -> AsyncIterator[Say | Call]:
        """Stream the model's reply, sentence by sentence."""
        tools = [] if turn.tool_choice == "none" else list(turn.tools)
        messages = [{"role": "system", "content": turn.instructions}, *map(chat_message, turn.items())]
        async with contextlib.aclosing(self._brain.reply(messages, tools=tools)) as pieces:
            async for piece in pieces:
                yield piece


def chat_message(item: Item) -> dict[str, Any]:
    """An item as a chat completions message."""
    if item.type == "function_call":
        function = {"name": item.name, "arguments": item.arguments or "{}"}
        call = {"id": item.call_id, "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if item.type == "function_call_output":
        return {"role": "tool", "tool_call_id": item.call_id, "content": item.output or ""}
    words = text_of(item) or "[speech that was not transcribed]"
    return {"role": item.role or "user", "content": words}


class Play:
    """Plays a scenario; where no step fits, `otherwise` answers.

    Parameters
    ----------
    scenario : Scenario
        The steps.
    otherwise : Behaviour
        For turns the scenario does not foresee.
    """

    def __init__(self, scenario: Scenario, otherwise: Behaviour) -> None:
        self.scenario = scenario
        self._otherwise = otherwise
        self._played: set[int] = set()
        self._turn = 0
        self.step: Step | None = None
        """The step in force, None where the rules answer."""

    def hear(self) -> str | None:
        """What a spoken turn that comes now is taken to have said; None where the scenario does not know."""
        index = self.scenario.choose(text=None, turn=self._turn + 1, speech=True, played=self._played)
        return None if index is None else self.scenario.steps[index].hear

    def next_step(self, text: str | None, *, speech: bool) -> Step | None:
        """Choose the step of the turn that begins now."""
        self._turn += 1
        index = self.scenario.choose(text=text, turn=self._turn, speech=speech, played=self._played)
        self.step = None if index is None else self.scenario.steps[index]
        if index is not None:
            self._played.add(index)
        return self.step

    def timing(self, latency: LatencyProfile) -> LatencyProfile:
        """The latency of the step in force."""
        return (self.step.timing if self.step else None) or self.scenario.latency or latency

    async def reply(self, turn: Turn) -> AsyncIterator[Say | Call]:
        """Say and call what the step says."""
        step = self.step
        if step is None or (step.say is None and not step.calls):
            async for piece in self._otherwise.reply(turn):
                yield piece
            return
        if step.say is not None:
            yield Say(step.say)
        for call in step.calls:
            yield call
