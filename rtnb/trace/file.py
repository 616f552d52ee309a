"""File of a trace: its layout, `TraceWriter` and `TraceFile`.

Layout, version 1. A trace is a zip; while its session runs it is a folder of the same files, whose name ends with
``.part``. Every file but the manifest only grows, so a killed process leaves a folder that can be read.

``manifest.json``
    ``rtnb_trace`` (version of this layout), ``rtnb`` (version of the package), ``target`` (without secrets), ``clock``
    (``monotonic_s`` and ``wall_time`` of time 0), ``complete`` (false until the session ended), ``settings`` (over
    time), ``tracks`` (bytes of each, or why it is missing), ``dropped`` (what a bound left out), ``notes`` (sentences).
``events.jsonl``
    One event per line, in the order of the wire, in GA spelling, without secrets: ``direction``, ``monotonic_s``,
    ``wall_time``, ``size_bytes`` (on the wire), ``event``. Audio is taken out: ``audio_bytes`` counts the bytes that
    are next in the track of its side, and ``lost`` is true where the track does not have them. Lines with ``played_ms``
    are reports of a speaker: how much of ``item_id`` it had played by then.
``user.raw``, ``model.raw``
    Audio of the events one after the other, as on the wire: 16-bit PCM at 24 kHz, or G.711 at 8 kHz. Stored without
    compression, so that a part of it is read without the rest.

A trace may come from a stranger. Nothing is unpacked or executed, other names are refused, and sizes are checked first.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final, Literal, cast

from rtnb.client.log import LogRow, safe_text, without_audio
from rtnb.errors import RemoteProtocolError, TraceError
from rtnb.protocol import events, wire
from rtnb.protocol.values import UNSET
from rtnb.redaction import mask_known

Lane = Literal["user", "model"]

VERSION: Final = 1
"""Version of the layout."""
PART: Final = ".part"
"""End of the name of a folder that is being recorded."""
MAX_BYTES: Final = 2 * 2**30
"""Default bound of a recording: about 6 hours of audio of both sides (chosen)."""

_log = logging.getLogger("rtnb")
_MANIFEST, _EVENTS = "manifest.json", "events.jsonl"
_RAW: Final[dict[Lane, str]] = {"user": "user.raw", "model": "model.raw"}
_GROWING: Final = (*_RAW.values(), _EVENTS)  # in the order of writing: no line before its audio
_MOST: Final = {_MANIFEST: 16 * 2**20, _EVENTS: 2**29}
"""Most bytes of a file that is read as text (chosen: 2 hours of talk have 80 MB of events)."""
_MOST_RATIO: Final = 100
"""Most times that a text may shrink when compressed (chosen: events shrink 10 times, a zip bomb 1,000 times)."""
_AUDIO_SHARE: Final = 0.9
"""Share of the bound that audio may use; events go on up to the bound (chosen)."""
_DAMAGES: Final = (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError)
"""What reading a damaged, cut or encrypted zip raises."""
_MOST_SETTINGS: Final = 1_000
"""Most settings in the manifest; the events have all of them (chosen)."""


def lane_of(event: Any) -> Lane | None:
    """Return the track that the audio of an event belongs to, None for events without."""
    if isinstance(event, events.InputAudioBufferAppend):
        return "user"
    return "model" if isinstance(event, events.ResponseOutputAudioDelta) else None


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

    def __init__(
        self,
        folder: Path,
        manifest: dict[str, Any],
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        try:
            if folder.exists():
                aside = folder.with_name(f"{folder.stem}-{time.strftime('%Y%m%d-%H%M%S')}{folder.suffix}")
                folder.rename(aside)
                _log.warning("%s is left from a recording that did not end; it is %s now", folder, aside)
            folder.mkdir(parents=True)
            self._files: dict[str, IO[bytes]] = {name: open(folder / name, "ab", buffering=0) for name in _GROWING}  # noqa: SIM115
        except OSError as error:
            raise TraceError(f"cannot record into {folder}: {error.strerror}").with_hint(
                "Next: give a path in a folder that can be written, and that no other session records to."
            ) from error
        self.folder = folder
        self.manifest = {"notes": []} | manifest | {"rtnb_trace": VERSION, "complete": False, "settings": []}
        self.manifest["dropped"] = {"events": 0, "audio_bytes": 0}
        self._max_bytes, self._size_bytes = max_bytes, 0
        self._pending: dict[str, list[bytes]] = {name: [] for name in _GROWING}
        self._kept_bytes = dict.fromkeys(_RAW, 0)
        self._write_manifest()

    def add(self, row: LogRow, *, keep_audio: bool = True) -> None:
        """Add a row; `flush` writes it. Without `keep_audio` its audio is left out and counts as lost."""
        if (lane := lane_of(row.event)) is not None:
            head, text = self._take_audio(row, lane, keep_audio)
        else:
            event, dropped_bytes = without_audio(row.event)
            dropped_bytes = dropped_bytes or row.audio_dropped_bytes
            head = f'"audio_dropped_bytes": {dropped_bytes}, ' if dropped_bytes else ""
            text = safe_text(event)
            settings = self.manifest["settings"]
            if event.type in ("session.created", "session.updated") and len(settings) < _MOST_SETTINGS:
                settings.append({"monotonic_s": row.monotonic_s, "settings": json.loads(text).get("session")})
        times = f'"monotonic_s": {row.monotonic_s!r}, "wall_time": {row.wall_time!r}, "size_bytes": {row.size_bytes}'
        line = f'{{{head}"direction": "{row.direction}", {times}, "event": {text}}}\n'.encode()
        if self._size_bytes + len(line) > self._max_bytes:
            self.manifest["dropped"]["events"] += 1
            return
        self._size_bytes += len(line)
        self._pending[_EVENTS].append(line)

    def _take_audio(self, row: LogRow, lane: Lane, keep: bool) -> tuple[str, str]:
        """Keep the audio of a row; return the begin of its line and the text of the event without audio."""
        event: Any = row.event
        audio = event.audio if lane == "user" else event.delta
        n_bytes, lost = row.audio_dropped_bytes or len(audio), ""
        if keep and len(audio) == n_bytes and self._size_bytes + n_bytes <= _AUDIO_SHARE * self._max_bytes:
            self._pending[_RAW[lane]].append(audio)
            self._size_bytes += n_bytes
            self._kept_bytes[lane] += n_bytes
        elif n_bytes:
            lost = '"lost": true, '
            self.manifest["dropped"]["audio_bytes"] += n_bytes
        fields = {k: v for k, v in vars(event).items() if v is not UNSET and k not in ("audio", "delta", "extra")}
        return f'"audio_bytes": {n_bytes}, {lost}', json.dumps({"type": row.type, **fields, **event.extra})

    def mark(self, item_id: str, played_ms: float, monotonic_s: float) -> None:
        """Add a speaker's report."""
        line = json.dumps({"item_id": item_id, "played_ms": played_ms, "monotonic_s": monotonic_s})
        self._pending[_EVENTS].append(line.encode() + b"\n")

    def flush(self) -> None:
        """Hand everything added so far to the operating system: it survives the end of this process."""
        for name in _GROWING:
            if pending := self._pending[name]:
                self._files[name].write(b"".join(pending))
                pending.clear()

    def _write_manifest(self) -> None:
        new = self.folder / "new"
        new.write_text(mask_known(json.dumps(self.manifest, indent=1)), encoding="utf-8")
        os.replace(new, self.folder / _MANIFEST)

    def finish(self, target: Path | IO[bytes]) -> None:
        """Write the rest, put the folder into a zip, which appears at once or not at all, and remove the folder."""
        self.flush()
        for file in self._files.values():
            file.close()
        self.manifest |= {"complete": True, "tracks": _tracks(self._kept_bytes, self.manifest)}
        self._write_manifest()
        new: Any = target.with_name(target.name + ".new") if isinstance(target, Path) else target
        _pack(self.folder, new)
        if isinstance(target, Path):
            os.replace(new, target)
        shutil.rmtree(self.folder)


