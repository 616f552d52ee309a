"""Chat and transcription services, each a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from rtnb.audio import read_wav
from rtnb.errors import RateLimited, ServiceError
from rtnb.protocol import Item
from rtnb.protocol.values import ContentPart
from rtnb.simulator.responder import Call, ChatResponder, Say, Turn
from rtnb.simulator.transcriber import ExactTranscriber, Transcript, open_transcriber
from tests.simulator.rig import WRITTEN, Rig, encoded, spoken, world
from tests.simulator.test_usage import picture

KEY = "sk-very-secret"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a service with the given handler; gives its base URL."""
    async with contextlib.AsyncExitStack() as servers:

        async def start(handler: Handler, path: str = "/v1/chat/completions") -> str:
            app = web.Application()
            app.router.add_post(path, handler)
            server = await servers.enter_async_context(TestServer(app))
            return str(server.make_url("/v1"))

        yield start


def streaming(*chunks: dict[str, Any] | bytes, done: bool = True) -> Handler:
    """A handler that streams the deltas as server-sent events."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": hello\n\n")
        for chunk in chunks:
            if isinstance(chunk, bytes):
                await response.write(chunk)
            else:
                await response.write(f"data: {json.dumps({'choices': [{'delta': chunk}]})}\r\n\r\n".encode())
        if done:
            end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
            await response.write(f"data: {json.dumps(end)}\n\ndata: [DONE]\n\n".encode())
        return response

    return handler


def answering(status: int, body: str, headers: dict[str, str] | None = None) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body, headers=headers)

    return handler


HI = Item(type="message", role="user", content=(ContentPart(type="input_text", text="Hi"),))
TURN = Turn(items=lambda: iter([HI]), last=HI, instructions="Be kind.", tools=(), tool_choice="auto", heard_ms=0.0)


async def replies(responder: ChatResponder) -> list[Say | Call]:
    return [piece async for piece in responder.respond(TURN)]


async def test_the_reply_comes_by_sentences_and_joined_it_is_the_reply(serve: Serve) -> None:
    words = ["It", " is", " 3", ".5", " degrees", ".", " Bring", " a coat", "!", "\n\nBye", "."]
    base_url = await serve(streaming({"role": "assistant"}, *({"content": word} for word in words)))
    pieces = await replies(ChatResponder(base_url, "m"))
    assert pieces == [Say("It is 3.5 degrees."), Say(" Bring a coat!"), Say("\n\nBye.")]


async def test_the_first_sentence_does_not_wait_for_the_last(serve: Serve) -> None:
    heard = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'data: {"choices": [{"delta": {"content": "First. "}}]}\n\n')
        await heard.wait()
        await response.write(b'data: {"choices": [{"delta": {"content": "Second."}, "finish_reason": "stop"}]}\n\n')
        return response

    brain = ChatResponder(await serve(handler), "m")
    async with contextlib.aclosing(brain.respond(TURN)) as reply:
        assert await anext(reply) == Say("First.")
        heard.set()
        assert [piece async for piece in reply] == [Say(" Second.")]


async def test_tool_calls_are_put_together(serve: Serve) -> None:
    def call(index: int, **parts: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, **parts}]}

    handler = streaming(
        {"content": "Let me look."},
        call(0, id="call_1", type="function", function={"name": "get_weather", "arguments": ""}),
        call(0, function={"arguments": '{"city": '}),
        call(1, id="call_2", function={"name": "get_time"}),
        call(0, function={"arguments": '"Lund"}'}),
    )
    assert await replies(ChatResponder(await serve(handler), "m")) == [
        Say("Let me look."),
        Call("get_weather", '{"city": "Lund"}'),
        Call("get_time", "{}"),
    ]


async def test_what_is_sent(serve: Serve) -> None:
    seen: dict[str, Any] = {}

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.update(await request.json(), key=request.headers.get("Authorization"))
        return await streaming({"content": "ok"})(request)

    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    responder = ChatResponder(await serve(handler), "llama", KEY)
    square = ContentPart(type="input_image", image_url=picture(1, 1))
    async with Rig(world(make_responder=lambda number: responder)) as rig:
        await rig.set(instructions="Be kind.", tools=[{"type": "function", **function}])
        rig.write("Hi")
        for name in ("f", "g"):
            rig.add(type="function_call", name=name, call_id=name, arguments="{}")
        for name in ("f", "g"):
            rig.add(type="function_call_output", call_id=name, output="1")
        rig.add(type="message", role="user", content=(ContentPart(type="input_audio", audio=encoded(spoken())),))
        rig.add(type="message", role="user", content=(ContentPart(type="input_text", text="Look"), square))
        rig.respond(**WRITTEN)
        await rig.until("response.done")
        assert rig.said() == "ok"
    assert (seen["model"], seen["stream"], seen["key"]) == ("llama", True, f"Bearer {KEY}")
    assert seen["tools"] == [{"type": "function", "function": function}]
    system, user, called, first, second, heard, shown = seen["messages"]
    assert system == {"role": "system", "content": "Be kind."}
    assert user == {"role": "user", "content": "Hi"}
    assert [call["function"]["name"] for call in called["tool_calls"]] == ["f", "g"]  # parallel calls: one message
    assert (first["tool_call_id"], second["tool_call_id"]) == ("f", "g")
    assert "not transcribed" in heard["content"]
    assert [part["type"] for part in shown["content"]] == ["text", "image_url"]


async def test_very_long_lines_are_read(serve: Serve) -> None:
    long = "x" * 300_000
    pieces = await replies(ChatResponder(await serve(streaming({"content": long})), "m"))
    assert pieces == [Say(long)]


NO_WAY = json.dumps({"error": {"message": f"no\nway with {KEY}"}})


@pytest.mark.parametrize(
    "handler, code, type_, words",
    [
        (answering(400, NO_WAY), None, "invalid_request_error", "answered 400: no way with .key."),
        (answering(401, NO_WAY), "invalid_api_key", "invalid_request_error", "answered 401: no way with .key."),
        (answering(404, NO_WAY), "model_not_found", "invalid_request_error", "answered 404: no way with .key."),
        (answering(500, NO_WAY), None, "server_error", "answered 500: no way with .key."),
        (streaming(b"data: <html>\n\n"), "bad_stream", "server_error", "not one of a chat service"),
        (
            streaming(b'data: {"error": {"message": "out of memory"}}\n\n'),
            "bad_stream",
            "server_error",
            "out of memory",
        ),
        (answering(200, '{"choices": []}'), "bad_stream", "server_error", "ended in the middle"),
        (streaming({"content": "Half a"}, done=False), "bad_stream", "server_error", "ended in the middle"),
        (answering(200, ""), "bad_stream", "server_error", "ended in the middle"),
    ],
)
async def test_what_goes_wrong_is_explained_and_shows_no_key(
    serve: Serve, handler: Handler, code: str | None, type_: str, words: str
) -> None:
    with pytest.raises(ServiceError, match=words) as caught:
        await replies(ChatResponder(await serve(handler), "m", KEY))
    assert (caught.value.code, caught.value.type) == (code, type_)
    assert KEY not in str(caught.value)


async def test_too_many_requests_says_how_long_to_wait(serve: Serve) -> None:
    with pytest.raises(RateLimited) as caught:
        await replies(ChatResponder(await serve(answering(429, "slow down", {"Retry-After": "3"})), "m"))
    assert caught.value.retry_after_ms == 3000


async def test_nobody_there(unused_tcp_port: int) -> None:
    brain = ChatResponder(f"http://127.0.0.1:{unused_tcp_port}/v1", "m", KEY)
    with pytest.raises(ServiceError, match="cannot be reached") as caught:
        await replies(brain)
    assert caught.value.code == "unreachable"
    assert KEY not in str(caught.value) + repr(brain)
    assert "Is the model server running" in caught.value.__notes__[0]


async def test_a_silent_server_is_not_waited_for_for_ever(serve: Serve) -> None:
    released = asyncio.Event()

    async def handler(_: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    with pytest.raises(ServiceError, match="does not answer"):
        await replies(ChatResponder(await serve(handler), "m", timeout_s=0.05))
    released.set()


@pytest.mark.parametrize(
    "base_url", ["localhost:11434", "ftp://x/v1", "", "http://", "http://x/v1?key=1", "http://me:key@x/v1"]
)
def test_what_is_no_address_is_refused(base_url: str) -> None:
    with pytest.raises(ValueError, match="allowed: http or https"):
        ChatResponder(base_url, "m")


async def test_a_transcription_service_is_asked_for_the_words_and_its_refusal_is_explained(serve: Serve) -> None:
    asked: list[Any] = []

    async def transcribe(request: web.Request) -> web.Response:
        form = await request.post()
        asked.append({name: value for name, value in form.items() if name != "file"})
        file = form["file"]
        assert isinstance(file, web.FileField)
        with file.file as sound:  # the oldest aiohttp allowed leaves it open
            audio, rate_hz = read_wav(sound.read())
        assert (len(audio), rate_hz) == (2400, 24_000)
        return web.json_response({"text": " Hello. "}, status=200 if len(asked) == 1 else 503)

    remote = open_transcriber(await serve(transcribe, "/v1/audio/transcriptions"), ExactTranscriber())
    silence = np.zeros(2400, np.float32)
    assert await remote.transcribe(silence, rate_hz=24_000, language="en") == Transcript("Hello.")
    assert asked == [{"model": "whisper-1", "language": "en"}]
    with pytest.raises(ServiceError, match="transcriber answered 503"):
        await remote.transcribe(silence, rate_hz=24_000)
