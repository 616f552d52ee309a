"""A chat model behind any OpenAI-compatible address: it plays callers and judges answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rtnb.errors import ServiceError, TransportError
from rtnb.redaction import redact

_ERROR_CHARACTERS: Final = 300


@dataclass(frozen=True)
class ChatModel:
    """A chat model.

    Parameters
    ----------
    url : str
        Address up to and without ``/chat/completions``, e.g. ``"https://NAME.openai.azure.com/openai/v1"`` or
        ``"http://localhost:11434/v1"``.
    model : str
        Name of the model or deployment there.
    key : str, optional
        Bearer token; never shown or stored.
    seed : int, optional
        Sent with each request, where the service supports it.
    timeout_s : float, default 60
        Longest wait for one answer.

    Examples
    --------
    >>> ChatModel("http://localhost:11434/v1", "llama", key="sk-secret")
    ChatModel(url='http://localhost:11434/v1', model='llama', seed=None, timeout_s=60.0)
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    seed: int | None = None
    timeout_s: float = 60.0

    @property
    def kept(self) -> dict[str, Any]:
        """Everything but the key, to be kept with results."""
        return {"url": redact(self.url), "model": self.model, "seed": self.seed}

    async def answer(self, messages: Sequence[Mapping[str, str]], **more: Any) -> str:
        """Return the text of the model's answer.

        Raises
        ------
        TransportError
            The service cannot be reached, or gave no answer in time.
        ServiceError
            It refuses, or its answer is none of chat completions.
        """
        import aiohttp

        body = {"model": self.model, "messages": list(messages), **more}
        if self.seed is not None:
            body["seed"] = self.seed
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        url = f"{self.url.rstrip('/')}/chat/completions"
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self.timeout_s)) as http,
                http.post(url, json=body, headers=headers) as reply,
            ):
                status, text = reply.status, await reply.text()
                data: Any = await reply.json(content_type=None) if status == 200 else None
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or f"no answer within {self.timeout_s:g} s"
            raise TransportError(f"the chat model at {redact(url)} cannot be reached: {redact(reason)}") from error
        except ValueError as error:
            raise ServiceError(f"the answer of {redact(url)} is no JSON", type="server_error") from error
        if status != 200:
            shown = self._masked(" ".join(text.split())[:_ERROR_CHARACTERS])
            raise ServiceError(f"the chat model answered {status}: {shown}", type="server_error", code=str(status))
        try:
            return str(data["choices"][0]["message"]["content"] or "")
        except (KeyError, IndexError, TypeError) as error:
            raise ServiceError(f"the answer of {redact(url)} has no choices", type="server_error") from error

    def _masked(self, text: str) -> str:
        return redact(text.replace(self.key, "[key]") if self.key else text)
