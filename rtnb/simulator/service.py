"""The simulator's front: WebSocket and HTTP on the paths of the real services, with their keys and their refusals.

Paths (dialect by path, as at the services):

- ``/openai/v1/realtime?model=…`` Azure GA, ``/v1/realtime?model=…`` OpenAI GA
- ``/openai/realtime?api-version=…&deployment=…`` Azure preview
- ``POST …/realtime/client_secrets`` (GA), ``POST /openai/realtimeapi/sessions?api-version=…`` (preview): keys

Azure paths refuse a bad request with an HTTP status; OpenAI paths accept, say `error` and close, as observed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import WSCloseCode, WSMsgType, web

from rtnb.errors import RemoteProtocolError
from rtnb.protocol import Dialect, ErrorDetail, SessionConfig, events, wire
from rtnb.protocol.replies import initial_session, updated_session
from rtnb.protocol.schema import check_session
from rtnb.simulator.faults import Close, FaultPlan
from rtnb.simulator.keys import GA_LIFETIME_S, MAX_LIFETIME_S, MIN_LIFETIME_S, PREVIEW_LIFETIME_S, KeyRing
from rtnb.simulator.live import LiveSession, World

MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024
"""Largest frame taken: 15 MiB of audio in base64 and its JSON."""
MAX_BODY_BYTES: Final = 1024 * 1024
"""Largest HTTP request body."""
DEFAULT_MODEL: Final = "rtnb-simulator"
"""Told to clients that name no model."""
KEY_PROTOCOL: Final = "openai-insecure-api-key."
"""Browsers that cannot set headers offer the key as a subprotocol with this prefix."""

_log = logging.getLogger("rtnb.simulator")


@dataclass(frozen=True)
class _Door:
    """What a path means."""

    dialect: Dialect
    azure: bool


_SOCKET_DOORS: Final = {
    "/openai/v1/realtime": _Door("ga", True),
    "/v1/realtime": _Door("ga", False),
    "/openai/realtime": _Door("preview", True),
}


class _RefusedError(Exception):
    """A request that is not let in."""

    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Service:
    """The web application of one simulator.

    Parameters
    ----------
    world : World
        What the sessions share.
    keys : KeyRing
        Who may come in.
    origins : sequence of str
        Pages that may call from a browser, such as ``http://localhost:8888``; everything else is refused.
    """

    def __init__(self, world: World, keys: KeyRing, *, origins: tuple[str, ...] = ()) -> None:
        self.world = world
        self.keys = keys
        self.origins = origins
        self.sessions: dict[int, LiveSession] = {}
        self._sockets: set[web.WebSocketResponse] = set()
        self._faults = FaultPlan(world.faults, seed=world.seed)
        self._count = 0

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        for path in _SOCKET_DOORS:
            app.router.add_get(path, self._socket)
        for prefix in ("/openai/v1", "/v1"):
            app.router.add_post(f"{prefix}/realtime/client_secrets", self._client_secrets)
        for name in ("sessions", "transcription_sessions"):
            app.router.add_post(f"/openai/realtimeapi/{name}", self._preview_sessions)
            app.router.add_post(f"/openai/realtime/{name}", self._preview_sessions)
        app.on_shutdown.append(self._shutdown)
        return app

    # --- the guard ----------------------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """CORS for known pages only, and every refusal as the services' JSON."""
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self.origins:
            text = f"The page {origin} may not use this simulator."
            return _error_response(_RefusedError(403, "origin_not_allowed", text))
        if request.method == "OPTIONS" and origin:
            response: web.StreamResponse = web.Response(status=204)
        else:
            try:
                response = await handler(request)
            except _RefusedError as refused:
                response = _error_response(refused)
            except web.HTTPException as error:
                response = _error_response(_RefusedError(error.status, str(error.status), _words_for(error.status)))
        if origin and not response.prepared:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Headers"] = "authorization, api-key, content-type"
            response.headers["Access-Control-Allow-Methods"] = "POST, GET, OPTIONS"
            response.headers["Vary"] = "Origin"
        return response

    def _admit(self, request: web.Request) -> SessionConfig | None:
        """Check the key; the preset of an ephemeral key, None for the long-lived one."""
        api_key = request.headers.get("api-key") or request.query.get("api-key")
        bearer = _bearer(request)
        if api_key and bearer:
            raise _RefusedError(401, "401", "Send either an api-key or a token, not both.")
        offered = api_key or bearer
        if not offered:
            raise _RefusedError(401, None, "Missing bearer or basic authentication in header")
        if self.keys.is_main(offered):
            return None
        grant = self.keys.grant(offered) if bearer else None
        if grant is None:
            raise _RefusedError(
                401, "invalid_api_key", "Access denied due to invalid subscription key or wrong API endpoint."
            )
        if self.keys.expired(grant):
            raise _RefusedError(401, "invalid_api_key", "The ephemeral key has expired.")
        return grant.session

    # --- ephemeral keys -----------------------------------------------------------------------------------------------

    async def _body(self, request: web.Request) -> dict[str, Any]:
        status = self._faults.on_connect()
        if status is not None:
            raise _RefusedError(status, str(status), _words_for(status))
        if self._admit(request) is not None:
            raise _RefusedError(401, "invalid_api_key", "An ephemeral key cannot make another one.")
        try:
            return wire.parse(await request.text() or "{}")
        except (RemoteProtocolError, UnicodeDecodeError) as error:
            raise _RefusedError(400, "invalid_json", f"The request body is {error}") from error

    async def _client_secrets(self, request: web.Request) -> web.Response:
        if "api-version" in request.query:
            raise _RefusedError(400, "400", "api-version query parameter is not allowed when using /v1 path")
        body = await self._body(request)
        lifetime = _lifetime(body.get("expires_after"))
        asked = body.get("session") or {"type": "realtime"}
        refusal = check_session(asked, dialect="ga")
        if refusal:
            raise _RefusedError(400, refusal.code, refusal.message)
        preset = wire.decode_session(asked)
        value, grant = self.keys.mint(preset, lifetime_s=lifetime)
        session = self._effective(preset, "ga")
        expires_at = int(grant.expires_at)
        return web.json_response({"value": value, "expires_at": expires_at, "session": wire.encode_session(session)})

    async def _preview_sessions(self, request: web.Request) -> web.Response:
        if "api-version" not in request.query:
            raise _RefusedError(404, "404", "Resource not found")
        body = await self._body(request)
        body.pop("client_secret", None)
        refusal = check_session(body, dialect="preview")
        if refusal:
            raise _RefusedError(400, refusal.code, refusal.message)
        preset = wire.decode_session(body, dialect="preview")
        value, grant = self.keys.mint(preset, lifetime_s=PREVIEW_LIFETIME_S)
        session = wire.encode_session(self._effective(preset, "preview"), dialect="preview")
        secret = {"value": value, "expires_at": int(grant.expires_at)}
        return web.json_response({**session, "client_secret": secret})

    def _effective(self, preset: SessionConfig, dialect: Dialect) -> SessionConfig:
        self._count += 1
        model = preset.model if isinstance(preset.model, str) else DEFAULT_MODEL
        kind = preset.type == "transcription"
        base = initial_session(
            session_id=f"sess_{self._count:08x}",
            model=model,
            expires_at=int(time.time() + self.world.session_s),
            dialect=dialect,
            transcription=kind,
        )
        return updated_session(base, preset, dialect=dialect)

    # --- sessions -----------------------------------------------------------------------------------------------------

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        door = _SOCKET_DOORS[request.path]
        offered = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        socket = web.WebSocketResponse(
            max_msg_size=MAX_MESSAGE_BYTES,
            compress=False,
            protocols=("realtime",) if "realtime" in offered else (),
        )
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise _RefusedError(426, "426", "This path speaks WebSocket.")
        try:
            preset = self._check_door(request, door)
        except _RefusedError as refused:
            if door.azure:
                raise
            return await _say_and_close(request, socket, refused)
        self._count += 1
        session = LiveSession(
            self.world,
            number=self._count,
            dialect=door.dialect,
            model=_model(request, preset) or DEFAULT_MODEL,
            preset=preset,
            transcription=request.query.get("intent") == "transcription" or (preset and preset.type) == "transcription",
            started_at=int(time.time()),
        )
        await socket.prepare(request)
        self.sessions[self._count] = session
        number = self._count
        self._sockets.add(socket)
        try:
            await _carry(socket, session)
        finally:
            del self.sessions[number]
            self._sockets.discard(socket)
            await session.aclose()
        return socket

    def _check_door(self, request: web.Request, door: _Door) -> SessionConfig | None:
        status = self._faults.on_connect()
        if status is not None:
            raise _RefusedError(status, str(status), _words_for(status))
        query = request.query
        if door.azure and door.dialect == "ga" and "api-version" in query:
            raise _RefusedError(401, "401", "api-version query parameter is not allowed when using /v1 path")
        preset = self._admit(request)
        if request.headers.get("OpenAI-Beta") == "realtime=v1" and not door.azure:
            message = "The Realtime Beta API is no longer supported. Please use /v1/realtime for the GA API."
            raise _RefusedError(400, "beta_api_shape_disabled", message)
        if door.dialect == "preview" and ("api-version" not in query or "deployment" not in query):
            raise _RefusedError(404, "404", "Resource not found")
        intent = query.get("intent")
        if door.azure and door.dialect == "ga" and not _model(request, preset) and not intent:
            raise _RefusedError(404, "DeploymentNotFound", "The API deployment for this resource does not exist.")
        return preset

    async def _shutdown(self, app: web.Application) -> None:
        for socket in list(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the simulator stops")


def _model(request: web.Request, preset: SessionConfig | None) -> str:
    asked = request.query.get("model") or request.query.get("deployment")
    preset_model = preset.model if preset is not None and isinstance(preset.model, str) else ""
    return asked or preset_model


async def _carry(socket: web.WebSocketResponse, session: LiveSession) -> None:
    """Move texts both ways until one side ends."""
    delay_s = session.latency.answer_ms / 1000
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[tuple[float, str | bytes] | None] = asyncio.Queue()

    async def read() -> None:
        async for message in socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                if delay_s:
                    arrived.put_nowait((loop.time() + delay_s, message.data))
                else:
                    session.receive(message.data)
        arrived.put_nowait(None)

    async def take() -> None:
        while (entry := await arrived.get()) is not None:
            await asyncio.sleep(max(0.0, entry[0] - loop.time()))
            session.receive(entry[1])

    async def write() -> None:
        async for out in session.outgoing():
            if isinstance(out, Close):
                await _hang_up(socket, out)
                return
            await socket.send_str(out)

    tasks = [loop.create_task(step(), name="rtnb session") for step in (read, take, write)]
    try:
        await asyncio.wait(tasks[1:], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, ConnectionError):
                _log.error("a session ended by an error", exc_info=outcome)
        if not socket.closed:
            await socket.close()


async def _hang_up(socket: web.WebSocketResponse, close: Close) -> None:
    """Close with a code; 1006 means without a goodbye."""
    transport = socket._req.transport if socket._req is not None else None
    if close.code == 1006 and transport is not None:
        transport.abort()
        return
    await socket.close(code=close.code, message=close.reason.encode()[:123])


async def _say_and_close(
    request: web.Request, socket: web.WebSocketResponse, refused: _RefusedError
) -> web.WebSocketResponse:
    """OpenAI's way to refuse: accept, say `error`, close with 3000 (who you are) or 4000 (what you ask)."""
    await socket.prepare(request)
    kind = "invalid_request_error"
    detail = ErrorDetail(type=kind, code=refused.code, message=refused.message, param=None, event_id=None)
    await socket.send_str(wire.encode(events.Error(event_id="event_refused", error=detail)))
    reason = f"{kind}.{refused.code}" if refused.code else kind
    await socket.close(code=3000 if refused.status == 401 else 4000, message=reason.encode())
    return socket


def _bearer(request: web.Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    for offered in request.headers.get("Sec-WebSocket-Protocol", "").split(","):
        if offered.strip().startswith(KEY_PROTOCOL):
            return offered.strip().removeprefix(KEY_PROTOCOL)
    return None


def _lifetime(expires_after: Any) -> float:
    if expires_after is None:
        return GA_LIFETIME_S
    seconds = expires_after.get("seconds", GA_LIFETIME_S) if isinstance(expires_after, Mapping) else None
    if not isinstance(seconds, int) or not MIN_LIFETIME_S <= seconds <= MAX_LIFETIME_S:
        text = f"Invalid 'expires_after.seconds': expected {MIN_LIFETIME_S} to {MAX_LIFETIME_S}, got {seconds!r}."
        raise _RefusedError(400, "invalid_value", text)
    return float(seconds)


def _words_for(status: int) -> str:
    words = {
        401: "Access denied due to invalid subscription key or wrong API endpoint.",
        403: "The principal lacks the required data action.",
        404: "Resource not found",
        429: "Requests have exceeded the rate limit of your current pricing tier.",
    }
    return words.get(status, f"The simulator answers {status}.")


def _error_response(refused: _RefusedError) -> web.Response:
    body = {"error": {"code": refused.code, "message": refused.message, "type": "invalid_request_error", "param": None}}
    response = web.Response(status=refused.status, text=json.dumps(body), content_type="application/json")
    if refused.status == 429:
        response.headers["retry-after-ms"] = "1500"
        response.headers["retry-after"] = "2"
    return response
