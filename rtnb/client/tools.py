"""Python functions as tools of the model: `ToolBox`, and `SessionTools`, which answers the calls of a session."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from rtnb.client._schema import enum_parameters, tool_schema
from rtnb.client.response import Response
from rtnb.errors import RtnbError
from rtnb.protocol.values import UNSET, Item, ResponseConfig, SessionConfig
from rtnb.transport.credentials import redact

if TYPE_CHECKING:
    from rtnb.client.session import Session

MAX_ROUNDS: Final = 8
"""How many responses in a row may ask for tools before it counts as a loop (chosen)."""


class ToolBox:
    """Python functions by name, and how to run them for a model.

    Examples
    --------
    >>> def add(a: int, b: int = 1) -> int:
    ...     '''Add two numbers.'''
    ...     return a + b
    >>> box = ToolBox([add])
    >>> asyncio.run(box.run("add", '{"a": 2}'))
    '3'
    >>> asyncio.run(box.run("add", '{"c": 2}'))
    "error: add() got an unexpected argument 'c'; its arguments are: a, b"
    """

    def __init__(self, functions: Iterable[Callable[..., Any]] = ()) -> None:
        self._functions: dict[str, Callable[..., Any]] = {}
        self._schemas: dict[str, dict[str, Any]] = {}
        for function in functions:
            self.register(function)

    def register(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Add a function, sync or async; can be used as a decorator. A function of the same name is replaced.

        Raises
        ------
        TypeError
            Its signature cannot be described to a model: see `tool_schema`.
        """
        schema = tool_schema(function)
        self._functions[schema["name"]] = function
        self._schemas[schema["name"]] = schema
        return function

    def unregister(self, name: str) -> None:
        """Remove a function; KeyError names those there are."""
        if name not in self._functions:
            raise KeyError(f"no tool {name!r}; there are: {', '.join(self._functions) or 'none'}")
        del self._functions[name], self._schemas[name]

    @property
    def schemas(self) -> tuple[dict[str, Any], ...]:
        """The tool definitions for `session.update`."""
        return tuple(self._schemas.values())

    def __contains__(self, name: object) -> bool:
        return name in self._functions

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)

    def __repr__(self) -> str:
        return f"<ToolBox: {', '.join(self._functions) or 'empty'}>"

    async def run(self, name: str, arguments: str) -> str:
        """Run one call and return what the model is told; an error becomes text, nothing is raised.

        Parameters
        ----------
        name : str
            Of the function.
        arguments : str
            JSON text as the model wrote it, which can be wrong in every way.

        Returns
        -------
        str
            The result as it is (str) or as JSON; ``error: …`` where there is none.
        """
        function = self._functions.get(name)
        if function is None:
            return f"error: there is no tool {name!r}; the tools are: {', '.join(self._functions) or 'none'}"
        try:
            keywords = _keywords(function, name, arguments)
        except ValueError as error:
            return f"error: {error}"
        try:
            if inspect.iscoroutinefunction(function):
                result = await function(**keywords)
            else:
                result = await asyncio.to_thread(function, **keywords)  # a slow tool must not stop the audio
                if inspect.isawaitable(result):
                    result = await result
            return result if isinstance(result, str) else json.dumps(result, default=str, ensure_ascii=False)
        except Exception as error:  # whatever a tool raises, the model is told and the session goes on
            return redact(f"error: {type(error).__name__}: {error}")


def _keywords(function: Callable[..., Any], name: str, arguments: str) -> dict[str, Any]:
    """The arguments of a call; ValueError says in words what is wrong with them."""
    try:
        keywords = json.loads(arguments or "{}")
    except ValueError as error:
        raise ValueError(f"the arguments of {name} are not JSON: {error}") from error
    if not isinstance(keywords, dict):
        raise ValueError(f"the arguments of {name} must be a JSON object")
    parameters = inspect.signature(function).parameters
    names = f"its arguments are: {', '.join(parameters) or 'none'}"
    for key in keywords:
        if key not in parameters:
            raise ValueError(f"{name}() got an unexpected argument {key!r}; {names}")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in keywords:
            raise ValueError(f"{name}() misses the argument {key!r}; {names}")
    return _with_enums(function, keywords)


