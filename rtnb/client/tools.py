"""Tools of the model: Python functions (`tool_schema`, `ToolBox`), their calls in a session, and MCP approvals."""

from __future__ import annotations

import asyncio
import enum
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, Literal, Union

import docstring_parser

from rtnb._loop import call_any, on_own_loop
from rtnb.client.dispatcher import Dispatcher
from rtnb.client.response import Response
from rtnb.errors import RtnbError
from rtnb.protocol import events
from rtnb.protocol.values import UNSET, Item, JsonObject, ResponseConfig, SessionConfig
from rtnb.redaction import redact

MAX_ROUNDS: Final = 8
"""Most responses in a row that may call tools before it counts as a loop (chosen)."""
TOOL_TIMEOUT_S: Final = 60.0
"""Longest run of one function (chosen: as long as a response may be silent)."""
ERROR_CHARACTERS: Final = 2_000
"""Most characters of an error that the model gets from a function (chosen)."""


class ToolBox:
    """Python functions by name, and their execution for a model.

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
        self.functions: dict[str, Callable[..., Any]] = {}
        """The functions by name."""
        self._schemas: dict[str, dict[str, Any]] = {}
        for function in functions:
            self.register(function)

    def register(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Add a function, sync or async; works as a decorator. It replaces a function of the same name.

        Raises
        ------
        TypeError
            The signature cannot be described to a model: see `tool_schema`.
        """
        schema = tool_schema(function)
        self.functions[schema["name"]] = function
        self._schemas[schema["name"]] = schema
        return function

    def unregister(self, name: str) -> None:
        """Remove a function; KeyError names those there are."""
        if name not in self.functions:
            raise KeyError(f"no tool {name!r}; there are: {', '.join(self.functions) or 'none'}")
        del self.functions[name], self._schemas[name]

    @property
    def schemas(self) -> tuple[dict[str, Any], ...]:
        """The tool definitions for `session.update`."""
        return tuple(self._schemas.values())

    def __iter__(self) -> Iterator[str]:
        return iter(self.functions)

    def __len__(self) -> int:
        return len(self.functions)

    def __repr__(self) -> str:
        return f"<ToolBox: {', '.join(self.functions) or 'empty'}>"

    async def run(self, name: str, arguments: str) -> str:
        """Run one call and return the output for the model; an error becomes text, nothing is raised.

        Parameters
        ----------
        name : str
            Name of the function.
        arguments : str
            JSON text as the model wrote it; it can be wrong in every way.

        Returns
        -------
        str
            The result, as text or as JSON; ``error: …`` where there is none.
        """
        function = self.functions.get(name)
        if function is None:
            return f"error: there is no tool {name!r}; the tools are: {', '.join(self.functions) or 'none'}"
        try:
            keywords = _keywords(function, name, arguments)
        except (ValueError, RecursionError) as error:
            return f"error: {error}"
        try:
            async with asyncio.timeout(TOOL_TIMEOUT_S):
                result = await call_any(function, **keywords)
            return result if isinstance(result, str) else json.dumps(result, default=str, ensure_ascii=False)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]  # the caller stops it
                raise
            # The model gets every error of a tool, and the session goes on.
            return redact(f"error: {type(error).__name__}: {error}"[:ERROR_CHARACTERS])


