"""File of a trace: its layout, `TraceWriter` and `TraceFile`.

Layout, version 1. A trace is a zip; while its session runs it is a folder of the same files, whose name ends with
``.part``. Every file but the manifest only grows, so a killed process leaves a folder that can be read.

``manifest.json``
    ``rtnb_trace`` (version of this layout), ``rtnb`` (version of the package), ``target`` (without secrets), ``clock``
    (``monotonic_s`` and ``wall_time`` of time 0), ``complete`` (false until the session ended), ``settings`` (over
    time), ``dropped`` (what a bound left out), ``notes`` (sentences). `TraceFile` adds ``tracks``: the bytes of
    each, or why it is missing.
``events.jsonl``
    One event per line, in the order of the wire, in GA spelling, without secrets: ``direction``, ``monotonic_s``,
    ``wall_time``, ``size_bytes`` (on the wire), ``event``. Audio is taken out: ``audio_bytes`` counts its bytes, which
    are next in the track of its side, and ``lost`` is true where no track has them. Lines with ``played_ms``
    are reports of a speaker: how much of ``item_id`` it had played by then.
``user.raw``, ``model.raw``
    Audio of the events one after the other, as on the wire: 16-bit PCM at 24 kHz, or G.711 at 8 kHz. Stored without
    compression, so that a part of it is read without the rest.

A trace may come from a stranger. Nothing is unpacked or executed, other names are refused, and sizes are checked first.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import shutil
import time
import weakref
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any, Final

from rtnb.client.log import LogRow, safe_text, without_audio
from rtnb.errors import RemoteProtocolError, TraceError
from rtnb.protocol import events, wire
from rtnb.redaction import mask_known
from rtnb.trace.timeline import Lane

VERSION: Final = 1
"""Version of the layout."""
PART: Final = ".part"
"""End of the name of a folder that is being recorded."""
MAX_BYTES: Final = 2 * 2**30
"""Default bound of a recording: about 6 hours of audio of both sides (chosen)."""

_log = logging.getLogger("rtnb")
_MANIFEST, _EVENTS = "manifest.json", "events.jsonl"
_RAW: Final[dict[Lane, str]] = {"you": "user.raw", "model": "model.raw"}
_FILES: Final = (_MANIFEST, _EVENTS, *_RAW.values())
_GROWING: Final = (*_RAW.values(), _EVENTS)  # in the order of writing: no line before its audio
_BUFFER_BYTES: Final = 4 * 2**20
"""Most bytes that wait for `flush` (chosen: more than the events of half a second)."""
_MOST: Final = {_MANIFEST: 16 * 2**20, _EVENTS: 2**29}
"""Most bytes of a file that is read as text (chosen: 2 hours of talk have 80 MB of events)."""
_MOST_RATIO: Final = 100
"""Most times that a text may shrink when compressed (chosen: events shrink 10 times, a zip bomb 1,000 times)."""
_AUDIO_SHARE: Final = 0.9
"""Share of the bound that audio may use; events go on up to the bound (chosen)."""
_DAMAGES: Final = (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError)
"""What reading a damaged, cut or encrypted zip raises."""
_MOST_SETTINGS: Final = 1_000
"""Most settings in the manifest; the events have all of them (chosen)."""


CARRIERS: Final[dict[type, tuple[Lane, str]]] = {
    events.InputAudioBufferAppend: ("you", "audio"),
    events.ResponseOutputAudioDelta: ("model", "delta"),
}
"""Track and field of the audio of an event, by its class."""


class TraceWriter:
    """A trace that is being written, as a folder.

    Parameters
    ----------
    folder : Path
        One that is there was left by a killed process: it is renamed.
    manifest : dict
        Facts known at the start.
    max_bytes : int, default 2 GiB
        Bound of all files: audio stops at 90 % of it, events at 100 %; ``manifest["dropped"]`` counts what is left out.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], *, max_bytes: int = MAX_BYTES) -> None:
        try:
            if folder.exists():
                aside = folder.with_name(f"{folder.stem}-{time.strftime('%Y%m%d-%H%M%S')}{folder.suffix}")
                folder.rename(aside)
                _log.warning("%s is left from a recording that did not end; it is %s now", folder, aside)
            folder.mkdir(parents=True)
            self._files = {name: open(folder / name, "wb", buffering=_BUFFER_BYTES) for name in _GROWING}  # noqa: SIM115
        except OSError as error:
            raise TraceError(f"cannot record into {folder}: {error.strerror}").with_hint(
                "Next: give a path in a folder that can be written, and that no other session records to."
            ) from error
        self.folder = folder
        self.manifest = {"notes": []} | manifest | {"rtnb_trace": VERSION, "complete": False, "settings": []}
        self.manifest["dropped"] = {"events": manifest.get("dropped", {}).get("events", 0), "audio_bytes": 0}
        self._max_bytes, self._size_bytes = max_bytes, 0
        self._write_manifest()

    def add(self, row: LogRow, *, keep_audio: bool = True) -> None:
        """Add a row; `flush` writes it. Without `keep_audio` its audio is left out and counts as lost."""
        head = f'"direction": "{row.direction}", "monotonic_s": {row.monotonic_s!r}, "wall_time": {row.wall_time!r}'
        event, n_bytes = without_audio(row.event)
        if n_bytes := n_bytes or row.audio_dropped_bytes:
            head += f', "audio_bytes": {n_bytes}'
            if not (keep_audio and self._keep_audio(row, n_bytes)):
                head += ', "lost": true'
        text = safe_text(event)
        settings = self.manifest["settings"]
        if isinstance(event, events.SessionCreated | events.SessionUpdated) and len(settings) < _MOST_SETTINGS:
            settings.append({"monotonic_s": row.monotonic_s, "settings": json.loads(text)["session"]})
        self._write_line(f'{{{head}, "size_bytes": {row.size_bytes}, "event": {text}}}\n')

    def _keep_audio(self, row: LogRow, n_bytes: int) -> bool:
        """Write the audio of a row into its track; return whether it is there."""
        if type(row.event) not in CARRIERS:
            return False
        lane, field = CARRIERS[type(row.event)]
        if row.audio_dropped_bytes or self._size_bytes + n_bytes > _AUDIO_SHARE * self._max_bytes:
            self.manifest["dropped"]["audio_bytes"] += n_bytes
            return False
        self._files[_RAW[lane]].write(getattr(row.event, field))
        self._size_bytes += n_bytes
        return True

    def _write_line(self, line: str) -> None:
        data = line.encode()
        if self._size_bytes + len(data) > self._max_bytes:
            self.manifest["dropped"]["events"] += 1
            return
        self._size_bytes += len(data)
        self._files[_EVENTS].write(data)

    def mark(self, item_id: str, played_ms: float, monotonic_s: float) -> None:
        """Add a speaker's report."""
        report = {"item_id": item_id, "played_ms": played_ms, "monotonic_s": monotonic_s}
        self._write_line(json.dumps(report) + "\n")

    def flush(self) -> None:
        """Hand everything added so far to the operating system: it survives the end of this process."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Close the files; the folder stays."""
        for file in self._files.values():
            file.close()

    def _write_manifest(self) -> None:
        new = self.folder / "new"
        new.write_text(mask_known(json.dumps(self.manifest, indent=1)), encoding="utf-8")
        os.replace(new, self.folder / _MANIFEST)

    def finish(self, target: Path | IO[bytes]) -> None:
        """Write the rest, put the folder into a zip, which appears at once or not at all, and remove the folder."""
        self.close()
        self.manifest["complete"] = True
        self._write_manifest()
        new: Any = target
        if isinstance(target, Path):
            target.parent.mkdir(parents=True, exist_ok=True)
            new = target.with_name(target.name + ".new")
        _pack(self.folder, new)
        if isinstance(target, Path):
            os.replace(new, target)
        shutil.rmtree(self.folder)