def _with_enums(function: Callable[..., Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the words of an `Enum` parameter into its members; everything else stays."""
    members = enum_parameters(function)
    out = dict(keywords)
    for key, kind in members.items():
        if key in out and out[key] is not None:
            try:
                out[key] = kind(out[key])
            except ValueError as error:
                allowed = ", ".join(repr(member.value) for member in kind)
                raise ValueError(f"{key} is {out[key]!r}; allowed are {allowed}") from error
    return out


class SessionTools:
    """The tools of a session: `session.tools`.

    A completed response that calls tools is answered by itself: every call is run (all at once), its output goes into
    the conversation in the order of the calls, then one `response.create` asks for what follows.
    """

    def __init__(self, session: Session) -> None:
        self.box = ToolBox()
        self.automatic = True
        """False leaves every call to you: see `Response.function_calls`."""
        self.max_rounds = MAX_ROUNDS
        """How many responses in a row may ask for tools."""
        self._session = session

    async def register(self, *functions: Callable[..., Any] | Mapping[str, Any]) -> SessionConfig:
        """Offer functions (or ready tool definitions, which stay yours to answer) to the model.

        Raises
        ------
        TypeError
            A signature cannot be described to a model.
        ServiceError
            The service refuses the tools; then none is registered.
        """
        box = ToolBox(f for f in functions if not isinstance(f, Mapping))
        ready = [dict(f) for f in functions if isinstance(f, Mapping)]
        new = [*box.schemas, *ready]
        names = {tool.get("name") for tool in new}
        kept = [tool for tool in self._offered if tool.get("name") not in names]
        config = await self._session.update(tools=(*kept, *new))
        for name in names & set(self.box):
            self.box.unregister(str(name))
        for function in box._functions.values():
            self.box.register(function)
        return config

    async def unregister(self, *names: str) -> SessionConfig:
        """Take tools back.

        Raises
        ------
        KeyError
            There is no such tool.
        """
        offered = {tool.get("name") for tool in self._offered}
        for name in names:
            if name not in offered:
                raise KeyError(f"no tool {name!r}; there are: {', '.join(map(str, offered)) or 'none'}")
        config = await self._session.update(tools=tuple(t for t in self._offered if t.get("name") not in names))
        for name in set(names) & set(self.box):
            self.box.unregister(name)
        return config

    @property
    def _offered(self) -> tuple[Mapping[str, Any], ...]:
        return self._session._config.tools or ()

    def __iter__(self) -> Iterator[str]:
        return iter(self.box)

    def __contains__(self, name: object) -> bool:
        return name in self.box

    def __repr__(self) -> str:
        return f"<SessionTools: {', '.join(self.box) or 'none'}>"

    # --- answering ----------------------------------------------------------------------------------------------------

    def wants(self, response: Response) -> bool:
        """Whether a finished response is to be answered here."""
        calls = response.function_calls
        return (
            self.automatic
            and response.status == "completed"
            and response.in_conversation
            and any(self._is_ours(call) for call in calls)
        )

    def _is_ours(self, call: Item) -> bool:
        """A function of ours, or one nobody offered; definitions without a function are their owner's to answer."""
        offered = {tool.get("name") for tool in self._offered}
        return call.name in self.box or (bool(len(self.box)) and call.name not in offered)

    async def answer(self, response: Response) -> Response | None:
        """Run the calls of a response and return the response that follows; None where a call is left to its owner.

        Raises
        ------
        RtnbError
            More than `max_rounds` responses in a row asked for tools.
        """
        if response.tool_round >= self.max_rounds:
            raise RtnbError(f"{self.max_rounds} responses in a row asked for tools; the calls are not run").with_hint(
                "The model may be caught in a loop: say in the instructions when to stop, or raise tools.max_rounds."
            )
        calls = [call for call in response.function_calls if self._is_ours(call)]
        outputs = await asyncio.gather(*(self.box.run(call.name or "", call.arguments or "") for call in calls))
        for call, output in zip(calls, outputs, strict=True):
            item = Item(type="function_call_output", call_id=call.call_id, output=output)
            await self._session.conversation.item.create(item)
        if len(calls) < len(response.function_calls):
            return None
        following = await self._session._queue.create(self._follow_up_config(response))
        following.tool_round = response.tool_round + 1
        return following

    def _follow_up_config(self, response: Response) -> ResponseConfig | None:
        """As the first response was asked for, but free to speak: a forced call would be forced for ever."""
        config = response.config
        forced = config.tool_choice if config else UNSET
        forced = forced or self._session.config.tool_choice
        if forced in (UNSET, "auto", "none"):
            return None if config is None else replace(config, input=UNSET)
        return replace(config or ResponseConfig(), input=UNSET, tool_choice="auto")