def _keywords(function: Callable[..., Any], name: str, arguments: str) -> dict[str, Any]:
    """Return the arguments of a call; ValueError names what is wrong with them."""
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
    """Turn the values of an `Enum` parameter into its members; everything else stays."""
    members = _enum_parameters(function)
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
    """Tools of a session: `session.tools`.

    After a completed response with function calls, all calls run at once. Their outputs enter the conversation in the
    order of the calls, then one `response.create` requests the answer.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.box = ToolBox()
        """The registered functions."""
        self.automatic = True
        """False runs no calls: see `Response.function_calls`."""
        self.max_rounds = MAX_ROUNDS
        """Most responses in a row that may call tools."""
        self._dispatcher = dispatcher
        self._loop = dispatcher.loop
        dispatcher.after_response = self._work

    @on_own_loop
    async def register(self, *functions: Callable[..., Any] | Mapping[str, Any]) -> SessionConfig:
        """Offer functions to the model, or ready tool definitions whose calls you answer.

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
        await self._dispatcher.update(SessionConfig.of(tools=[*kept, *new]))
        for name in names & set(self.box):
            self.box.unregister(str(name))
        for function in box.functions.values():
            self.box.register(function)
        return self._dispatcher.config

    @on_own_loop
    async def unregister(self, *names: str) -> SessionConfig:
        """Withdraw tools.

        Raises
        ------
        KeyError
            There is no such tool.
        """
        offered = {tool.get("name") for tool in self._offered}
        for name in names:
            if name not in offered:
                raise KeyError(f"no tool {name!r}; there are: {', '.join(map(str, offered)) or 'none'}")
        await self._dispatcher.update(SessionConfig.of(tools=[t for t in self._offered if t.get("name") not in names]))
        for name in set(names) & set(self.box):
            self.box.unregister(name)
        return self._dispatcher.config

    @property
    def _offered(self) -> tuple[JsonObject, ...]:
        return self._dispatcher.config.tools or ()

    def __iter__(self) -> Iterator[str]:
        return iter(self.box)

    def __repr__(self) -> str:
        return f"<SessionTools: {', '.join(self.box) or 'none'}>"

    # --- MCP ----------------------------------------------------------------------------------------------------------

    @property
    def mcp_tools(self) -> dict[str, tuple[str, ...]]:
        """Names of the tools of each MCP server, by its label, as far as the service has listed them."""
        lists = (item for item in self._items if item.type == "mcp_list_tools")
        return {str(item.server_label): tuple(str(tool.get("name")) for tool in item.tools or ()) for item in lists}

    @property
    def approval_requests(self) -> tuple[Item, ...]:
        """MCP calls that wait for `approve` or `deny`: items with `server_label`, `name` and `arguments`."""
        answered = {item.approval_request_id for item in self._items if item.type == "mcp_approval_response"}
        requests = (item for item in self._items if item.type == "mcp_approval_request")
        return tuple(item for item in requests if item.id not in answered)

    @property
    def _items(self) -> list[Item]:
        return [entry.item for entry in tuple(self._dispatcher.connection.state.entries.values())]

    @on_own_loop
    async def approve(self, request: Item | str, *, reason: str | None = None) -> None:
        """Let the service run an MCP call.

        Parameters
        ----------
        request : Item or str
            One of `approval_requests`, or its id.
        reason : str, optional
            For the model.

        Raises
        ------
        ServiceError
            The service refuses: e.g. there is no such request.
        """
        await self._answer_approval(request, True, reason)

    @on_own_loop
    async def deny(self, request: Item | str, *, reason: str | None = None) -> None:
        """Refuse an MCP call; parameters as for `approve`."""
        await self._answer_approval(request, False, reason)

    async def _answer_approval(self, request: Item | str, approve: bool, reason: str | None) -> None:
        item = Item(
            type="mcp_approval_response",
            id=self._dispatcher.new_id("item"),
            approval_request_id=str(request.id) if isinstance(request, Item) else request,
            approve=approve,
            reason=reason or UNSET,
        )
        await self._add(item)

    # --- calls --------------------------------------------------------------------------------------------------------

    async def _add(self, item: Item) -> None:
        event = events.ConversationItemCreate(item=item, event_id=self._dispatcher.new_id("client"))
        await self._dispatcher.request(event, "conversation.item.added", str(item.id))

    def _work(self, response: Response) -> Coroutine[Any, Any, Response | None] | None:
        """Return what to run after a response; None where it calls no function of this session."""
        if not self.automatic or response.status != "completed" or not response.in_conversation:
            return None
        calls = [call for call in response.function_calls if self._is_known(call)]
        return self._run(response, calls) if calls else None

    def _is_known(self, call: Item) -> bool:
        """Whether a call is answered here: by its function, or by an error where no such tool was offered."""
        offered = {tool.get("name") for tool in self._offered}
        return call.name in self.box.functions or (bool(len(self.box)) and call.name not in offered)

    async def _run(self, response: Response, calls: list[Item]) -> Response | None:
        """Run calls and return the response that follows; None where other calls wait for your answer."""
        if response.tool_round >= self.max_rounds:
            raise RtnbError(f"{self.max_rounds} responses in a row called tools; the calls are not run").with_hint(
                "The model may be in a loop: state in the instructions when to stop, or raise tools.max_rounds."
            )
        outputs = await asyncio.gather(*(self.box.run(call.name or "", call.arguments or "") for call in calls))
        for call, output in zip(calls, outputs, strict=True):
            item_id = self._dispatcher.new_id("item")
            await self._add(Item(type="function_call_output", id=item_id, call_id=call.call_id, output=output))
        if len(calls) < len(response.function_calls):
            return None
        following = await self._dispatcher.create_response(self._follow_up_config(response))
        following.tool_round = response.tool_round + 1
        return following

    def _follow_up_config(self, response: Response) -> ResponseConfig | None:
        """Return the settings of the first response, without a forced call: it would be forced in every round."""
        config = response.config
        forced = config.tool_choice if config else UNSET
        forced = forced or self._dispatcher.config.tool_choice
        if forced in (UNSET, "auto", "none"):
            return None if config is None else replace(config, input=UNSET)
        return replace(config or ResponseConfig(), input=UNSET, tool_choice="auto")