def _pack(folder: Path, target: Path | IO[bytes]) -> None:
    """Zip a folder: events before audio, so that a folder that still grows has the audio of every event."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in (_MANIFEST, *reversed(_GROWING)):
            if (folder / name).is_symlink():  # a folder may come from a stranger, too
                raise TraceError(f"Cannot open the trace {folder}: {name} is a link.")
            archive.write(folder / name, name, zipfile.ZIP_STORED if name.endswith(".raw") else None)


def _tracks(sizes: dict[Any, int], manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the tracks for the manifest: their bytes, or why they are missing."""
    reason = "no audio was sent or received as events"
    if manifest.get("webrtc"):
        reason = "WebRTC: this audio went between the page and the service, past the kernel"
    sizes = sizes | {"heard": sizes["model"]}
    return {name: {"bytes": size} if size else {"missing": reason} for name, size in sizes.items()}


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
        self.name, opened = "", source
        try:
            if isinstance(source, str | os.PathLike):
                path = Path(source)
                part = path if path.is_dir() else path.with_name(path.name + PART)
                path = part if not path.exists() and part.is_dir() else path
                self.name = os.fspath(path)
                if path.is_dir():
                    opened = TemporaryFile()  # noqa: SIM115
                    weakref.finalize(self, opened.close)
                    _pack(path, opened)
            self._zip = zipfile.ZipFile(opened)
            for info in (*self._zip.infolist(), *map(self._zip.getinfo, (_MANIFEST, *_GROWING))):
                self._check(info)
            self._places = {lane: self._place(self._zip.getinfo(name)) for lane, name in _RAW.items()}
            self.manifest = self._parsed(self._zip.read(_MANIFEST), _MANIFEST)
        except FileNotFoundError as error:
            raise self._error(f"{Path(error.filename).name} is not there") from error
        except KeyError as error:
            raise self._error(f"it is a zip without a part of a trace: {error.args[0]}") from error
        except _DAMAGES as error:
            raise self._error(f"it is no zip, or a part of it is missing ({error})") from error
        if (version := self.manifest.get("rtnb_trace")) != VERSION:
            wrong = self._error(f"its layout has version {version!r}; allowed is {VERSION}")
            raise wrong.with_hint("Next: open it with the version of rtnb that wrote it, or a newer one.")
        if "tracks" not in self.manifest:
            self.manifest["tracks"] = _tracks({lane: size for lane, (_, size) in self._places.items()}, self.manifest)

    def _check(self, info: zipfile.ZipInfo) -> None:
        name, size = info.filename, info.file_size
        if name not in (_MANIFEST, *_GROWING):
            raise self._error(f"it holds {name!r}, which is no part of a trace")
        if name.endswith(".raw"):
            if info.compress_type != zipfile.ZIP_STORED or size != info.compress_size:
                raise self._error(f"{name} is compressed; allowed is stored audio")
        elif size > _MOST[name] or size > _MOST_RATIO * max(info.compress_size, 10_000):
            raise self._error(f"{name} would unpack to {size:,} bytes; allowed are {_MOST[name]:,}, packed 100 times")

    def _place(self, info: zipfile.ZipInfo) -> tuple[int, int]:
        """Return position and size of a stored file: it begins behind its local header, which has two lengths."""
        file: Any = self._zip.fp
        file.seek(info.header_offset)
        header = file.read(30)
        start = info.header_offset + 30 + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        if header[:4] != b"PK\x03\x04" or start + info.file_size > file.seek(0, os.SEEK_END):
            raise self._error(f"{info.filename} lies outside of the file")
        return start, info.file_size

    def _parsed(self, data: bytes, name: str, line: int = 1) -> dict[str, Any]:
        try:
            text = data.decode()
            if text.count("{") + text.count("[") < wire.NESTING_LIMIT:  # cannot be nested too deeply
                value = json.loads(text)
                if isinstance(value, dict):
                    return value
            return wire.parse(text)
        except (ValueError, RemoteProtocolError) as error:
            raise self._error(f"{name} cannot be read (line {line}: {error})") from error

    def _error(self, reason: str) -> TraceError:
        return TraceError(f"Cannot open the trace {self.name}: {reason}.")

    # --- reading ------------------------------------------------------------------------------------------------------

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of the events; half a line at the end of a recording is left out."""
        try:
            held: Any = self._zip.open(_EVENTS)
            with BufferedReader(held, 2**20) as file:  # ten times faster line by line than a zip's own reader
                for number, line in enumerate(file, 1):
                    if line.endswith(b"\n"):
                        yield self._parsed(line, _EVENTS, number)
        except _DAMAGES as error:
            raise self._error(f"{_EVENTS} is damaged ({error})") from error

    def audio(self, lane: Lane, start: int, stop: int) -> bytes:
        """Return bytes of a track; zeros where it ends before."""
        (position, size), archive = self._places[lane], cast("Any", self._zip)
        with archive._lock:  # as its own readers: a service and a client may read the same trace in two threads
            archive.fp.seek(position + min(start, size))
            found: bytes = archive.fp.read(max(0, min(stop, size) - start))
        return found.ljust(stop - start, b"\0")

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._zip.close()
