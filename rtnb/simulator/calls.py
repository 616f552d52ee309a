"""Endpoints of WebRTC: POST requests with an offer, answered with an answer and the id of the call.

- ``POST /openai/v1/realtime/calls[?webrtcfilter=on]`` Azure GA, ``POST /v1/realtime/calls`` OpenAI GA: the offer as
  ``application/sdp`` with an ephemeral key, or as multipart `sdp` and `session` with the long-lived key
- ``POST /v1/realtimertc?model=…`` Azure preview (there on a regional host): the offer, with an ephemeral key for it
- ``POST …/realtime/calls/{id}/hangup``; the sideband WebSocket ``…/realtime?call_id=…``: both with the long-lived key
"""

from __future__ import annotations

import asyncio
import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from aiohttp import WSCloseCode, web

from rtnb.errors import RemoteProtocolError
from rtnb.protocol import SessionConfig, wire
from rtnb.protocol.service.schema import check_session
from rtnb.simulator.admission import OWNER, Endpoint, RefusedError, token_of
from rtnb.simulator.delivery import SocketCarrier
from rtnb.simulator.faults import Close
from rtnb.simulator.session import ServiceSession
from rtnb.simulator.sessions import Sessions

if TYPE_CHECKING:
    from rtnb.simulator.webrtc import Call

CALL_ENDPOINTS: Final = {
    "/openai/v1/realtime/calls": Endpoint("ga", True),
    "/v1/realtime/calls": Endpoint("ga", False),
    "/v1/realtimertc": Endpoint("preview", True),
}
_MODULE: Final = "rtnb.simulator.webrtc"


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


class Calls:
    """The calls of one service.

    Parameters
    ----------
    sessions : Sessions
        Where they begin and end.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._open: dict[str, tuple[ServiceSession, asyncio.Task[None], str]] = {}
        """Session, task and owner."""
        self._beside: dict[str, set[asyncio.Task[Any]]] = {}
        """The sideband sockets of each call."""

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the routes."""
        for path, endpoint in CALL_ENDPOINTS.items():
            router.add_post(path, self._offer)
            if endpoint.dialect == "ga":
                router.add_post(path + "/{call_id}/hangup", self._hang_up)

    # --- offers -------------------------------------------------------------------------------------------------------

    async def _offer(self, request: web.Request) -> web.Response:
        endpoint = CALL_ENDPOINTS[request.path]
        self._sessions.refuse_on_fault()
        if endpoint.dialect == "ga" and endpoint.azure and "api-version" in request.query:
            raise RefusedError(400, "400", "api-version query parameter is not allowed when using /v1 path")
        preset = self._admit(request, endpoint)
        if endpoint.dialect == "preview" and not request.query.get("model"):
            raise RefusedError(404, "DeploymentNotFound", "The API deployment for this resource does not exist.")
        sdp, own = await _read(request)
        filtered = endpoint.azure and request.query.get("webrtcfilter") == "on"
        leave = self._sessions.enter(request)
        try:
            call = await _answer(sdp, filtered=filtered)
        except BaseException:
            leave()
            raise
        session = self._sessions.begin(request, endpoint, own or preset, webrtc=True)
        call.connect(session.play)
        call_id = session.make_id("rtc")
        task = asyncio.create_task(self._serve(call_id, call, session), name="rtnb call")
        task.add_done_callback(lambda _: leave())
        self._open[call_id] = session, task, request[OWNER]
        await asyncio.sleep(0)  # it has begun: what ends the service ends it, too
        if endpoint.dialect == "preview":
            self._sessions.keys.spend(token_of(request) or "")
            return web.Response(status=201, text=call.sdp, content_type="application/sdp")
        where = {"Location": f"/v1/realtime/calls/{call_id}"}
        return web.Response(status=201, text=call.sdp, content_type="application/sdp", headers=where)

    def _admit(self, request: web.Request, endpoint: Endpoint) -> SessionConfig | None:
        """Check the key: an offer alone needs an ephemeral key of its dialect, one with a session a long-lived key."""
        preset = self._sessions.admit(request, azure=endpoint.azure)
        refused, grant = None, self._sessions.keys.grant(token_of(request) or "")
        if preset is None and not _multipart(request):
            refused = "An offer as application/sdp needs an ephemeral key (Bearer ek_…)."
        elif preset is not None and _multipart(request):
            refused = "An offer with a session needs the long-lived key: an ephemeral key already has its session."
        elif grant is not None and grant.dialect != endpoint.dialect:
            refused = f"This ephemeral key is not of the {endpoint.dialect} dialect."
        if refused is not None:
            raise RefusedError(401, "401" if endpoint.azure else "invalid_api_key", refused)
        return preset

    async def _serve(self, call_id: str, call: Call, session: ServiceSession) -> None:
        try:
            await self._sessions.serve_session(call, session)
        finally:
            del self._open[call_id]
            session.outgoing.put(Close(WSCloseCode.OK, "the call ended"))
            if watching := self._beside.pop(call_id, None):
                await asyncio.wait(watching)
            await call.aclose()
            await self._sessions.forget(session)

    # --- beside a call ------------------------------------------------------------------------------------------------

    def check(self, call_id: str, preset: SessionConfig | None, *, owner: str) -> None:
        """Refuse to watch or end a call with an ephemeral key, or a call that is not open or has another owner."""
        if preset is not None:
            raise RefusedError(401, "invalid_api_key", "Watching or ending a call needs the long-lived key.")
        if call_id not in self._open or self._open[call_id][2] != owner:  # ids can be guessed: they follow the seed
            here, n_workers = self._sessions.worker
            message = "No call with this id is open."
            if n_workers > 1:
                message += (
                    f" This is worker {here + 1} of {n_workers}, and a call stays with its worker: connect again, which"
                    " may reach another one, or start the simulator without --workers."
                )
            raise RefusedError(404, "call_not_found", message)

    async def watch(self, carrier: SocketCarrier, call_id: str) -> None:
        """Serve a sideband socket: it receives all events of the service in the call, and may send its own."""
        session = self._open[call_id][0]
        task: Any = asyncio.current_task()
        watching = self._beside.setdefault(call_id, set())
        watching.add(task)
        listener = session.listen()
        try:
            await self._sessions.serve_session(carrier, session, listener)
        finally:
            session.outgoing.leave(listener)
            watching.discard(task)

    async def _hang_up(self, request: web.Request) -> web.Response:
        call_id = request.match_info["call_id"]
        preset = self._sessions.admit(request, azure=request.path.startswith("/openai"))
        self.check(call_id, preset, owner=request[OWNER])
        await self._sessions.end([self._open[call_id][1]], Close(WSCloseCode.OK, "hung up"))
        return web.Response()


