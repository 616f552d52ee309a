"""Rules that answer where no scenario and no chat model does.

No language model is imitated. A reply repeats what was understood and the instructions in force, and states that it
comes from rules. A tool is called when its name or description shares a word with the user's message. `KNOWN_ANSWERS`
lists the fixed answers. A question for the user's first message (`RECALL`) is answered from the conversation, so a
client can check that the session still holds it, also after it restored the conversation item by item.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rtnb.protocol import Item


@dataclass(frozen=True)
class Say:
    """A stretch of the reply; all of them joined are the reply."""

    text: str


@dataclass(frozen=True)
class Call:
    """A call of a tool."""

    name: str
    arguments: str
    """JSON text; a scenario's or a model's may deliberately be none."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Input of one reply."""

    items: Callable[[], Iterator[Item]]
    """Reads the context, oldest first. The items are looked up one by one, so reading a few costs no more in a long
    conversation."""
    last: Item | None
    """The newest item, None in an empty conversation."""
    instructions: str
    tools: Sequence[Mapping[str, Any]]
    tool_choice: Any
    heard_ms: float
    """Length of the newest item's speech, 0 for text."""


class Behaviour(Protocol):
    """Decides what is said."""

    def reply(self, turn: Turn) -> AsyncIterator[Say | Call]:
        """Stream the reply to a turn."""


KNOWN_ANSWERS: Mapping[str, tuple[str, ...]] = {
    r"\bdelta": ("A delta is one streamed piece of a response: a few words of transcript, or a slice of audio.",),
    r"\b(vad|turn detection)\b": (
        "Turn detection decides when you began and when you finished speaking. Silence ends a turn.",
    ),
    r"\b(hello|hi|hey|good (morning|evening))\b": ("Hello! How can I help you today?", "Hello! What shall we try?"),
    r"\bjoke\b": ("Why did the buffer overflow? Because nobody would commit.",),
    r"\bcount to (ten|10)\b": ("One, two, three, four, five, six, seven, eight, nine, ten.",),
    r"\bcount to five\b": ("One, two, three, four, five.",),
    r"\b(thanks|thank you)\b": ("You are welcome.",),
    r"\b(bye|goodbye)\b": ("Goodbye!",),
}
"""Pattern in what the user said -> what may be said to it. Short on purpose: the wire is the lesson, not the wit."""

RECALL = r"^\W*(what|which|tell|repeat|say|do you (know|remember))\b(?=.*\b(i|my)\b).*\bfirst\b"
"""Pattern of a question for the user's first message: "What did I say first?", "Repeat my first message.\""""

_OPEN = "I am the rtnb simulator: a few rules, no language model."


class Rules:
    """The default behaviour: seeded rules.

    Parameters
    ----------
    seed : int, default 0
        Chooses between phrasings; same seed and same turns, same replies.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self._rng = random.Random(seed)

    async def reply(self, turn: Turn) -> AsyncIterator[Say | Call]:
        """Answer one turn; see the module."""
        last = turn.last
        if last is not None and last.type == "function_call_output":
            yield Say(f"The tool answered: {_shorten(str(last.output), 30)}")
            return
        said = text_of(last)
        call = choose_tool(said, turn)
        if call is not None:
            yield call
            return
        for stretch in self._words(said, turn):
            yield Say(stretch)

    def _words(self, said: str | None, turn: Turn) -> list[str]:
        if said is None and not turn.heard_ms:
            return ["Hello! How can I help you today?", f" {_OPEN}"]
        if said is None:
            heard = f"I heard you speak for {turn.heard_ms / 1000:.1f} seconds."
            return [heard, f" I cannot tell the words: {_OPEN}", self._instructions(turn)]
        if re.search(RECALL, said, re.IGNORECASE):
            return [_first_message(turn)]
        answers = next((a for pattern, a in KNOWN_ANSWERS.items() if re.search(pattern, said, re.IGNORECASE)), ())
        if answers:
            return [self._rng.choice(answers), self._instructions(turn)]
        return [f"You said: {_shorten(said, 20)}", f" {_OPEN}", self._instructions(turn)]

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
    words = [part.text or part.transcript or "" for part in item.content]
    joined = " ".join(word for word in words if word)
    return joined or None


def choose_tool(said: str | None, turn: Turn) -> Call | None:
    """Return a call of the tool that fits, with arguments found in the words; None where none fits or tools are off."""
    functions = [tool for tool in turn.tools if tool.get("type") == "function" and tool.get("name")]
    if not functions or turn.tool_choice == "none":
        return None
    if isinstance(turn.tool_choice, Mapping):
        wanted = turn.tool_choice.get("name") or (turn.tool_choice.get("function") or {}).get("name")  # GA, preview
        chosen = next((tool for tool in functions if tool["name"] == wanted), None)
    else:
        scored = [
            (len(_words(f"{t['name']} {t.get('description', '')}") & _words(said or "")), -i)
            for i, t in enumerate(functions)
        ]
        best, index = max(scored)
        chosen = functions[-index] if best or turn.tool_choice == "required" else None
    if chosen is None:
        return None
    return Call(str(chosen["name"]), json.dumps(fill_arguments(said or "", chosen.get("parameters") or {})))


def fill_arguments(said: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Find values for a tool's parameters in what was said: numbers, listed words, and the words after in/for/of.

    >>> schema = {"properties": {"city": {"type": "string"}}, "required": ["city"]}
    >>> fill_arguments("What is the weather in Lund?", schema)
    {'city': 'Lund'}
    """
    properties, required = schema.get("properties"), schema.get("required")
    numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", said)]
    found: dict[str, Any] = {}
    for name, parameter in properties.items() if isinstance(properties, Mapping) else ():
        shape = parameter if isinstance(parameter, Mapping) else {}
        value = _value(said, shape, numbers, needed=isinstance(required, Sequence) and name in required)
        if value is not None:
            found[name] = value
    return found


def _value(said: str, shape: Mapping[str, Any], numbers: list[float], *, needed: bool) -> Any:
    """Return a value that fits a parameter; None where none fits and none is needed."""
    kind, listed = shape.get("type"), shape.get("enum")
    if isinstance(listed, Sequence) and listed:
        named = next((word for word in listed if str(word).lower() in said.lower()), None)
        return listed[0] if named is None and needed else named
    if kind in ("number", "integer"):
        number = numbers.pop(0) if numbers else (0.0 if needed else None)
        return int(number) if kind == "integer" and number is not None else number
    if not needed:
        return None
    fixed: dict[Any, Any] = {"boolean": True, "array": [], "object": {}}
    return fixed[kind] if isinstance(kind, str) and kind in fixed else _object_of(said)


def _object_of(said: str) -> str:
    """The words a sentence is about: after in, for, of, about, to; else the whole sentence."""
    match = re.search(r"\b(?:in|for|of|about|to|at)\s+([^?.!,]+)", said)
    return (match.group(1) if match else said).strip(" ?.!")


_COMMON = frozenset(
    re.findall(
        r"\w+",
        "a an and are at be can could current do does for from get give have how i in is it me my of on please say "
        "tell that the this to was what when where which who will with you your",
    )
)
"""Words that say nothing about which tool fits."""


def _words(text: str) -> set[str]:
    return set(re.findall(r"[^\W_]{2,}", text.lower())) - _COMMON


def _shorten(text: str, n_words: int) -> str:
    words = text.split()
    return " ".join(words[:n_words]) + (" …" if len(words) > n_words else "")
