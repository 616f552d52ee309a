"""The simulator's front: WebSocket and HTTP on the paths of the real services, with their keys and their refusals.

Paths (dialect by path, as at the services):

- ``/openai/v1/realtime?model=…`` Azure GA, ``/v1/realtime?model=…`` OpenAI GA
- ``/openai/realtime?api-version=…&deployment=…`` Azure preview
- ``POST …/realtime/client_secrets`` (GA), ``POST /openai/realtimeapi/sessions?api-version=…`` (preview): keys

WebRTC is negotiated with POST requests, an offer that is answered with an answer and the id of the call:

- ``POST /openai/v1/realtime/calls[?webrtcfilter=on]`` Azure GA, ``POST /v1/realtime/calls`` OpenAI GA: the offer as
  ``application/sdp`` with an ephemeral key, or as multipart `sdp` and `session` with the long-lived key
- ``POST /v1/realtimertc?model=…`` Azure preview (there on a regional host): the offer, with an ephemeral key for it
- ``POST …/realtime/calls/{id}/hangup``; the sideband WebSocket ``…/realtime?call_id=…``: both with the long-lived key

Who is let in, and in which words not: :mod:`rtnb.simulator.admission`.
"""

from __future__ import annotations

import asyncio
import importlib
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from aiohttp import WSCloseCode, web

from rtnb.errors import RemoteProtocolError
from rtnb.protocol import Dialect, SessionConfig, events, wire
from rtnb.protocol.service.replies import initial_session, updated_session
from rtnb.protocol.service.rules import Refusal
from rtnb.protocol.service.schema import check_event, check_session
from rtnb.simulator import admission
from rtnb.simulator.admission import OWNER, SOCKET_ENDPOINTS, Endpoint, KeyRing, RefusedError, lifetime_s, message_for
from rtnb.simulator.delivery import Carrier, InputScheduler, Listener, SocketCarrier, say_and_close, serve_session
from rtnb.simulator.faults import Close, FaultPlan
from rtnb.simulator.parts import World
from rtnb.simulator.recorded import RecordedSession
from rtnb.simulator.session import ServiceSession

if TYPE_CHECKING:
    from rtnb.simulator.webrtc import Call

GOODBYE_S: Final = 1.0
"""How long a client may take to answer our close frame. Chosen: a stop must not wait for a client that hangs."""
DEFAULT_MODEL: Final = "rtnb-simulator"
"""Model of the clients that name none."""
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
CALL_ENDPOINTS: Final = {
    "/openai/v1/realtime/calls": Endpoint("ga", True),
    "/v1/realtime/calls": Endpoint("ga", False),
    "/v1/realtimertc": Endpoint("preview", True),
}
_FOR_PAGES: Final = {
    "Access-Control-Allow-Headers": "authorization, api-key, content-type",
    "Access-Control-Allow-Methods": "POST, GET, OPTIONS",
    "Access-Control-Expose-Headers": "Location",
    "Vary": "Origin",
}


def obstacle() -> str | None:
    """Return why WebRTC calls are not possible here, and what to do; None where they are."""
    if find_spec("aiortc") is None:
        return 'WebRTC needs aiortc, which is not installed. Next: python -m pip install "rtnb[sim]"'
    from aioice.ice import get_host_addresses

    if not get_host_addresses(use_ipv4=True, use_ipv6=True):
        return (
            "WebRTC does not connect over the loopback interface, the only one this machine has up. Next: turn any "
            "network on (it need not reach the internet), or talk over WebSocket."
        )
    return None