def write_trace(
    target: Path | IO[bytes],
    manifest: dict[str, Any],
    rows: Iterable[tuple[LogRow, bool]],
    played: Mapping[str, tuple[float, float]],
) -> None:
    """Write a trace at once.

    Parameters
    ----------
    target, manifest
        As of `TraceWriter`.
    rows : iterable of (LogRow, bool)
        Events, each with whether its audio is kept.
    played : mapping
        Item -> time and milliseconds of a speaker's report.
    """
    with TemporaryDirectory() as folder:
        writer = TraceWriter(Path(folder) / "trace", manifest)
        for row, keep_audio in rows:
            writer.add(row, keep_audio=keep_audio)
        for item_id, (at_s, played_ms) in played.items():
            writer.mark(item_id, played_ms, at_s)
        writer.finish(target)


def _pack(folder: Path, target: Path | IO[bytes]) -> None:
    """Zip a folder: events before audio, so that a folder that still grows has the audio of every event."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in _FILES:
            if (folder / name).is_symlink():  # a folder may come from a stranger, too
                raise TraceError(f"Cannot open the trace {folder}: {name} is a link.")
            archive.write(folder / name, name, zipfile.ZIP_STORED if name.endswith(".raw") else None)


class TraceFile:
    """Files of a trace, read where they lie in the zip.

    The folder of a session that was killed or still runs is packed into a temporary file first.

    Parameters
    ----------
    source : path or binary file
        The zip, or the folder; ``talk.rtnb`` also finds the folder ``talk.rtnb.part``.

    Raises
    ------
    TraceError
        Missing, damaged, of another version, or not safe to open.
    """

    def __init__(self, source: str | os.PathLike[str] | IO[bytes]) -> None:
        self.name = ""
        try:
            self._file = self._opened(source) if isinstance(source, str | os.PathLike) else source
            self._zip = zipfile.ZipFile(self._file)
            for info in (*self._zip.infolist(), *map(self._zip.getinfo, _FILES)):
                self._check(info)
            self._places = {lane: self._place(self._zip.getinfo(name)) for lane, name in _RAW.items()}
            self.manifest = wire.parse(self._zip.read(_MANIFEST).decode())
        except FileNotFoundError as error:
            raise self._error(f"{Path(error.filename).name} is not there") from error
        except KeyError as error:
            raise self._error(f"it is a zip without a part of a trace: {error.args[0]}") from error
        except (UnicodeDecodeError, RemoteProtocolError) as error:
            raise self._error(f"{_MANIFEST} cannot be read ({error})") from error
        except _DAMAGES as error:
            raise self._error(f"it is no zip, or a part of it is missing ({error})") from error
        if (version := self.manifest.get("rtnb_trace")) != VERSION:
            wrong = self._error(f"its layout has version {version!r}; allowed is {VERSION}")
            raise wrong.with_hint("Next: open it with the version of rtnb that wrote it, or a newer one.")
        reason = "no audio was sent or received as events"
        if self.manifest.get("webrtc"):
            reason = "WebRTC: this audio went between the page and the service, past the kernel"
        sizes = {"user": self._places["you"][1], "model": self._places["model"][1], "heard": self._places["model"][1]}
        self.manifest["tracks"] = {name: {"bytes": n} if n else {"missing": reason} for name, n in sizes.items()}

    def _opened(self, source: str | os.PathLike[str]) -> IO[bytes]:
        """Return the open zip, or the folder as one."""
        path = Path(source)
        part = path if path.is_dir() else path.with_name(path.name + PART)
        path = part if not path.exists() and part.is_dir() else path
        self.name = os.fspath(path)
        file: IO[bytes] = TemporaryFile() if path.is_dir() else open(path, "rb")  # noqa: SIM115
        weakref.finalize(self, file.close)
        if path.is_dir():
            _pack(path, file)
        return file

    def _check(self, info: zipfile.ZipInfo) -> None:
        name, size = info.filename, info.file_size
        if name not in _FILES:
            raise self._error(f"it holds {name!r}, which is no part of a trace")
        if name.endswith(".raw"):
            if info.compress_type != zipfile.ZIP_STORED or size != info.compress_size:
                raise self._error(f"{name} is compressed; allowed is stored audio")
        elif size > _MOST[name] or size > _MOST_RATIO * max(info.compress_size, 10_000):
            raise self._error(f"{name} would unpack to {size:,} bytes; allowed are {_MOST[name]:,}, packed 100 times")

    def _place(self, info: zipfile.ZipInfo) -> tuple[int, int]:
        """Return position and size of a stored file: it begins behind its local header, which has two lengths."""
        header = self._bytes(info.header_offset, 30)
        start = info.header_offset + 30 + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        if header[:4] != b"PK\x03\x04" or start + info.file_size > os.fstat(self._file.fileno()).st_size:
            raise self._error(f"{info.filename} lies outside of the file")
        return start, info.file_size

    def _error(self, reason: str) -> TraceError:
        return TraceError(f"Cannot open the trace {self.name}: {reason}.")

    # --- reading ------------------------------------------------------------------------------------------------------

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of the events; half a line at the end of a recording is left out."""
        number = 0
        try:
            with self._zip.open(_EVENTS) as file:
                for line in file:
                    number += 1
                    if line.endswith(b"\n"):
                        yield wire.parse(line.decode())
        except (UnicodeDecodeError, RemoteProtocolError) as error:
            raise self._error(f"{_EVENTS} cannot be read (line {number}: {error})") from error
        except _DAMAGES as error:
            raise self._error(f"{_EVENTS} is damaged ({error})") from error

    def audio(self, lane: Lane, start: int, stop: int) -> bytes:
        """Return bytes of a track; zeros where it ends before."""
        position, size = self._places[lane]
        found = self._bytes(position + start, min(stop, size) - start) if start < min(stop, size) else b""
        return found.ljust(stop - start, b"\0")

    def _bytes(self, start: int, length: int) -> bytes:
        """Return bytes of the file. Each read maps its own part: a service and a client may read in two threads."""
        first = start - start % mmap.ALLOCATIONGRANULARITY
        access = mmap.ACCESS_READ
        with mmap.mmap(self._file.fileno(), start + length - first, access=access, offset=first) as part:
            return part[start - first :]

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._zip.close()
        self._file.close()
