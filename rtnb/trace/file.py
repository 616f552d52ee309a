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
import sys
import time
import weakref
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any, Final, Literal

from rtnb.client.log import LogRow, safe_text, without_audio
from rtnb.errors import RemoteProtocolError, TraceError
from rtnb.protocol import events, wire
from rtnb.protocol.events import CLIENT_EVENTS, SERVER_EVENTS
from rtnb.redaction import mask_known
from rtnb.trace.timeline import CARRIERS, Lane, audio_of

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
"""Most bytes that wait for `flush` (chosen: more than the events of a second)."""
_MOST: Final = {_MANIFEST: 16 * 2**20, _EVENTS: 2**29}
"""Most bytes of a file that is read as text (chosen: 2 hours of talk have 80 MB of events)."""
_MOST_RATIO: Final = 100
"""Most times that a text may shrink when compressed (chosen: events shrink 10 times, a zip bomb 1,000 times)."""
_MOST_AUDIO: Final = 2**31
"""Most bytes of audio of one event (chosen)."""
MAX_HOURS: Final = 168
"""Longest trace that is opened (chosen: a week; the clock of a damaged file can claim more)."""
_AUDIO_SHARE: Final = 0.9
"""Share of the bound that audio may use; events go on up to the bound (chosen)."""
_DAMAGED_ZIP: Final = (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError)
_DAMAGES: Final = (*_DAMAGED_ZIP, RemoteProtocolError, ValueError, TypeError, KeyError, AttributeError)
"""What reading a damaged, cut or encrypted file raises."""
_MOST_SETTINGS: Final = 1_000
"""Most settings in the manifest; the events have all of them (chosen)."""


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

    def add(self, row: LogRow) -> None:
        """Add a row; `flush` writes it."""
        head = f'"direction": "{row.direction}", "monotonic_s": {row.monotonic_s!r}, "wall_time": {row.wall_time!r}'
        event, n_bytes = without_audio(row.event)
        if n_bytes := n_bytes or row.audio_dropped_bytes:
            head += f', "audio_bytes": {n_bytes}'
            if not self._keep_audio(row, n_bytes):
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
        if row.audio_dropped_bytes or self._size_bytes + n_bytes > _AUDIO_SHARE * self._max_bytes:
            self.manifest["dropped"]["audio_bytes"] += n_bytes
            return False
        lane, _ = CARRIERS[type(row.event)]
        self._files[_RAW[lane]].write(audio_of(row.event))
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

    def finish(self, path: Path) -> None:
        """Write the rest, put the folder into a zip, which appears at once or not at all, and remove the folder."""
        self.close()
        self.manifest["complete"] = True
        self._write_manifest()
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        _pack(self.folder, new)
        os.replace(new, path)
        shutil.rmtree(self.folder)


