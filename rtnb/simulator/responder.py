"""Responders: the part of the simulator that decides what a response says and which tools it calls.

Three kinds, or any object with the method of `Responder`:

- `RulesResponder`, the default: seeded rules, no language model. It repeats what it understood, gives a few fixed
  answers (`KNOWN_ANSWERS`), calls the tool that fits, and follows the instructions listed in `INSTRUCTION_EFFECTS`, so
  that the effect of a prompt can be seen and tested without a model.
- `ScenarioResponder` plays a scenario file.
- `ChatResponder` asks any service with an OpenAI-compatible ``/chat/completions``, by the package ``openai``.

A user message that asks for the first one (`RECALL`) is answered from the conversation. A client can check with it that
the session still holds the conversation, also after it was restored item by item.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from rtnb.protocol import Item
from rtnb.simulator.faults import LatencyProfile
from rtnb.simulator.scenario import Call, Scenario, Step
from rtnb.simulator.speech import sentences
from rtnb.simulator.transcriber import ModelServer


@dataclass(frozen=True)
class Say:
    """A stretch of speech or text; all of them joined are the response."""

    text: str
    language: str = "en"
    """Language tag, for the voice."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Input of one response."""

    items: Callable[[], Iterator[Item]]
    """Reads the context, oldest first, one by one: reading a few costs no more in a long conversation. Images and audio
    that the client sent inline are in the content parts."""
    last: Item | None
    """The newest item, None in an empty conversation."""
    instructions: str
    tools: Sequence[Mapping[str, Any]]
    tool_choice: Any
    heard_ms: float
    """Duration of the newest item's speech, 0 for text."""


class Responder(Protocol):
    """Generator of responses, one per session."""

    def respond(self, turn: Turn) -> AsyncIterator[Say | Call]:
        """Stream the response to a turn."""


MakeResponder = Callable[[int], Responder]
"""Session number -> its responder."""

# --- rules ------------------------------------------------------------------------------------------------------------

KNOWN_ANSWERS: Final[Mapping[str, tuple[str, ...]]] = {
    r"\bdelta": ("A delta is one streamed piece of a response: a few words of transcript, or a slice of audio.",),
    r"\b(vad|turn detection)\b": (
        "Turn detection decides when you began and when you finished speaking. Silence ends a turn.",
    ),
    r"\b(hello|hi|hey|good (morning|evening))\b": ("Hello! How can I help you today?", "Hello! What shall we try?"),
    r"\bjoke\b": ("Why did the buffer overflow? It was afraid to commit.",),
    r"\bcount to (ten|10)\b": ("One, two, three, four, five, six, seven, eight, nine, ten.",),
    r"\bcount to five\b": ("One, two, three, four, five.",),
    r"\b(thanks|thank you)\b": ("You are welcome.",),
    r"\b(bye|goodbye)\b": ("Have a good day!",),
}
"""Pattern in the user's words -> possible answers. Short on purpose: the wire is the lesson."""

RECALL: Final = r"^\W*(what|which|tell|repeat|say|do you (know|remember))\b(?=.*\b(i|my)\b).*\bfirst\b"
"""Pattern of a question for the user's first message: "What did I say first?", "Repeat my first message.\""""

INSTRUCTION_EFFECTS: Final[Mapping[str, str]] = {
    "language": "'answer in German': fixed phrases in German, the user's words unchanged",
    "length": "'in one sentence', 'be brief', 'in at most 12 words': the response is cut there",
    "persona": "'your name is Ada': the response gives the name in a greeting and on request",
    "forbidden": "'never say sorry', 'do not mention prices': sentences with that word are left out",
    "question": "'always ask a question', 'end with a question': a question is the last sentence",
    "tool": "'call get_weather', 'always use the tool lookup first': that tool is called for each user message",
}
"""Instructions that the rules follow; the keys name the effect. All other instructions are only repeated."""