# --- from a function to its definition --------------------------------------------------------------------------------

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    list: {"type": "array", "items": {}},
    dict: {"type": "object"},
    Any: {},
    types.NoneType: {"type": "null"},
}
_KNOWN = "str, int, float, bool, list[…], dict, Literal[…], Enum, Optional[…] and unions of them"


def tool_schema(function: Callable[..., Any]) -> dict[str, Any]:
    """Describe a function to a model, from its signature and docstring.

    Parameters
    ----------
    function : callable
        Sync or async, with annotated parameters that can be given by name. The docstring's text becomes the
        description; parameters described in numpydoc or Google style get theirs.

    Returns
    -------
    dict
        A tool definition for `session.update(tools=…)`: type, name, description, parameters (JSON Schema). A
        parameter without a default is required.

    Raises
    ------
    TypeError
        No usable name, a parameter without an annotation or with one no JSON has, ``*args``, ``**kwargs``,
        positional-only parameters.

    Examples
    --------
    >>> def weather(city: str, days: int = 1) -> str:
    ...     '''Forecast the weather.'''
    ...     return "sunny"
    >>> tool_schema(weather)["parameters"]["required"]
    ['city']
    """
    name = getattr(function, "__name__", "")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name):
        raise TypeError(f"a tool needs a name of letters, digits and _, got {name or function!r}: use a `def` function")
    described = docstring_parser.parse(inspect.getdoc(function) or "")
    of_parameter = {one.arg_name: " ".join((one.description or "").split()) for one in described.params}
    properties: dict[str, Any] = {}
    required = []
    for key, (parameter, hint) in _parameters(function).items():
        schema = dict(_json_schema(hint, f"{name}({key})"))
        if of_parameter.get(key):
            schema["description"] = of_parameter[key]
        if parameter.default is parameter.empty:
            required.append(key)
        properties[key] = schema
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {
        "type": "function",
        "name": name,
        "description": " ".join((described.description or "").split()),
        "parameters": parameters,
    }


def _enum_parameters(function: Callable[..., Any]) -> dict[str, type[enum.Enum]]:
    """Return the parameters whose values are turned into members of an `Enum`."""
    found: dict[str, type[enum.Enum]] = {}
    for key, (_, hint) in _parameters(function).items():
        for member in (hint, *typing.get_args(hint)):
            if isinstance(member, type) and issubclass(member, enum.Enum):
                found[key] = member
    return found


def _parameters(function: Callable[..., Any]) -> dict[str, tuple[inspect.Parameter, Any]]:
    name = getattr(function, "__name__", "tool")
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise TypeError(f"an annotation of {name} cannot be resolved: {error}") from error
    found = {}
    for key, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{name}: the parameter {parameter} cannot be given by name; a model names every argument")
        if key not in hints:
            raise TypeError(f"{name}: the parameter {key!r} has no annotation; known are {_KNOWN}")
        found[key] = (parameter, hints[key])
    return found


def _json_schema(hint: Any, where: str) -> dict[str, Any]:
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _one_of([member.value for member in hint])
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return _one_of(list(arguments))
    if origin in (Union, types.UnionType):
        return {"anyOf": [dict(_json_schema(member, where)) for member in arguments]}
    if origin is list:
        return {"type": "array", "items": _json_schema(arguments[0], where)}
    if origin is dict and arguments[0] is str:
        return {"type": "object", "additionalProperties": _json_schema(arguments[1], where)}
    raise TypeError(f"{where}: the annotation {hint!r} cannot be described to a model; known are {_KNOWN}")


def _one_of(values: list[Any]) -> dict[str, Any]:
    kinds = {type(value) for value in values}
    schema = dict(_PLAIN.get(kinds.pop(), {})) if len(kinds) == 1 else {}
    return {**schema, "enum": values}
