"""``rtnb simulate``: the simulator alone in this process, until it is told to stop.

With ``--json`` it prints one line when it is ready::

    {"http": "http://127.0.0.1:8765", "ga": "ws://127.0.0.1:8765/openai/v1", "preview": "ws://127.0.0.1:8765/openai",
     "key": "…"}

`ga` and `preview` are base addresses, as the stock clients take them: `AsyncOpenAI(websocket_base_url=ga)` and
`AsyncAzureOpenAI(websocket_base_url=preview)` put ``/realtime`` and the query behind them, and so does `rtnb.Custom`.
With ``--tls`` the line also has `certificate`: the PEM text that clients should trust.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys

from rtnb.errors import RtnbError
from rtnb.simulator.running import Options, Running
from rtnb.transport import is_loopback


async def serve(options: Options, *, json_line: bool) -> None:
    """Serve until SIGTERM or SIGINT; prints where, and with `json_line` one JSON line instead."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(name, stop.set)
        except NotImplementedError:  # Windows: no handlers on its event loop
            signal.signal(name, lambda *_: loop.call_soon_threadsafe(stop.set))
    running = await Running.start(options)
    try:
        print(_announcement(running, json_line=json_line), flush=True)
        await stop.wait()
    finally:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(running.stop(), 5.0)


def _announcement(running: Running, *, json_line: bool) -> str:
    options, key, http = running.options, running.service.keys.key, running.http
    ws = "ws" + http.removeprefix("http")
    if json_line:
        line = {"http": http, "ga": f"{ws}/openai/v1", "preview": f"{ws}/openai", "key": key}
        return json.dumps(line | ({"certificate": running.certificate_pem} if running.certificate_pem else {}))
    lines = [
        f"rtnb simulator at {http}  (Ctrl-C stops it)",
        f"  GA       {ws}/openai/v1/realtime?model=…",
        f"  preview  {ws}/openai/realtime?api-version=2025-04-01-preview&deployment=…",
        f"  key      {key if options.key is None else 'as given'}",
        f"  voice    {running.voice.name}",
        f'  rtnb.connect(rtnb.Azure("{http}", deployment="any", api_key=…))',
    ]
    return "\n".join(lines)


def serve_forever(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    key: str | None = None,
    tls: bool = False,
    seed: int | None = None,
    latency: str | None = None,
    voice: str | None = None,
    scenario: str | None = None,
    chat_url: str | None = None,
    json_line: bool = False,
) -> int:
    """Run ``rtnb simulate``.

    Returns
    -------
    int
        Exit code: 0 after a clean stop, 1 where it could not start (the reason is printed).
    """
    if not is_loopback(host):
        warning = f"Warning: {host} can be reached by other machines; they need the key. Traffic is "
        print(warning + ("encrypted." if tls else "not encrypted (--tls)."), file=sys.stderr, flush=True)
    try:
        options = Options(
            host=host,
            port=port,
            key=key,
            tls=tls,
            seed=seed or 0,
            latency=latency or "realistic",
            voice=voice or "auto",  # type: ignore[arg-type]  # open_voice judges it in words
            scenario=scenario,
            chat_url=chat_url,
        )
        asyncio.run(serve(options, json_line=json_line))
    except (RtnbError, OSError, ValueError) as error:
        print(f"rtnb simulate: {error}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(f"  {note}", file=sys.stderr)
        return 1
    return 0