_ABOUT: Final = "I am the rtnb simulator: a few rules, no language model."
_PHRASES: Final[Mapping[str, Mapping[str, str]]] = {
    "de": {
        "greeting": "Hallo! Wie kann ich helfen?",
        "about": "Ich bin der Simulator von rtnb: ein paar Regeln, kein Sprachmodell.",
        "said": "Du hast gesagt: {words}",
        "heard": "Ich habe {seconds:.1f} Sekunden Sprache gehört.",
        "name": "Ich heiße {name}.",
        "question": "Was möchtest du noch wissen?",
    },
    "en": {
        "greeting": "Hello! How can I help you today?",
        "about": _ABOUT,
        "said": "You said: {words}",
        "heard": "I heard you speak for {seconds:.1f} seconds.",
        "name": "My name is {name}.",
        "question": "What else would you like to know?",
    },
}


@dataclass(frozen=True)
class Effects:
    """Effects of instructions on a rule-based response; see `INSTRUCTION_EFFECTS`."""

    language: str = "en"
    sentences: int | None = None
    words: int | None = None
    name: str = ""
    forbidden: tuple[str, ...] = ()
    question: bool = False
    tool: str = ""

    @classmethod
    def of(cls, instructions: str) -> Effects:
        """Read the effects out of instructions.

        >>> Effects.of("Your name is Ada. Never say sorry. Answer in one sentence.")
        Effects(language='en', sentences=1, words=None, name='Ada', forbidden=('sorry',), question=False, tool='')
        """

        def found(pattern: str) -> str:
            match = re.search(pattern, instructions, re.IGNORECASE)
            return match.group(1) if match else ""

        speak = found(r"\b(?:answer|speak|reply|respond|talk)\b[^.!?]{0,30}?\bin (\w+)")
        words = found(r"\b(?:at most|no more than|up to|fewer than) (\d+) words")
        brief = re.search(
            r"\b(one|a single)( \w+)? sentence\b|\bbe (very )?(brief|short|concise)\b", instructions, re.IGNORECASE
        )
        never = re.findall(
            r"\b(?:never|do not|don't) (?:say|use|mention)(?: the words?)? [\"'“]?([\w-]+)", instructions, re.IGNORECASE
        )
        ask = r"\b(always ask|end (every \w+ )?with|ask (at least )?one)\b[^.!?]{0,20}(question)?"
        return cls(
            language="de" if speak.lower() in ("german", "deutsch") else "en",
            sentences=1 if brief else None,
            words=int(words) if words else None,
            name=found(r"\b(?:your name is|you are called|call yourself) ([A-Z]\w+)"),
            forbidden=tuple(word.lower() for word in never),
            question="question" in instructions.lower() and bool(re.search(ask, instructions, re.IGNORECASE)),
            tool=found(r"\b(?:call|use)(?: the)?(?: tool| function)? [\"'`]?([A-Za-z]\w*_\w+)"),
        )

    def shaped(self, stretches: Iterable[str]) -> list[str]:
        """Return the response's sentences with length, forbidden words and the question applied."""
        found = [one for stretch in stretches for one in sentences(stretch)]
        kept = [one for one in found if not any(re.search(rf"\b{re.escape(w)}", one, re.I) for w in self.forbidden)]
        kept = kept[: self.sentences] if self.sentences else kept
        if self.question:
            kept.append(f" {_PHRASES[self.language]['question']}")
        if self.words is not None:
            kept = [_shorten("".join(kept), self.words, mark="")]
        return kept or ["…"]