class Service:
    """The web application of one simulator, and its open sessions.

    Parameters
    ----------
    world : World
        What the sessions share.
    keys : KeyRing
        Who may come in.
    worker : (int, int), default (0, 1)
        Number of this process among those that share the port, and how many there are.
    """

    def __init__(self, world: World, keys: KeyRing, *, worker: tuple[int, int] = (0, 1)) -> None:
        self.world, self.keys, self.worker = world, keys, worker
        self.sessions: dict[ServiceSession, str] = {}
        """Those that are open, with their owners."""
        self.used: set[Any] = set()
        """Connections that have sent a request."""
        self._stops: dict[asyncio.Task[Any], tuple[asyncio.Future[Close], ServiceSession]] = {}
        """Tasks that serve sessions, what makes them end, and their session."""
        self._faults = FaultPlan(world.faults, seed=world.seed)
        self._scheduler = InputScheduler()
        self._count = worker[0] + 1 - worker[1]
        self._calls: dict[str, ServiceSession] = {}
        """Session of each WebRTC call."""

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
        for path, endpoint in CALL_ENDPOINTS.items():
            app.router.add_post(path, self._offer)
            if endpoint.dialect == "ga":
                app.router.add_post(path + "/{call_id}/hangup", self._hang_up)
        app.on_response_prepare.append(self._complete)
        app.on_shutdown.append(self._shutdown)
        return app

    # --- the guard ----------------------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Let pages make calls only, and give every refusal as the services' JSON."""
        self.used.add(request.protocol)
        origin = request.headers.get("Origin")
        if origin is not None and not self.allows(request):
            raise RefusedError(403, "origin_not_allowed", "This page may not use this simulator.")
        if origin is not None and request.method == "OPTIONS":
            return web.Response(status=204)
        try:
            async with asyncio.timeout(REQUEST_S if request.method == "POST" else None):
                response: web.StreamResponse = await handler(request)
                return response
        except TimeoutError as error:  # half a body
            raise RefusedError(408, "408", message_for(408)) from error
        except RefusedError:
            raise
        except web.HTTPException as error:
            raise RefusedError(error.status, str(error.status), message_for(error.status)) from error

    async def _complete(self, request: web.Request, response: web.StreamResponse) -> None:
        """Name the request as the services do, because support asks for it; let an allowed page read the response."""
        names = ("apim-request-id", "x-request-id") if request.path.startswith("/openai") else ("x-request-id",)
        response.headers.update(dict.fromkeys(names, str(uuid.uuid4())))
        if len(names) > 1:
            response.headers["x-ms-region"] = REGION
        if (origin := request.headers.get("Origin")) and self.allows(request):
            response.headers.update({"Access-Control-Allow-Origin": origin, **_FOR_PAGES})

    def allows(self, request: web.Request) -> bool:
        """Return whether a page may make this request: an offer of a call, for which it needs an ephemeral key."""
        return request.path in CALL_ENDPOINTS

    # --- admission ----------------------------------------------------------------------------------------------------

    def refuse_on_fault(self) -> None:
        """Refuse this connection where a fault on demand requires it."""
        status = self._faults.on_connect()
        if status is not None:
            raise RefusedError(status, str(status), message_for(status))

    def admit(self, request: web.Request, *, azure: bool) -> SessionConfig | None:
        """Check the key of a request: see `admission.admit`; a classroom counts the wrong ones."""
        return admission.admit(request, self.keys, azure=azure)

    def enter(self, request: web.Request) -> Callable[[], None]:
        """Let an admitted request open a session, where there is room; call the returned function at its end."""
        return lambda: None

    def watcher(self, owner: str) -> Callable[[events.Event], None] | None:
        """Return a callback for every event sent to a session of this owner; a classroom counts them."""
        return None

    def next_number(self) -> int:
        """Return the number of a new session, counted from 1; no two workers use the same."""
        self._count += self.worker[1]
        return self._count

    # --- from beginning to end ---------------------------------------------------------------------------------------

    def begin(
        self, request: web.Request, endpoint: Endpoint, preset: SessionConfig | None, *, webrtc: bool = False
    ) -> ServiceSession:
        """Return a new session; `forget` ends it."""
        if (recording := self.world.replay) is not None and not webrtc:
            plan = FaultPlan(self.world.faults, seed=self.world.seed)
            played: Any = RecordedSession(recording, dialect=endpoint.dialect, plan=plan)
            self.sessions[played] = request[OWNER]
            return played  # type: ignore[no-any-return]
        session = ServiceSession(
            self.world,
            number=self.next_number(),
            dialect=endpoint.dialect,
            model=admission.requested_model(request, endpoint, preset) or DEFAULT_MODEL,
            preset=preset,
            transcription="transcription" in (request.query.get("intent"), preset and preset.type),
            started_at=int(time.time()),
            watch=self.watcher(request[OWNER]),
            webrtc=webrtc,
            azure=endpoint.azure,
        )
        self.sessions[session] = request[OWNER]
        return session

    async def serve_session(self, carrier: Carrier, session: ServiceSession, listener: Listener | None = None) -> None:
        """Serve a session in the calling task, until one side ends or `end` does."""
        task: Any = asyncio.current_task()
        stop: asyncio.Future[Close] = asyncio.get_running_loop().create_future()
        self._stops[task] = stop, session
        try:
            await serve_session(carrier, session, scheduler=self._scheduler, stop=stop, listener=listener)
        finally:
            del self._stops[task]

    async def forget(self, session: ServiceSession) -> None:
        """Remove and close a session."""
        del self.sessions[session]
        await session.aclose()

    def tasks(self, session: ServiceSession) -> list[asyncio.Task[Any]]:
        """Return the tasks that serve a session: its own, and those of sideband sockets."""
        return [task for task, (_, served) in self._stops.items() if served is session]

    async def end(self, tasks: Collection[asyncio.Task[Any]], close: Close) -> None:
        """Make tasks in `serve_session` hang up, and wait for them."""
        for task in tasks:
            if task in self._stops and not self._stops[task][0].done():
                self._stops[task][0].set_result(close)
        if tasks:
            await asyncio.wait(tasks, timeout=2 * GOODBYE_S)

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
        requested = body.get("session", {"type": "realtime"})
        _refuse(check_session(requested, dialect="ga"))
        lifetime = lifetime_s(body.get("expires_after"), default=admission.GA_LIFETIME_S)
        value, expires_at, session = self._mint(request, wire.decode_session(requested), lifetime, "ga")
        return web.json_response({"value": value, "expires_at": expires_at, "session": session})

    async def _preview_sessions(self, request: web.Request) -> web.Response:
        if "api-version" not in request.query:
            raise RefusedError(404, "404", message_for(404))
        body = await self._body(request)
        secret = body.pop("client_secret", None)
        secret = secret if isinstance(secret, dict) else {}
        # Of `client_secret`; transcription sessions name it `expires_at`.
        lifetime = lifetime_s(
            secret.get("expires_after", secret.get("expires_at")), default=admission.PREVIEW_LIFETIME_S
        )
        transcription = request.path.endswith("/transcription_sessions")
        if transcription:
            _refuse(check_event({"type": "transcription_session.update", "session": body}, dialect="preview"))
        else:
            _refuse(check_session(body, dialect="preview"))
        preset = wire.decode_session(body, dialect="preview")
        preset = replace(preset, type="transcription") if transcription else preset
        value, expires_at, session = self._mint(request, preset, lifetime, "preview")
        return web.json_response({**session, "client_secret": {"value": value, "expires_at": expires_at}})

    def _mint(
        self, request: web.Request, preset: SessionConfig, lifetime_s: float, dialect: Dialect
    ) -> tuple[str, int, dict[str, Any]]:
        """Make an ephemeral key; return it, its end in Unix seconds, and the session that it will open."""
        value, grant = self.keys.mint(preset, lifetime_s=lifetime_s, owner=request[OWNER], dialect=dialect)
        base = initial_session(
            session_id=f"sess_{self.next_number():08x}",
            model=preset.model if isinstance(preset.model, str) else DEFAULT_MODEL,
            expires_at=int(time.time() + self.world.session_s),
            dialect=dialect,
            transcription=preset.type == "transcription",
        )
        session = updated_session(base, preset, dialect=dialect)
        return value, int(grant.expires_at), wire.encode_session(session, dialect=dialect)

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
            protocols=("realtime",) if "realtime" in admission.offered_protocols(request) else (),
        )
        call_id = request.query.get("call_id") if endpoint.dialect == "ga" else None
        try:
            preset = self._check_endpoint(request, endpoint)
            if call_id is not None:
                self._check_call(call_id, preset, owner=request[OWNER])
            leave = self.enter(request)
        except RefusedError as refused:
            if endpoint.azure:
                raise
            return await say_and_close(request, socket, refused)
        try:
            await socket.prepare(request)
            carrier = SocketCarrier(request, socket)
            if call_id is not None:
                await self._watch(carrier, call_id)
                return socket
            await self._scheduler.turn()  # a hundred that connect at once do not hold up those that are there
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
        admission.check_address(request, endpoint, admission.requested_model(request, endpoint, preset))
        return preset

    async def _shutdown(self, app: web.Application) -> None:
        await self.end(tuple(self._stops), Close(WSCloseCode.GOING_AWAY, "the simulator stops"))

    # --- offers -------------------------------------------------------------------------------------------------------

    async def _offer(self, request: web.Request) -> web.Response:
        endpoint = CALL_ENDPOINTS[request.path]
        self.refuse_on_fault()
        if endpoint.dialect == "ga" and endpoint.azure and "api-version" in request.query:
            raise RefusedError(400, "400", "api-version query parameter is not allowed when using /v1 path")
        preset = self._admit_offer(request, endpoint)
        if endpoint.dialect == "preview" and not request.query.get("model"):
            raise RefusedError(404, "DeploymentNotFound", "The API deployment for this resource does not exist.")
        sdp, own = await _read(request)
        filtered = endpoint.azure and request.query.get("webrtcfilter") == "on"
        leave = self.enter(request)
        try:
            call = await _answer(sdp, filtered=filtered)
        except BaseException:
            leave()
            raise
        session = self.begin(request, endpoint, own or preset, webrtc=True)
        call.connect(session.play)
        call_id = session.conversation.make_id("rtc")
        task = asyncio.create_task(self._serve_call(call_id, call, session), name="rtnb call")
        task.add_done_callback(lambda _: leave())
        self._calls[call_id] = session
        await asyncio.sleep(0)  # it has begun: what ends the service ends it, too
        if endpoint.dialect == "preview":
            self.keys.spend(admission.token_of(request) or "")
            return web.Response(status=201, text=call.sdp, content_type="application/sdp")
        where = {"Location": f"/v1/realtime/calls/{call_id}"}
        return web.Response(status=201, text=call.sdp, content_type="application/sdp", headers=where)

    def _admit_offer(self, request: web.Request, endpoint: Endpoint) -> SessionConfig | None:
        """Check the key: an offer alone needs an ephemeral key of its dialect, one with a session a long-lived key."""
        preset = self.admit(request, azure=endpoint.azure)
        refused, grant = None, self.keys.grant(admission.token_of(request) or "")
        if preset is None and not _multipart(request):
            refused = "An offer as application/sdp needs an ephemeral key (Bearer ek_…)."
        elif preset is not None and _multipart(request):
            refused = "An offer with a session needs the long-lived key: an ephemeral key already has its session."
        elif grant is not None and grant.dialect != endpoint.dialect:
            refused = f"This ephemeral key is not of the {endpoint.dialect} dialect."
        if refused is not None:
            raise RefusedError(401, "401" if endpoint.azure else "invalid_api_key", refused)
        return preset

    async def _serve_call(self, call_id: str, call: Call, session: ServiceSession) -> None:
        try:
            await self.serve_session(call, session)
        finally:
            del self._calls[call_id]
            session.outgoing.put(Close(WSCloseCode.OK, "the call ended"))
            if watching := self.tasks(session):
                await asyncio.wait(watching)
            await call.aclose()
            await self.forget(session)

    # --- beside a call ------------------------------------------------------------------------------------------------

    def _check_call(self, call_id: str, preset: SessionConfig | None, *, owner: str) -> None:
        """Refuse to watch or end a call with an ephemeral key, or a call that is not open or has another owner."""
        if preset is not None:
            raise RefusedError(401, "invalid_api_key", "Watching or ending a call needs the long-lived key.")
        # Ids can be guessed: they follow the seed.
        if call_id not in self._calls or self.sessions[self._calls[call_id]] != owner:
            here, n_workers = self.worker
            message = "No call with this id is open."
            if n_workers > 1:
                message += (
                    f" This is worker {here + 1} of {n_workers}, and a call stays with its worker: connect again, which"
                    " may reach another one, or start the simulator without --workers."
                )
            raise RefusedError(404, "call_not_found", message)

    async def _watch(self, carrier: SocketCarrier, call_id: str) -> None:
        """Serve a sideband socket: it receives all events of the service in the call, and may send its own."""
        session = self._calls[call_id]
        listener = session.listen()
        try:
            await self.serve_session(carrier, session, listener)
        finally:
            session.outgoing.leave(listener)

    async def _hang_up(self, request: web.Request) -> web.Response:
        call_id = request.match_info["call_id"]
        preset = self.admit(request, azure=request.path.startswith("/openai"))
        self._check_call(call_id, preset, owner=request[OWNER])
        await self.end(self.tasks(self._calls[call_id])[:1], Close(WSCloseCode.OK, "hung up"))
        return web.Response()