def write_trace(
    path: Path, manifest: dict[str, Any], rows: Iterable[LogRow], played: Mapping[str, tuple[float, float]]
) -> None:
    """Write a trace at once; `played` is as in `TraceFile.read`."""
    with TemporaryDirectory() as folder:
        writer = TraceWriter(Path(folder) / "trace", manifest)
        for row in rows:
            writer.add(row)
        for item_id, (at_s, played_ms) in played.items():
            writer.mark(item_id, played_ms, at_s)
        writer.finish(path)


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
    source : path
        The zip, or the folder; ``talk.rtnb`` also finds the folder ``talk.rtnb.part``.

    Raises
    ------
    TraceError
        Missing, damaged, of another version, or not safe to open.
    """

    def __init__(self, source: str | os.PathLike[str]) -> None:
        path = Path(source)
        part = path.with_name(path.name + PART)
        path = part if part.is_dir() and not path.exists() else path
        self.name = os.fspath(path)
        try:
            self._file: IO[bytes] = TemporaryFile() if path.is_dir() else open(path, "rb")  # noqa: SIM115
            weakref.finalize(self, self._file.close)
            if path.is_dir():
                _pack(path, self._file)
            self._zip = zipfile.ZipFile(self._file)
            for info in (*self._zip.infolist(), *map(self._zip.getinfo, _FILES)):
                self._check(info)
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            self._tracks = {lane: self._stored(self._zip.getinfo(name)) for lane, name in _RAW.items()}
            self.manifest = wire.parse(self._zip.read(_MANIFEST).decode())
            self.start_ms, self.stop_ms = map(float, self.manifest.get("window_ms") or (0.0, inf))
        except FileNotFoundError as error:
            raise self._error(f"{Path(error.filename).name} is not there") from error
        except _DAMAGES as error:
            raise self._error(f"it is no trace, or a part of it is missing or damaged ({error})") from error
        if (version := self.manifest.get("rtnb_trace")) != VERSION:
            wrong = self._error(f"its layout has version {version!r}; allowed is {VERSION}")
            raise wrong.with_hint("Next: open it with the version of rtnb that wrote it, or a newer one.")
        reason = "no audio was sent or received as events"
        if self.manifest.get("webrtc"):
            reason = "WebRTC: this audio went between the page and the service, past the kernel"
        sizes = {name: len(self._tracks["you" if name == "user" else "model"]) for name in ("user", "model", "heard")}
        self.manifest["tracks"] = {name: {"bytes": n} if n else {"missing": reason} for name, n in sizes.items()}

    def _check(self, info: zipfile.ZipInfo) -> None:
        name, size = info.filename, info.file_size
        if name not in _FILES:
            raise self._error(f"it holds {name!r}, which is no part of a trace")
        if name not in _MOST and (info.compress_type != zipfile.ZIP_STORED or size != info.compress_size):
            raise self._error(f"{name} is compressed; allowed is stored audio")
        if name in _MOST and size > min(_MOST[name], _MOST_RATIO * max(info.compress_size, 10_000)):
            raise self._error(f"{name} would unpack to {size:,} bytes; allowed are {_MOST[name]:,}, packed 100 times")

    def _stored(self, info: zipfile.ZipInfo) -> memoryview:
        """Return the bytes of a stored file: it begins behind its local header, which ends with two lengths."""
        header = self._map[info.header_offset : info.header_offset + 30]
        start = info.header_offset + 30 + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        stored = memoryview(self._map)[start : start + info.file_size]
        if len(stored) < info.file_size:
            raise zipfile.BadZipFile(f"{info.filename} lies outside of the file")
        return stored

    def _error(self, reason: str) -> TraceError:
        return TraceError(f"Cannot open the trace {self.name}: {reason}.")

    def read(self) -> tuple[list[LogRow], dict[str, tuple[float, float]]]:
        """Read the events; half a line at the end of a recording is left out.

        Returns
        -------
        rows : list of LogRow
            The audio of their events is a view of the file.
        played : dict
            Item -> time and milliseconds of the first report of a speaker.
        """
        rows, played = list[LogRow](), dict[str, tuple[float, float]]()
        ends: dict[Lane, int] = {"you": 0, "model": 0}
        try:
            with self._zip.open(_EVENTS) as file:
                for text in file:
                    if not text.endswith(b"\n"):
                        break
                    line = wire.parse(text.decode())
                    if "played_ms" in line:
                        report = float(line["monotonic_s"]), float(line["played_ms"])
                        played.setdefault(str(line["item_id"]), report)
                        continue
                    row = self._row(line, len(rows), ends)
                    if rows and (hours := (row.monotonic_s - rows[0].monotonic_s) / 3600) > MAX_HOURS:
                        raise ValueError(f"it lies {hours:,.0f} hours after the first; allowed are {MAX_HOURS}")
                    rows.append(row)
        except _DAMAGES as error:
            raise self._error(f"event {len(rows)} is damaged ({type(error).__name__}: {error})") from error
        return rows, played

    def _row(self, line: dict[str, Any], number: int, ends: dict[Lane, int]) -> LogRow:
        """Return the row of a line; `ends` counts the bytes of each track that belong to rows before it."""
        direction: Literal["sent", "received"] = "sent" if line["direction"] == "sent" else "received"
        message, n_bytes, is_lost = line["event"], int(line.get("audio_bytes", 0)), bool(line.get("lost"))
        if not 0 <= n_bytes <= _MOST_AUDIO:
            raise ValueError(f"audio_bytes is {n_bytes}; allowed are {_MOST_AUDIO}")
        registry = CLIENT_EVENTS if direction == "sent" else SERVER_EVENTS
        kind: Any = registry.get(message["type"])
        if is_lost or kind not in CARRIERS:
            event: Any = wire.decode(message, registry=registry)
        else:
            lane, field = CARRIERS[kind]
            start, ends[lane] = ends[lane], ends[lane] + n_bytes
            audio: Any = self._tracks[lane][start : ends[lane]]
            if field == "audio" and len(message) == 3:  # most events of a long session
                event = events.InputAudioBufferAppend(audio=audio, event_id=message["event_id"])
            else:
                event = replace(wire.decode(message, registry=registry), **{field: audio})
        times = float(line["monotonic_s"]), float(line["wall_time"])
        return LogRow(number, direction, *times, event.type, int(line["size_bytes"]), event, n_bytes * is_lost)

    def audio(self, lane: Lane, start: int, stop: int) -> memoryview:
        """Return bytes of a track; they are read from the disk where they are used, and kept until the next call."""
        self.check()
        self.release()
        return self._tracks[lane][start:stop]

    def check(self) -> None:
        """Refuse a file that was cut while it is open: to read beyond its end would end this process."""
        if os.fstat(self._file.fileno()).st_size < len(self._map):
            raise self._error("it was cut while it was open")

    def release(self) -> None:
        """Take audio that was read out of the memory; it is read from the disk again where it is used."""
        if sys.platform != "win32":
            self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._zip.close()
        self._file.close()
