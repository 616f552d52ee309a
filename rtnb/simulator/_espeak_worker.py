"""Worker process that speaks with espeak-ng: one JSON object per line, requests on stdin and answers on stdout.

Why a process: espeak-ng is GPL-3 software (rtnb is MIT and only talks to it through a pipe), it may call ``exit()``,
and two threads in it at once end the process (SIGFPE). Here none of that reaches the notebook. Standard library only,
started by `voice.EspeakVoice` as ``python -I -S _espeak_worker.py LIBRARY DATA``, so that it is there quickly.

Request: ``{"text", "language", "variant", "rate", "pitch"}``, the last three optional. Answer: ``{"pcm", "marks",
"rate_hz", "version"}``, the audio as int16 little-endian mono in base64, and ``[text offset in characters, ms]`` of
each word; or ``{"error"}``. Where the library does not start, ``{"fatal"}`` comes without a request.

It ends when stdin ends, so it never outlives its parent. Ctrl-C belongs to the notebook's kernel and is ignored.

References
----------
espeak-ng ``speak_lib.h`` (1.52) for structures and constants.
"""

from __future__ import annotations

import base64
import ctypes
import itertools
import json
import os
import signal
import sys
from typing import Any

SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: espeak_Synth returns when all was spoken into the callback
DONT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: without it a missing data folder ends the process
CHARS_UTF8 = 1
RATE, PITCH = 1, 3  # espeak_PARAMETER
WORD = 1  # espeakEVENT_WORD


class _Voice(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender_age_variant_xx1", ctypes.c_ubyte * 4),
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
    """The library, opened once."""

    def __init__(self, library: str, data: str) -> None:
        self._lib = lib = ctypes.CDLL(library)
        lib.espeak_GetCurrentVoice.restype = ctypes.POINTER(_Voice)
        lib.espeak_Info.restype = ctypes.c_char_p
        if data:
            os.chdir(data)  # the library keeps the path in 160 bytes and appends to it
        rate_hz = lib.espeak_Initialize(SYNCHRONOUS, 0, b"." if data else None, DONT_EXIT)
        if rate_hz <= 0:
            raise OSError(f"espeak-ng does not start with its data in {data or 'the default place'}")
        self._callback = _Callback(self._on_sound)  # kept: the library holds only the bare pointer
        lib.espeak_SetSynthCallback(self._callback)
        self._identifiers: dict[str, bytes] = {}
        self._identifier("en-us")  # reads the voice list now, not at the first word
        self._about = {"rate_hz": rate_hz, "version": lib.espeak_Info(None).decode().split()[0]}

    def speak(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request; raises ValueError for what cannot be spoken."""
        identifier = self._identifier(request["language"])
        if self._lib.espeak_SetVoiceByName(identifier + b"+" + request.get("variant", "").encode()):
            self._lib.espeak_SetVoiceByName(identifier)  # an older espeak-ng without this variant: its plain voice
        self._lib.espeak_SetParameter(RATE, request.get("rate", 175), 0)
        self._lib.espeak_SetParameter(PITCH, request.get("pitch", 50), 0)
        self._pcm, self._marks = bytearray(), list[tuple[int, int]]()
        text = request["text"].encode("utf-8", "replace") + b"\0"
        if status := self._lib.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 1, 0, CHARS_UTF8, None, None):
            raise ValueError(f"espeak-ng refused the text (status {status})")
        return {"pcm": base64.b64encode(self._pcm).decode(), "marks": self._marks, **self._about}

    def _identifier(self, language: str) -> bytes:
        """Return the voice file of a language tag. By properties: espeak_SetVoiceByName("en-gb") fails in 1.52."""
        if language not in self._identifiers:
            wanted = _Voice(languages=language.encode())
            if self._lib.espeak_SetVoiceByProperties(ctypes.byref(wanted)):
                raise ValueError(f"espeak-ng does not speak the language {language!r}")
            self._identifiers[language] = self._lib.espeak_GetCurrentVoice().contents.identifier
        return self._identifiers[language]

    def _on_sound(self, samples: Any, n_samples: int, events: Any) -> int:
        """Keep a block of sound and the words that begin in it (callback of the library; 0 goes on)."""
        for event in itertools.takewhile(lambda event: event.type, events if events else ()):  # 0 ends the list
            if event.type == WORD:
                self._marks.append((max(0, event.text_position - 1), event.audio_position))
        if samples and n_samples > 0:
            self._pcm += ctypes.string_at(samples, 2 * n_samples)  # little-endian machines only
        return 0


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the C library prints must not fall between the answers
    try:
        espeak = Espeak(*sys.argv[1:])
    except OSError as error:
        print(json.dumps({"fatal": str(error)}), file=out, flush=True)
        return 1
    for line in sys.stdin.buffer:
        try:
            answer = espeak.speak(json.loads(line))
        except ValueError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
