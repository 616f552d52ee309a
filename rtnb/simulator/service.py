"""The simulator's front: WebSocket and HTTP on the paths of the real services, with their keys and their refusals.

Paths (dialect by path, as at the services):

- ``/openai/v1/realtime?model=…`` Azure GA, ``/v1/realtime?model=…`` OpenAI GA
- ``/openai/realtime?api-version=…&deployment=…`` Azure preview
- ``POST …/realtime/client_secrets`` (GA), ``POST /openai/realtimeapi/sessions?api-version=…`` (preview): keys
- WebRTC: :mod:`rtnb.simulator.calls`

Who is let in, and in which words not: :mod:`rtnb.simulator.admission`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import replace
from typing import Any, Final

from aiohttp import WSCloseCode, web

from rtnb.errors import RemoteProtocolError
from rtnb.protocol import Dialect, SessionConfig, wire
from rtnb.protocol.service.replies import initial_session, updated_session
from rtnb.protocol.service.schema import check_event, check_session
from rtnb.simulator.admission import (
    OWNER,
    SOCKET_ENDPOINTS,
    Endpoint,
    RefusedError,
    check_address,
    error_response,
    lifetime_s,
    message_for,
    offered_protocols,
    requested_model,
)
from rtnb.simulator.calls import CALL_ENDPOINTS, Calls
from rtnb.simulator.delivery import SocketCarrier, say_and_close
from rtnb.simulator.faults import Close
from rtnb.simulator.keys import GA_LIFETIME_S, PREVIEW_LIFETIME_S, KeyRing
from rtnb.simulator.session import World
from rtnb.simulator.sessions import DEFAULT_MODEL, GOODBYE_S, Sessions

MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024
"""Largest frame taken: 15 MiB of audio in base64 and its JSON."""
PING_S: Final = 20.0
"""A socket that sends nothing for so long is pinged (seen live: every 20.3 s); without a pong within half of it, the
client is lost and its seat free."""
REGION: Final = "simulator"
"""Value of ``x-ms-region``."""
REQUEST_S: Final = 30.0
"""Longest time for a request to arrive and to be answered, and for an open connection to be without one. Chosen."""
MAX_BODY_BYTES: Final = 1024 * 1024
"""Largest HTTP request body."""


class Service(Sessions):
    """The web application of one simulator.

    Parameters
    ----------
    world : World
        What the sessions share.
    keys : KeyRing
        Who may come in.
    origins : sequence of str
        Pages that may call from a browser, such as ``http://localhost:8888``; everything else is refused, but offers
        of WebRTC, which any page may make that was given an ephemeral key: as at the services.
    """

    def __init__(
        self, world: World, keys: KeyRing, *, origins: tuple[str, ...] = (), worker: tuple[int, int] = (0, 1)
    ) -> None:
        super().__init__(world, keys, worker=worker)
        self.origins = origins
        self.used: set[Any] = set()
        """Connections that have sent a request."""
        self.calls = Calls(self)

    def app(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guard])
        for path in SOCKET_ENDPOINTS:
            app.router.add_get(path, self._socket)
        for prefix in ("/openai/v1", "/v1"):
            app.router.add_post(f"{prefix}/realtime/client_secrets", self._client_secrets)
        for name in ("sessions", "transcription_sessions"):
            app.router.add_post(f"/openai/realtimeapi/{name}", self._preview_sessions)
            app.router.add_post(f"/openai/realtime/{name}", self._preview_sessions)
        self.calls.add_routes(app.router)
        app.on_response_prepare.append(_add_request_id)
        app.on_shutdown.append(self._shutdown)
        return app

    # --- the guard ----------------------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """CORS for known pages only, and every refusal as the services' JSON."""
        self.used.add(request.protocol)
        origin = request.headers.get("Origin")
        if origin is not None and not self.allows(request):
            return error_response(RefusedError(403, "origin_not_allowed", "This page may not use this simulator."))
        if request.method == "OPTIONS" and origin:
            response: web.StreamResponse = web.Response(status=204)
        else:
            try:
                async with asyncio.timeout(REQUEST_S if request.method == "POST" else None):
                    response = await handler(request)
            except TimeoutError:  # half a body
                response = error_response(RefusedError(408, "408", message_for(408)))
            except RefusedError as refused:
                response = error_response(refused)
            except web.HTTPException as error:
                response = error_response(RefusedError(error.status, str(error.status), message_for(error.status)))
        if origin and not response.prepared:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Headers"] = "authorization, api-key, content-type"
            response.headers["Access-Control-Allow-Methods"] = "POST, GET, OPTIONS"
            response.headers["Access-Control-Expose-Headers"] = "Location"
            response.headers["Vary"] = "Origin"
        return response

    def allows(self, request: web.Request) -> bool:
        """Return whether the page that a request comes from is allowed."""
        return request.headers["Origin"] in self.origins or request.path in CALL_ENDPOINTS

    # --- ephemeral keys -----------------------------------------------------------------------------------------------

    async def _body(self, request: web.Request) -> dict[str, Any]:
        self.refuse_on_fault()
        if self.admit(request, azure=request.path.startswith("/openai")) is not None:
            raise RefusedError(401, "invalid_api_key", "An ephemeral key cannot make another one.")
        try:
            return wire.parse((await request.read()).decode() or "{}")
        except (RemoteProtocolError, UnicodeDecodeError) as error:
            raise RefusedError(400, "invalid_json", "Failed to parse the request body as JSON.") from error

    async def _client_secrets(self, request: web.Request) -> web.Response:
        if "api-version" in request.query:
            raise RefusedError(400, "400", "api-version query parameter is not allowed when using /v1 path")
        body = await self._body(request)
        for name in body:
            if name not in ("session", "expires_after"):
                raise RefusedError(400, "unknown_parameter", f"Unknown parameter: '{name[:100]}'.")
        lifetime = lifetime_s(body.get("expires_after"), default=GA_LIFETIME_S)
        requested = body.get("session", {"type": "realtime"})
        refusal = check_session(requested, dialect="ga")
        if refusal:
            raise RefusedError(400, refusal.code, refusal.message)
        preset = wire.decode_session(requested)
        value, grant = self.keys.mint(preset, lifetime_s=lifetime, owner=request[OWNER])
        session = self._effective(preset, "ga")
        expires_at = int(grant.expires_at)
        return web.json_response({"value": value, "expires_at": expires_at, "session": wire.encode_session(session)})

    async def _preview_sessions(self, request: web.Request) -> web.Response:
        if "api-version" not in request.query:
            raise RefusedError(404, "404", message_for(404))
        body = await self._body(request)
        secret = body.pop("client_secret", None)
        lifetime = lifetime_s(_expiry(secret), default=PREVIEW_LIFETIME_S)
        transcription = request.path.endswith("/transcription_sessions")
        refusal = check_session(body, dialect="preview") if not transcription else _check_transcription(body)
        if refusal:
            raise RefusedError(400, refusal.code, refusal.message)
        preset = wire.decode_session(body, dialect="preview")
        preset = replace(preset, type="transcription") if transcription else preset
        value, grant = self.keys.mint(preset, lifetime_s=lifetime, owner=request[OWNER], dialect="preview")
        session = wire.encode_session(self._effective(preset, "preview"), dialect="preview")
        return web.json_response(
            {**session, "client_secret": {"value": value, "expires_at": int(grant.expires_at)}},
        )

    def _effective(self, preset: SessionConfig, dialect: Dialect) -> SessionConfig:
        model = preset.model if isinstance(preset.model, str) else DEFAULT_MODEL
        base = initial_session(
            session_id=f"sess_{self.next_number():08x}",
            model=model,
            expires_at=int(time.time() + self.world.session_s),
            dialect=dialect,
            transcription=preset.type == "transcription",
        )
        return updated_session(base, preset, dialect=dialect)

    # --- sockets ------------------------------------------------------------------------------------------------------

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        endpoint = SOCKET_ENDPOINTS[request.path]
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise RefusedError(426, "426", "This path speaks WebSocket.")
        self.refuse_on_fault()
        socket = web.WebSocketResponse(
            max_msg_size=MAX_MESSAGE_BYTES,
            compress=False,
            timeout=GOODBYE_S,
            heartbeat=PING_S,
            protocols=("realtime",) if "realtime" in offered_protocols(request) else (),
        )
        call_id = request.query.get("call_id") if endpoint.dialect == "ga" else None
        try:
            preset = self._check_endpoint(request, endpoint)
            if call_id is not None:
                self.calls.check(call_id, preset, owner=request[OWNER])
            leave = self.enter(request)
        except RefusedError as refused:
            if endpoint.azure:
                raise
            return await say_and_close(request, socket, refused)
        try:
            await socket.prepare(request)
            carrier = SocketCarrier(request, socket)
            if call_id is not None:
                await self.calls.watch(carrier, call_id)
                return socket
            session = self.begin(request, endpoint, preset)
            try:
                await self.serve_session(carrier, session)
            finally:
                await self.forget(session)
            return socket
        finally:
            leave()

    def _check_endpoint(self, request: web.Request, endpoint: Endpoint) -> SessionConfig | None:
        if endpoint.azure and endpoint.dialect == "ga" and "api-version" in request.query:
            raise RefusedError(401, "401", "api-version query parameter is not allowed when using /v1 path")
        preset = self.admit(request, azure=endpoint.azure)
        check_address(request, endpoint, requested_model(request, endpoint, preset))
        return preset

    async def _shutdown(self, app: web.Application) -> None:
        await self.end_all(Close(WSCloseCode.GOING_AWAY, "the simulator stops"))


async def _add_request_id(request: web.Request, response: web.StreamResponse) -> None:
    """Name the request as the services do: support asks for these headers."""
    names = ("apim-request-id", "x-request-id") if request.path.startswith("/openai") else ("x-request-id",)
    response.headers.update(dict.fromkeys(names, str(uuid.uuid4())))
    if len(names) > 1:
        response.headers["x-ms-region"] = REGION


def _expiry(client_secret: Any) -> Any:
    """`expires_after` of a preview request; its transcription sessions name it `expires_at`."""
    secret = client_secret if isinstance(client_secret, dict) else {}
    return secret.get("expires_after", secret.get("expires_at"))


def _check_transcription(body: dict[str, Any]) -> Any:
    return check_event({"type": "transcription_session.update", "session": body}, dialect="preview")
