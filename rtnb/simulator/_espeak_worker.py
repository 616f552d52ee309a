"""Worker process that speaks with espeak-ng: requests on stdin, audio and word times on stdout.

Why a process: espeak-ng is GPL-3 software (rtnb is MIT and only talks to it through a pipe), it may call ``exit()``,
and two threads in it at once end the process (SIGFPE). Here none of that reaches the notebook. Standard library only,
started by `espeak.Worker` as ``python -I -S _espeak_worker.py LIBRARY DATA``, so that it is there quickly.

Request: 4-byte big-endian length, then JSON ``{"text", "language", "variant", "rate", "pitch"}``.
Answer: frames of 1 kind byte, 4-byte big-endian length, payload:

====  =========================================================================================
H     once at start: JSON ``{"rate_hz", "version"}``
W     words that begin in the audio that follows: JSON ``[[text offset in characters, ms], …]``
A     sound: int16 little-endian mono, a block of about 100 ms as soon as it exists
E     the end of this request: JSON ``{}``
X     this request (or the start) failed: JSON ``{"error"}``
====  =========================================================================================

Ends when stdin ends, so it never outlives its parent. Ctrl-C belongs to the notebook's kernel and is ignored.

References
----------
espeak-ng ``speak_lib.h`` (1.52) for structures and constants.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import struct
import sys
from typing import Any, BinaryIO

SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: espeak_Synth returns when all was spoken into the callback
DONT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: without it a missing data folder ends the process
BLOCK_MS = 100
CHARS_UTF8 = 1
RATE, PITCH = 1, 3  # espeak_PARAMETER
WORD = 1  # espeakEVENT_WORD
DATA_PATH_LIMIT = 140  # the library keeps the path in 160 bytes and appends to it


class _Voice(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Espeak:
    """The library, opened once; every call sends its frames to `out`."""

    def __init__(self, library: str, data: str, out: BinaryIO) -> None:
        self._out = out
        self._broken = False
        self._lib = lib = ctypes.CDLL(library)
        lib.espeak_GetCurrentVoice.restype = ctypes.POINTER(_Voice)
        lib.espeak_Info.restype = ctypes.c_char_p
        self.rate_hz = lib.espeak_Initialize(SYNCHRONOUS, BLOCK_MS, os.fsencode(data) if data else None, DONT_EXIT)
        if self.rate_hz <= 0:
            raise OSError(f"espeak-ng does not start with its data in {data or 'the default place'}")
        self._callback = _Callback(self._on_sound)  # kept: the library holds only the bare pointer
        lib.espeak_SetSynthCallback(self._callback)
        self._identifiers: dict[str, bytes] = {}
        self._identifier("en-us")  # reads the voice list now, not at the first word

    @property
    def version(self) -> str:
        return str(self._lib.espeak_Info(None).decode().split()[0])

    def send(self, kind: bytes, payload: bytes) -> None:
        self._out.write(kind + struct.pack(">I", len(payload)) + payload)
        self._out.flush()

    def speak(self, request: dict[str, Any]) -> None:
        """Send W and A frames as audio is synthesised; raises ValueError for what cannot be spoken."""
        identifier = self._identifier(request["language"])
        if self._lib.espeak_SetVoiceByName(identifier + b"+" + request["variant"].encode()):
            self._lib.espeak_SetVoiceByName(identifier)  # an older espeak-ng without this variant: its plain voice
        self._lib.espeak_SetParameter(RATE, request["rate"], 0)
        self._lib.espeak_SetParameter(PITCH, request["pitch"], 0)
        text = request["text"].encode("utf-8", "replace") + b"\0"
        failed = self._lib.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 1, 0, CHARS_UTF8, None, None)
        if self._broken:
            raise BrokenPipeError
        if failed:
            raise ValueError(f"espeak-ng refused the text (status {failed})")

    def _identifier(self, language: str) -> bytes:
        """Return the voice file of a language tag. By properties: espeak_SetVoiceByName("en-gb") fails in 1.52."""
        if language not in self._identifiers:
            wanted = _Voice(languages=language.encode())
            if self._lib.espeak_SetVoiceByProperties(ctypes.byref(wanted)):
                raise ValueError(f"espeak-ng does not speak the language {language!r}")
            self._identifiers[language] = self._lib.espeak_GetCurrentVoice().contents.identifier
        return self._identifiers[language]

    def _on_sound(self, samples: Any, n_samples: int, events: Any) -> int:
        """Send a block (callback of the library; 1 stops the synthesis). An exception must not leave this function."""
        try:
            words = []
            for event in itertools.takewhile(lambda event: event.type, events if events else ()):  # 0 ends the list
                if event.type == WORD:
                    words.append([max(0, event.text_position - 1), event.audio_position])
            if words:
                self.send(b"W", json.dumps(words).encode())
            if samples and n_samples > 0:
                self.send(b"A", ctypes.string_at(samples, 2 * n_samples))  # little-endian machines only
        except OSError:  # the parent closed the pipe
            self._broken = True
            return 1
        return 0


def _serve(library: str, data: str, out: BinaryIO) -> None:
    if len(os.fsencode(data)) < DATA_PATH_LIMIT:
        _answer(Espeak(library, data, out))
        return
    import tempfile  # slow to import, rarely needed

    with tempfile.TemporaryDirectory(prefix="rtnb-") as folder:
        short = os.path.join(folder, "data")
        try:
            os.symlink(data, short)
        except OSError as error:
            raise OSError(
                f"espeak-ng needs its data in a path shorter than {DATA_PATH_LIMIT} bytes and no link to it could be "
                f"made ({error.strerror}): install espeakng-loader in an environment with a shorter path"
            ) from error
        _answer(Espeak(library, short, out))


def _answer(espeak: Espeak) -> None:
    espeak.send(b"H", json.dumps({"rate_hz": espeak.rate_hz, "version": espeak.version}).encode())
    while len(head := sys.stdin.buffer.read(4)) == 4:
        body = sys.stdin.buffer.read(struct.unpack(">I", head)[0])
        try:
            espeak.speak(json.loads(body))
        except ValueError as error:
            espeak.send(b"X", json.dumps({"error": str(error)}).encode())
        else:
            espeak.send(b"E", b"{}")


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the C library prints must not fall between the frames
    try:
        _serve(sys.argv[1], sys.argv[2], out)
    except BrokenPipeError:
        os._exit(0)  # flushing the closed pipe at exit would fail again
    except OSError as error:
        payload = json.dumps({"error": str(error)}).encode()
        out.write(b"X" + struct.pack(">I", len(payload)) + payload)
        out.flush()
        sys.exit(1)


if __name__ == "__main__":
    main()