class RulesResponder:
    """Responder by seeded rules: same seed and same turns, same responses."""

    def __init__(self, *, seed: int = 0) -> None:
        self._rng = random.Random(seed)

    async def respond(self, turn: Turn) -> AsyncIterator[Say | Call]:
        """Answer one turn; see the module."""
        effects, last = Effects.of(turn.instructions), turn.last
        if last is not None and last.type == "mcp_call" and last.error:
            stretches = [f"The tool failed: {_shorten(str(last.error.get('message')), 30)}"]
        elif last is not None and last.type in ("function_call_output", "mcp_call"):
            stretches = [f"The tool answered: {_shorten(str(last.output), 30)}"]
        else:
            words = text_of(last)
            call = choose_tool(words, turn, instructed=effects.tool)
            if call is not None:
                yield call
                return
            stretches = self._stretches(words, turn, effects)
        for stretch in effects.shaped(stretches):
            yield Say(stretch, effects.language)

    def _stretches(self, words: str | None, turn: Turn, effects: Effects) -> list[str]:
        phrases = _PHRASES[effects.language]
        named = f" {phrases['name'].format(name=effects.name)}" if effects.name else ""
        if words is None and not turn.heard_ms:
            return [phrases["greeting"], named or f" {phrases['about']}"]
        if words is None:
            heard = phrases["heard"].format(seconds=turn.heard_ms / 1000)
            return [heard, f" I cannot tell the words: {_ABOUT}", self._instructions(turn)]
        if re.search(RECALL, words, re.IGNORECASE):
            return [_first_message(turn)]
        if named and re.search(r"\b(who are you|your name|hello|hi|hey)\b", words, re.IGNORECASE):
            return [phrases["greeting"], named]
        answers = next((a for pattern, a in KNOWN_ANSWERS.items() if re.search(pattern, words, re.IGNORECASE)), ())
        if answers and effects.language == "en":
            return [self._rng.choice(answers), self._instructions(turn)]
        return [phrases["said"].format(words=_shorten(words, 20)), f" {phrases['about']}", self._instructions(turn)]

    @staticmethod
    def _instructions(turn: Turn) -> str:
        shown = _shorten(turn.instructions, 12)
        return f" My instructions are: {shown}" if shown and "rtnb simulator" not in turn.instructions else ""


def _first_message(turn: Turn) -> str:
    first = next((item for item in turn.items() if item.role == "user"), None)
    if first is None or turn.last is None or first.id == turn.last.id:
        return "This is your first message."
    return f"Your first message was: {_shorten(text_of(first) or 'speech that I cannot put into text.', 40)}"


def text_of(item: Item | None) -> str | None:
    """Return the words of an item; None where it has none (audio that was not transcribed)."""
    if item is None or not item.content:
        return None
    texts = [part.text or part.transcript for part in item.content]
    return " ".join(text for text in texts if text) or None


def is_spoken(item: Item) -> bool:
    """Return whether an item is speech of the user."""
    return item.role == "user" and bool(item.content and item.content[0].type == "input_audio")


_READ_LENGTH: Final = 4_000  # characters of a text that are compared with a tool (chosen; a long turn has 2,000)


def choose_tool(words: str | None, turn: Turn, *, instructed: str = "") -> Call | None:
    """Return a call of the tool that fits, its arguments found in the words; None where none fits or tools are off."""
    named = turn.tool_choice if isinstance(turn.tool_choice, Mapping) else {}
    label, required = named.get("server_label"), turn.tool_choice == "required" or named.get("type") == "mcp"
    functions = [tool for tool in turn.tools if tool.get("name") and label in (None, tool.get("server_label"))]
    if not functions or turn.tool_choice == "none":
        return None
    wanted = named.get("name") or (named.get("function") or {}).get("name") or instructed  # GA, preview, instructions
    chosen = next((tool for tool in functions if tool["name"] == wanted), None)
    words = (words or "")[:_READ_LENGTH]
    if chosen is None and not wanted:
        keywords = _keywords(words)
        titles = [f"{tool['name']} {tool.get('description', '')}"[:_READ_LENGTH] for tool in functions]
        best, index = max((len(_keywords(title) & keywords), -i) for i, title in enumerate(titles))
        chosen = functions[-index] if best or required else None
    if chosen is None:
        return None
    return Call(str(chosen["name"]), json.dumps(fill_arguments(words, chosen.get("parameters") or {})))