def _refuse(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise RefusedError(400, refusal.code, refusal.message)


def _multipart(request: web.Request) -> bool:
    return request.content_type == "multipart/form-data" and not request.path.endswith("rtc")


async def _read(request: web.Request) -> tuple[str, SessionConfig | None]:
    """Return the offer, and the session sent with it."""
    session = None
    try:
        if _multipart(request):
            form = await request.post()
            sdp, requested = _text(form.get("sdp")), wire.parse(_text(form.get("session")) or '{"type": "realtime"}')
            _refuse(check_session(requested, dialect="ga"))
            session = wire.decode_session(requested)
        elif request.content_type == "application/sdp":
            sdp = (await request.read()).decode()
        else:
            text = f"Content-Type is {request.content_type!r}; allowed: application/sdp (GA also multipart/form-data)."
            raise RefusedError(400, "invalid_content_type", text)
    except web.HTTPException:  # ours, or a body that is too large
        raise
    except Exception as error:  # aiohttp raises many exceptions for a form that it cannot read
        raise RefusedError(400, "invalid_request_body", f"The request body is not readable: {error}") from error
    if not sdp.startswith("v="):
        raise RefusedError(400, "invalid_offer", "The offer is no session description: it begins with v=0.")
    return sdp, session


def _text(part: Any) -> str:
    """Return the text of a form's part: a text, or bytes where it has a content type, or a file."""
    if isinstance(part, web.FileField):
        with part.file as file:
            part = file.read()
    return part if isinstance(part, str) else bytes(part or b"").decode()


async def _answer(sdp: str, *, filtered: bool) -> Call:
    problem = obstacle()
    if problem is not None:
        raise RefusedError(503, "webrtc_not_available", problem)
    module = await asyncio.to_thread(importlib.import_module, "rtnb.simulator.webrtc")  # half a second, the first time
    call: Call = await module.Call.answer(sdp, filtered=filtered)
    return call
