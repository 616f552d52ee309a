"""A language model as the simulator's brain: any service with an OpenAI-compatible ``/chat/completions``.

Ollama, the llama.cpp server, vLLM and hosted ones. The reply comes sentence by sentence, so that
the voice starts early.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from rtnb.errors import RateLimited, ServiceError
from rtnb.simulator.behaviour import Call, Say
from rtnb.simulator.speech import sentences

_MAX_ERROR_CHARS = 300


class ChatBrain:
    """Asks a chat completions service.

    Parameters
    ----------
    base_url : str
        Up to and without ``/chat/completions``: ``"http://localhost:11434/v1"`` for Ollama.
    model : str
        As the service names it.
    api_key : str, optional
        Sent as bearer token; never shown.
    timeout_s : float, default 60
        Longest wait for the connection and between two pieces of the reply. (chosen: a local model may load first)

    Raises
    ------
    ValueError
        When `base_url` is no HTTP address, or holds a user, a password or a query: a key goes into `api_key`.
    """

    def __init__(self, base_url: str, model: str, api_key: str | None = None, *, timeout_s: float = 60.0) -> None:
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model = model
        self._api_key = api_key
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=timeout_s, sock_read=timeout_s)
        parts = urlsplit(self._url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in parts.netloc:
            raise ValueError(
                'base_url is not one; allowed: http or https without secrets in it, as in "http://localhost:11434/v1"'
            )

    def __repr__(self) -> str:
        return f"ChatBrain({self._url!r}, {self._model!r})"

    async def reply(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = ()
    ) -> AsyncGenerator[Say | Call]:
        """Stream the reply: sentences as they are complete, then the tool calls (their JSON as the model wrote it).

        Close it when you stop early: ``async with contextlib.aclosing(brain.reply(…)) as reply``.

        Parameters
        ----------
        messages : sequence of mapping
            Chat messages, ``{"role": "user", "content": "Hello"}``.
        tools : sequence of mapping, optional
            Function tools, in the realtime spelling (flat) or that of chat completions (nested).

        Raises
        ------
        ServiceError
            The service cannot be reached, refuses, or ends in the middle; `RateLimited` for status 429.
        """
        body: dict[str, Any] = {"model": self._model, "messages": list(messages), "stream": True}
        if tools:
            body["tools"] = [_nested(tool) for tool in tools]
        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        reading = _Reading()
        try:
            async with (
                aiohttp.ClientSession(timeout=self._timeout) as session,
                session.post(self._url, json=body, headers=headers) as answer,
            ):
                if answer.status != 200:
                    raise self._refusal(answer, await answer.text(errors="replace"))
                async for line in _lines(answer.content):
                    for sentence in reading.line(line):
                        yield Say(sentence)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._error(
                f"{self._url} cannot be reached or does not answer ({type(error).__name__}: {error})",
                "unreachable",
            ).with_hint("Is the model server running, and is the base URL right?") from error
        except _BadStreamError as error:
            raise self._error(str(error), "bad_stream") from error
        if not reading.finished:
            raise self._error("the reply ended in the middle", "bad_stream")
        if reading.rest:
            yield Say(reading.rest)
        for name, arguments in reading.calls.values():
            yield Call(name, arguments or "{}")

    def _refusal(self, answer: aiohttp.ClientResponse, body: str) -> ServiceError:
        words = _words(body)
        message = self._redact(f"the model server answered {answer.status}: {words}")
        if answer.status == 429:
            seconds = answer.headers.get("Retry-After", "")
            return RateLimited(
                message,
                retry_after_ms=1000 * int(seconds) if seconds.isdecimal() else None,
                type="rate_limit_error",
                code="rate_limit_exceeded",
            )
        code = {401: "invalid_api_key", 403: "permission_denied", 404: "model_not_found"}.get(answer.status)
        return ServiceError(message, type="invalid_request_error" if answer.status < 500 else "server_error", code=code)

    def _error(self, message: str, code: str) -> ServiceError:
        return ServiceError(self._redact(message), type="server_error", code=code)

    def _redact(self, message: str) -> str:
        return message.replace(self._api_key, "[key]") if self._api_key else message


class _BadStreamError(Exception):
    """What came is not a stream of chat completion chunks, or it says that something failed."""


@dataclass
class _Reading:
    """What of a stream was read so far."""

    rest: str = ""
    calls: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Name and arguments by the model's number of the call."""
    finished: bool = False

    def line(self, line: str) -> list[str]:
        """Take a line of server-sent events; return the sentences it completes."""
        if line.startswith("{"):  # a whole completion, or an error, from a server that does not stream
            data = line
        elif line.startswith("data:"):
            data = line[5:].strip()
        else:
            return []  # comments, event names, empty lines
        if data == "[DONE]":
            self.finished = True
            return []
        try:
            chunk = json.loads(data)
        except ValueError as error:
            raise _BadStreamError(f"the model server sent what is not JSON: {data[:_MAX_ERROR_CHARS]!r}") from error
        if not isinstance(chunk, dict) or chunk.get("error"):
            raise _BadStreamError(f"the model server failed: {_words(data)}")
        done: list[str] = []
        for choice in chunk.get("choices") or ():
            self.finished |= bool(choice.get("finish_reason"))
            done += self._delta(choice.get("delta") or choice.get("message") or {})
        return done

    def _delta(self, delta: Mapping[str, Any]) -> list[str]:
        for i, part in enumerate(delta.get("tool_calls") or ()):
            index, function = part.get("index", i), part.get("function") or {}
            name, arguments = self.calls.get(index, ("", ""))
            self.calls[index] = name + (function.get("name") or ""), arguments + (function.get("arguments") or "")
        self.rest += delta.get("content") or delta.get("refusal") or ""
        # The last piece waits: "3." may become "3.5", and only white space ends a sentence.
        *done, self.rest = sentences(self.rest) or ("",)
        return done


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[str]:
    """Lines of any length (aiohttp's own refuses long ones); the last may lack its end."""
    buffer = b""
    async for block in content.iter_any():
        *lines, buffer = (buffer + block).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r")
    if buffer:
        yield buffer.decode("utf-8", "replace")


def _nested(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A function tool in the spelling of chat completions."""
    if "function" in tool:
        return dict(tool)
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}


def _words(body: str) -> str:
    """The message inside an error body, else its beginning."""
    try:
        error = json.loads(body).get("error")
        words = error.get("message") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        words = None
    text = re.sub(r"\s+", " ", str(words or body)).strip()
    return text[:_MAX_ERROR_CHARS] or "(nothing)"
