"""Client side of the pipe to espeak-ng: starts the worker process, sends requests, reads audio, ends it."""

from __future__ import annotations

import asyncio
import importlib
import json
import struct
import sys
from pathlib import Path
from typing import Any

from rtnb.errors import AudioError

PATIENCE_S = 10.0
"""How long one portion (usually 20 ms) or the start (usually 60 ms) may take. (chosen)"""
GOODBYE_S = 1.0
"""Timeout for the worker's exit once its input is closed. (chosen)"""
_SYSTEM_LIBRARY = {"darwin": "libespeak-ng.1.dylib", "win32": "libespeak-ng.dll"}


class WorkerDied(Exception):
    """The worker exited or cannot start; the message says how."""


class Worker:
    """Client of an espeak-ng process. Callers must send one request at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.rate_hz = 0
        self.version = ""

    @classmethod
    async def start(cls, library: str, data: str) -> Worker:
        script = str(Path(__file__).with_name("_espeak_worker.py"))
        pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", script, library, data, stdin=pipe, stdout=pipe, stderr=nowhere
            )
        except (OSError, ValueError, NotImplementedError) as error:  # the last: Windows' selector loop
            raise WorkerDied(f"cannot be started as a process here ({type(error).__name__}: {error})") from error
        worker = cls(process)
        try:
            async with asyncio.timeout(PATIENCE_S):
                kind, payload = await worker._frame()
        except (TimeoutError, WorkerDied, asyncio.CancelledError) as error:
            await worker.close()
            if isinstance(error, TimeoutError):
                raise WorkerDied(f"sent nothing for {PATIENCE_S:.0f} s after its start") from error
            raise
        if kind != b"H":
            await worker.close()
            raise WorkerDied(str(json.loads(payload)["error"]))
        hello = json.loads(payload)
        worker.rate_hz, worker.version = hello["rate_hz"], hello["version"]
        return worker

    async def speak(self, request: dict[str, Any]) -> tuple[bytes, list[tuple[int, float]]]:
        """PCM at `rate_hz` and the marks of its words. Raises AudioError for what espeak-ng refuses."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._speak(json.dumps(request).encode())
        except TimeoutError as error:
            raise WorkerDied(f"sent nothing for {PATIENCE_S:.0f} s") from error

    async def _speak(self, body: bytes) -> tuple[bytes, list[tuple[int, float]]]:
        assert self._process.stdin is not None  # a pipe by construction
        try:
            self._process.stdin.write(struct.pack(">I", len(body)) + body)
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise WorkerDied("exited unexpectedly") from error
        blocks: list[bytes] = []
        marks: list[tuple[int, float]] = []
        while True:
            kind, payload = await self._frame()
            if kind == b"A":
                blocks.append(payload)
            elif kind == b"W":
                marks += [(offset, float(ms)) for offset, ms in json.loads(payload)]
            elif kind == b"X":
                raise AudioError(json.loads(payload)["error"])
            else:
                return b"".join(blocks), marks

    async def _frame(self) -> tuple[bytes, bytes]:
        assert self._process.stdout is not None
        try:
            head = await self._process.stdout.readexactly(5)
            return head[:1], await self._process.stdout.readexactly(struct.unpack(">I", head[1:])[0])
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise WorkerDied("exited unexpectedly") from error

    async def close(self) -> None:
        """Close its stdin, which ends it; kill it if it does not exit."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self._process.stdout.read()  # to its end, so that no transport is left open
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.stdout.read()
            await self._process.wait()


def find_espeak() -> tuple[str, str]:
    """Library and data folder. espeakng_loader only names them; nothing of espeak-ng is loaded in this process."""
    try:
        loader = importlib.import_module("espeakng_loader")
        return str(loader.get_library_path()), str(loader.get_data_path())
    except (ImportError, RuntimeError):  # RuntimeError: its data folder is missing
        return _SYSTEM_LIBRARY.get(sys.platform, "libespeak-ng.so.1"), ""