def _multipart(request: web.Request) -> bool:
    return request.content_type == "multipart/form-data" and not request.path.endswith("rtc")


async def _read(request: web.Request) -> tuple[str, SessionConfig | None]:
    """Return the offer, and the session sent with it."""
    session = None
    try:
        if _multipart(request):
            form = await _form(request)
            sdp, requested = _text(form.get("sdp")), wire.parse(_text(form.get("session")) or '{"type": "realtime"}')
            if refusal := check_session(requested, dialect="ga"):
                raise RefusedError(400, refusal.code, refusal.message)
            session = wire.decode_session(requested)
        elif request.content_type == "application/sdp":
            sdp = (await request.read()).decode()
        else:
            text = f"Content-Type is {request.content_type!r}; allowed: application/sdp (GA also multipart/form-data)."
            raise RefusedError(400, "invalid_content_type", text)
    except (RemoteProtocolError, UnicodeDecodeError, ValueError) as error:
        raise RefusedError(400, "invalid_request_body", f"The request body is {error}") from error
    if not sdp.startswith("v="):
        raise RefusedError(400, "invalid_offer", "The offer is no session description: it begins with v=0.")
    return sdp, session


async def _form(request: web.Request) -> Any:
    try:
        return await request.post()
    except web.HTTPException:  # too large
        raise
    except Exception as error:  # aiohttp raises many exceptions for a form that it cannot read
        raise ValueError(f"no form ({error})") from error


def _text(part: Any) -> str:
    """Return the text of a form's part: a text, or bytes where it has a content type, or a file."""
    raw = part.file.read() if isinstance(part, web.FileField) else part or ""
    return raw if isinstance(raw, str) else bytes(raw).decode()


async def _answer(sdp: str, *, filtered: bool) -> Call:
    problem = obstacle()
    if problem is not None:
        raise RefusedError(503, "webrtc_not_available", problem)
    module = await asyncio.to_thread(importlib.import_module, _MODULE)  # half a second, the first time
    try:
        call: Call = await module.Call.answer(sdp, filtered=filtered)
    except module.OfferError as error:
        raise RefusedError(400, "invalid_offer", f"The offer is refused: {error}.") from error
    except module.UnknownAiortcError as error:
        next_step = 'Next: python -m pip install "aiortc==1.16.*"'
        raise RefusedError(503, "webrtc_not_available", f"WebRTC does not work: {error}. {next_step}") from error
    return call
