"""Probabilities on disk, so that a recording is listened to once: by content, so that nothing stale is ever found.

One file per recording and condition, 4 bytes per 32 ms (0.45 MB per hour), in the folder `cache_folder` names. A file's
name is a digest of exactly the samples that were heard, their rate, and the net; its content carries a digest of its
own, so that a damaged or half-written file is noticed and replaced. Files appear whole or not at all: any number of
processes may write the same folder. Delete it whenever you like.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

import rtnb.vad
from rtnb.audio import Audio
from rtnb.vad import speech_probabilities

_MAGIC: Final = b"rtnb vad 1\n"
_VERSION: Final = b"1"
"""Raise it when the resampler or the net's arithmetic changes the probabilities."""
_DIGEST_BYTES: Final = 20


def cache_folder() -> Path:
    """Where probabilities are kept: what the environment variable RTNB_CACHE names, or the user's cache folder.

    That is ``~/.cache/rtnb/probabilities`` (or below XDG_CACHE_HOME), on macOS ``~/Library/Caches/rtnb/probabilities``,
    on Windows ``%LOCALAPPDATA%/rtnb/probabilities``.
    """
    if chosen := os.environ.get("RTNB_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "rtnb" / "probabilities"


def cached_probabilities(audio: Audio, *, rate_hz: int, folder: Path | None) -> npt.NDArray[np.float32]:
    """As `speech_probabilities`, listening only to what no file of the folder holds yet.

    Parameters
    ----------
    audio : ndarray, float32, shape (n_samples,)
        Exactly what is sent.
    rate_hz : int
        Samples per second.
    folder : Path or None
        Made where it is missing; None keeps nothing.

    Returns
    -------
    probabilities : ndarray, float32, shape (n_frames,)

    Warns
    -----
    UserWarning
        A damaged file was replaced, or the folder cannot be used: the answer is right, the time is lost.
    """
    if folder is None:
        return speech_probabilities(audio, rate_hz=rate_hz)
    path = folder / f"{_key(audio, rate_hz)}.vad"
    kept = _read(path)
    if kept is not None:
        return kept
    probabilities = speech_probabilities(audio, rate_hz=rate_hz)
    _write(path, probabilities)
    return probabilities


def _key(audio: Audio, rate_hz: int) -> str:
    digest = blake2b(digest_size=_DIGEST_BYTES)
    for part in (_VERSION, _net(), str(int(rate_hz)).encode(), b"\n"):
        digest.update(part)
    digest.update(np.ascontiguousarray(audio, "<f4").data)
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _net() -> bytes:
    """A digest of the weights."""
    return blake2b((Path(rtnb.vad.__file__).parent / "silero_v6.npz").read_bytes(), digest_size=_DIGEST_BYTES).digest()


def _read(path: Path) -> npt.NDArray[np.float32] | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        warnings.warn(f"kept probabilities cannot be read: {error}", stacklevel=2)
        return None
    head = len(_MAGIC) + _DIGEST_BYTES
    content = data[head:]
    if data[:head] != _MAGIC + blake2b(content, digest_size=_DIGEST_BYTES).digest():
        warnings.warn(f"{path} is damaged: listening anew", stacklevel=2)
        return None
    return np.frombuffer(content, "<f4").astype(np.float32)


def _write(path: Path, probabilities: npt.NDArray[np.float32]) -> None:
    content = probabilities.astype("<f4").tobytes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        try:
            with open(handle, "wb") as file:
                file.write(_MAGIC + blake2b(content, digest_size=_DIGEST_BYTES).digest() + content)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        warnings.warn(f"probabilities cannot be kept: {error}", stacklevel=2)