def fill_arguments(words: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Find values for a tool's parameters in the words: numbers, listed words, and the words after in/for/of.

    >>> schema = {"properties": {"city": {"type": "string"}}, "required": ["city"]}
    >>> fill_arguments("What is the weather in Lund?", schema)
    {'city': 'Lund'}
    """
    properties, required = schema.get("properties"), schema.get("required")
    numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", words)]
    found: dict[str, Any] = {}
    for name, parameter in properties.items() if isinstance(properties, Mapping) else ():
        shape = parameter if isinstance(parameter, Mapping) else {}
        value = _value(words, shape, numbers, needed=isinstance(required, Sequence) and name in required)
        if value is not None:
            found[name] = value
    return found


def _value(words: str, shape: Mapping[str, Any], numbers: list[float], *, needed: bool) -> Any:
    """Return a value that fits a parameter; None where none fits and none is needed."""
    kind, listed = shape.get("type"), shape.get("enum")
    if isinstance(listed, Sequence) and listed:
        lowered = words.lower()
        named = next((word for word in listed if str(word).lower() in lowered), None)
        return listed[0] if named is None and needed else named
    if kind in ("number", "integer"):
        number = numbers.pop(0) if numbers else (0.0 if needed else None)
        return int(number) if kind == "integer" and number is not None else number
    if not needed:
        return None
    fixed: dict[Any, Any] = {"boolean": True, "array": [], "object": {}}
    return fixed[kind] if isinstance(kind, str) and kind in fixed else _object_of(words)


def _object_of(words: str) -> str:
    """Return the words a sentence is about: after in, for, of, about, to; else the whole sentence."""
    match = re.search(r"\b(?:in|for|of|about|to|at)\s+([^?.!,]+)", words)
    return (match.group(1) if match else words).strip(" ?.!")


_COMMON: Final = frozenset(
    re.findall(
        r"\w+",
        "a an and are at be can could current do does for from get give have how i in is it me my of on please say "
        "tell that the this to was what when where which who will with you your",
    )
)
"""Words that do not tell which tool fits."""


def _keywords(text: str) -> set[str]:
    return set(re.findall(r"[^\W_]{2,}", text.lower())) - _COMMON


def _shorten(text: str, n_words: int, *, mark: str = " …") -> str:
    words = text.split()
    return " ".join(words[:n_words]) + (mark if len(words) > n_words else "")


# --- scenario ---------------------------------------------------------------------------------------------------------


class ScenarioResponder:
    """Responder that plays a scenario; where no step fits, `otherwise` answers."""

    def __init__(self, scenario: Scenario, otherwise: Responder) -> None:
        self.scenario = scenario
        self._otherwise = otherwise
        self._played: set[int] = set()
        self._turn = 0

    def transcript(self, words: str | None) -> str | None:
        """Return the words that a scenario gives to the spoken turn that comes now, None where it gives none.

        Parameters
        ----------
        words : str or None
            What the transcriber found; a step with ``when.text`` needs it.
        """
        index = self.scenario.choose(text=words, turn=self._turn + 1, speech=True, played=self._played)
        return None if index is None else self.scenario.steps[index].hear

    def next_step(self, text: str | None, *, speech: bool) -> Step:
        """Choose the step of the turn that begins now; a response outside the conversation does not come here."""
        self._turn += 1
        index = self.scenario.choose(text=text, turn=self._turn, speech=speech, played=self._played)
        if index is None:
            return Step()
        self._played.add(index)
        return self.scenario.steps[index]

    def timing(self, step: Step, latency: LatencyProfile) -> LatencyProfile:
        """Return the latency that a step asks for."""
        return step.timing or self.scenario.latency or latency

    def play(self, step: Step, turn: Turn) -> AsyncIterator[Say | Call]:
        """Stream the text and the tool calls of a step."""
        return self._otherwise.respond(turn) if step.say is None and not step.calls else _spoken(step)

    def respond(self, turn: Turn) -> AsyncIterator[Say | Call]:
        """Stream the response without a step: an out-of-band response consumes none."""
        return self._otherwise.respond(turn)


async def _spoken(step: Step) -> AsyncIterator[Say | Call]:
    if step.say is not None:
        yield Say(step.say)
    for call in step.calls:
        yield call


# --- chat -------------------------------------------------------------------------------------------------------------


class ChatResponder:
    """Responder that asks a chat model, by the package ``openai``; sentences come as soon as they are complete.

    Parameters
    ----------
    base_url : str
        Address up to and without ``/chat/completions``, as of `ModelServer`, whose errors are raised.
    model : str
        Name of the model there.
    api_key : str, optional
        Bearer token; never shown.
    timeout_s : float, default 60
        Longest wait. (chosen: a local model may load first)
    """

    def __init__(self, base_url: str, model: str, api_key: str | None = None, *, timeout_s: float = 60.0) -> None:
        self._server = ModelServer(base_url, "chat service", api_key, timeout_s=timeout_s)
        self._model = model

    def __repr__(self) -> str:
        return f"ChatResponder({self._server.url!r}, {self._model!r})"

    async def respond(self, turn: Turn) -> AsyncIterator[Say | Call]:
        """Stream the model's response; tool calls come last, their JSON as the model wrote it.

        Raises
        ------
        ServiceError
            As of `ModelServer.client`, or the response ends in the middle.
        """
        tools = [] if turn.tool_choice == "none" else [_nested(tool) for tool in turn.tools if "name" in tool]
        request: dict[str, Any] = {"model": self._model, "messages": chat_messages(turn), "stream": True}
        request |= {"tools": tools} if tools else {}
        rest, finished = "", False
        calls: dict[int, list[str]] = {}
        async with self._server.client() as client:
            async for chunk in await client.chat.completions.create(**request):
                for choice in chunk.choices or ():
                    finished = finished or choice.finish_reason is not None
                    for call in choice.delta.tool_calls or ():
                        known = calls.setdefault(call.index, ["", ""])
                        if call.function:
                            known[0] += call.function.name or ""
                            known[1] += call.function.arguments or ""
                    *complete, rest = sentences(rest + (choice.delta.content or "")) or ("",)
                    for sentence in complete:
                        yield Say(sentence)
        if not finished:
            raise self._server.failed("the response ended in the middle", "bad_stream")
        if rest:
            yield Say(rest)
        for name, arguments in calls.values():
            yield Call(name, arguments or "{}")


def chat_messages(turn: Turn) -> list[dict[str, Any]]:
    """Return a turn as messages of chat completions: parallel calls in one message, images as parts."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": turn.instructions}]
    for item in turn.items():
        if item.type in ("mcp_list_tools", "mcp_approval_request", "mcp_approval_response"):
            continue
        message = _chat_message(item)
        last = messages[-1]
        if "tool_calls" in message and "tool_calls" in last:  # calls of one response are one message there
            last["tool_calls"] += message["tool_calls"]
        else:
            messages.append(message)
        if item.type == "mcp_call":
            output = item.output or json.dumps(item.error or "not approved yet")
            messages.append({"role": "tool", "tool_call_id": item.id, "content": output})
    return messages


def _chat_message(item: Item) -> dict[str, Any]:
    if item.type in ("function_call", "mcp_call"):
        function = {"name": item.name, "arguments": item.arguments or "{}"}
        call = {"id": item.call_id or item.id, "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if item.type == "function_call_output":
        return {"role": "tool", "tool_call_id": item.call_id, "content": item.output or ""}
    images = [part for part in item.content or () if part.type == "input_image"]
    words = text_of(item) or ("" if images else "[speech that was not transcribed]")
    if not images:
        return {"role": item.role or "user", "content": words}
    parts: list[dict[str, Any]] = [{"type": "text", "text": words}] if words else []
    parts += [{"type": "image_url", "image_url": {"url": part.image_url}} for part in images]
    return {"role": item.role or "user", "content": parts}


def _nested(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return a function tool in the spelling of chat completions."""
    return {
        "type": "function",
        "function": {key: value for key, value in tool.items() if key not in ("type", "server_label")},
    }
