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
    are next in the track of its side, and ``lost`` is true where the track does not have them.
``user.raw``, ``model.raw``
    Audio of the events one after the other, as on the wire: 16-bit PCM at 24 kHz, or G.711 at 8 kHz. Stored without
    compression, so that a part of it is read without the rest.
``markers.jsonl``
    What a speaker reported: ``monotonic_s``, ``item_id``, ``played_ms``.

A trace may come from a stranger. Nothing is unpacked or executed, other names are refused, and sizes are checked first.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any, Final, Literal

from rtnb.client.log import LogRow, printable_json, without_audio
from rtnb.errors import TraceError
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

_MANIFEST, _EVENTS, _MARKERS = "manifest.json", "events.jsonl", "markers.jsonl"
_RAW: Final[dict[Lane, str]] = {"user": "user.raw", "model": "model.raw"}
_GROWING: Final = (*_RAW.values(), _MARKERS, _EVENTS)  # in the order of writing: no line before its audio
_MOST: Final = {_MANIFEST: 16 * 2**20, _EVENTS: 2**29, _MARKERS: 2**26}
"""Most bytes of a file that is read as text (chosen: 2 hours of talk have 50 MB of events)."""
_MOST_RATIO: Final = 100
"""Most times that a text may shrink when compressed (chosen: events shrink 10 times, a zip bomb 1,000 times)."""
_AUDIO_SHARE: Final = 0.9
"""Share of the bound that audio may use; events go on up to the bound (chosen)."""
_MOST_SETTINGS: Final = 1_000


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
        Must not exist.
    manifest : dict
        Facts known at the start.
    redact : callable
        LogRow -> the row without secrets.
    max_bytes : int, default 2 GiB
        Bound of all files: audio stops at 90 % of it, events at 100 %; ``manifest["dropped"]`` counts what is left out.
    """

    def __init__(
        self,
        folder: Path,
        manifest: dict[str, Any],
        *,
        redact: Callable[[LogRow], LogRow] = lambda row: row,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        try:
            folder.mkdir(parents=True)
            self._files: dict[str, IO[bytes]] = {name: open(folder / name, "ab", buffering=0) for name in _GROWING}  # noqa: SIM115
        except OSError as error:
            raise TraceError(f"cannot record into {folder}: {error.strerror}").with_hint(
                "Next: give a path in a folder that can be written, and that no other session records to."
            ) from error
        self.folder = folder
        self.manifest = {"rtnb_trace": VERSION, "complete": False} | manifest
        self.manifest |= {"settings": [], "tracks": {}, "dropped": {"events": 0, "audio_bytes": 0}}
        self.manifest.setdefault("notes", [])
        self._redact, self._max_bytes = redact, max_bytes
        self._pending: dict[str, list[bytes]] = {name: [] for name in _GROWING}
        self._kept_bytes: dict[Lane, int] = {"user": 0, "model": 0}
        self._size_bytes = 0
        self._write_manifest()

    def add(self, row: LogRow, *, keep_audio: bool = True) -> None:
        """Add a row; `flush` writes it. Without `keep_audio` its audio is left out and counts as lost."""
        head: dict[str, Any] = {"direction": row.direction, "monotonic_s": row.monotonic_s}
        head |= {"wall_time": row.wall_time, "size_bytes": row.size_bytes}
        lane = lane_of(row.event)
        if lane is None:
            row = self._redact(row)
            event, dropped_bytes = without_audio(row.event)
            if dropped_bytes := dropped_bytes or row.audio_dropped_bytes:
                head["audio_dropped_bytes"] = dropped_bytes
            text = printable_json(wire.encode(event))
            if event.type in ("session.created", "session.updated") and len(self.manifest["settings"]) < _MOST_SETTINGS:
                change = {"monotonic_s": row.monotonic_s, "settings": json.loads(text).get("session")}
                self.manifest["settings"].append(change)
        else:
            head, text = self._add_audio(row, lane, head, keep_audio)
        line = f'{json.dumps(head)[:-1]}, "event": {text}}}\n'.encode()
        if self._size_bytes + len(line) > self._max_bytes:
            self.manifest["dropped"]["events"] += 1
            return
        self._size_bytes += len(line)
        self._pending[_EVENTS].append(line)

    def _add_audio(self, row: LogRow, lane: Lane, head: dict[str, Any], keep: bool) -> tuple[dict[str, Any], str]:
        event: Any = row.event
        audio = event.audio if lane == "user" else event.delta
        n_bytes = row.audio_dropped_bytes or len(audio)
        head = {"audio_bytes": n_bytes} | head
        if keep and len(audio) == n_bytes and self._size_bytes + n_bytes <= _AUDIO_SHARE * self._max_bytes:
            self._pending[_RAW[lane]].append(audio)
            self._size_bytes += n_bytes
            self._kept_bytes[lane] += n_bytes
        elif n_bytes:
            head["lost"] = True
            self.manifest["dropped"]["audio_bytes"] += n_bytes
        left_out = ("audio", "delta", "extra")
        fields = {k: v for k, v in vars(event).items() if v is not UNSET and k not in left_out}
        return head, printable_json(json.dumps({"type": row.type} | fields | dict(event.extra)))

    def mark(self, marker: dict[str, Any]) -> None:
        """Add a marker."""
        self._pending[_MARKERS].append(json.dumps(marker).encode() + b"\n")

    def flush(self) -> None:
        """Hand everything added so far to the operating system: it survives the end of this process."""
        for name in _GROWING:
            if pending := self._pending[name]:
                self._files[name].write(b"".join(pending))
                pending.clear()

    def _write_manifest(self) -> None:
        text = mask_known(json.dumps(self.manifest, indent=1))
        new = self.folder / (_MANIFEST + ".new")
        new.write_text(text, encoding="utf-8")
        os.replace(new, self.folder / _MANIFEST)

    def close(self, tracks: dict[str, Any] | None = None) -> None:
        """Write what is left and the final manifest."""
        self.flush()
        for file in self._files.values():
            file.close()
        self.manifest["complete"] = True
        self.manifest["tracks"] = {lane: {"bytes": size} for lane, size in self._kept_bytes.items()} | (tracks or {})
        self._write_manifest()

    def finish(self, target: Path | IO[bytes]) -> None:
        """Put the closed folder into a zip, which appears at once or not at all, and remove the folder."""
        new: Any = target.with_name(target.name + ".new") if isinstance(target, Path) else target
        with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name in (_MANIFEST, *_GROWING):
                archive.write(self.folder / name, name, zipfile.ZIP_STORED if name.endswith(".raw") else None)
        if isinstance(target, Path):
            os.replace(new, target)
        shutil.rmtree(self.folder)


class TraceFile:
    """Files of a trace, read where they lie: a zip, or the folder of a session that was killed or still runs.

    Parameters
    ----------
    source : path or binary file
        The zip, or a folder.

    Raises
    ------
    TraceError
        Missing, damaged, of another version, or not safe to open.
    """

    def __init__(self, source: str | os.PathLike[str] | IO[bytes]) -> None:
        self.name = os.fspath(source) if isinstance(source, str | os.PathLike) else "trace"
        self.recovered = False
        """True where the recording did not end: read from its folder."""
        self._zip: zipfile.ZipFile | None = None
        self._places: dict[str, tuple[int, int]] = {}
        """Raw file -> position and size of its bytes."""
        if isinstance(source, str | os.PathLike):
            path = Path(source)
            if not path.exists() and path.with_name(path.name + PART).is_dir():
                path = path.with_name(path.name + PART)
            if path.is_dir():
                self._open_folder(path)
                return
        self._open_zip(source)

    # --- opening ------------------------------------------------------------------------------------------------------

    def _open_folder(self, folder: Path) -> None:
        self._folder, self.recovered = folder, True
        for name in (_MANIFEST, *_GROWING):
            path = folder / name
            if path.is_symlink() or not path.is_file():
                raise self._error(f"{name} is missing in the folder {folder}")
            if path.stat().st_size > _MOST.get(name, 2**63):
                raise self._error(f"{name} has {path.stat().st_size:,} bytes; allowed are {_MOST[name]:,}")
            if name.endswith(".raw"):
                self._places[name] = 0, path.stat().st_size
        self._read_manifest()

    def _open_zip(self, source: Any) -> None:
        try:
            self._zip = zipfile.ZipFile(source)
            for info in self._zip.infolist():
                self._check(info)
            for name in _RAW.values():
                self._places[name] = self._stored(self._zip.getinfo(name))
            self._read_manifest()
        except FileNotFoundError as error:
            raise self._error("there is no such file") from error
        except KeyError as error:
            raise self._error(f"it is a zip without {error.args[0]}") from error
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
            raise self._error(f"it is no zip, or a part of one is missing ({error})") from error
        except TraceError:
            self.close()
            raise

    def _check(self, info: zipfile.ZipInfo) -> None:
        name = info.filename
        if ".." in name or name.startswith("/") or "\\" in name or ":" in name:
            raise self._error(f"it holds {name!r}, a path outside of the trace")
        if name not in (_MANIFEST, *_GROWING):
            raise self._error(f"it holds {name!r}, which is no part of a trace")
        if name.endswith(".raw"):
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise self._error(f"{name} is compressed; allowed is stored audio")
        elif info.file_size > _MOST[name] or info.file_size > _MOST_RATIO * max(info.compress_size, 10_000):
            raise self._error(f"{name} would unpack to {info.file_size:,} bytes; allowed are {_MOST[name]:,}")

    def _stored(self, info: zipfile.ZipInfo) -> tuple[int, int]:
        """Return where the bytes of a stored file lie: behind its local header, two lengths of which vary."""
        file: Any = self._zip.fp  # type: ignore[union-attr]
        file.seek(info.header_offset)
        header = file.read(30)
        start = info.header_offset + 30 + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        if header[:4] != b"PK\x03\x04" or start + info.file_size > file.seek(0, os.SEEK_END):
            raise self._error(f"{info.filename} lies outside of the file")
        return start, info.file_size

    def _read_manifest(self) -> None:
        with self._open(_MANIFEST) as file:
            manifest = self._parsed(file.read(), _MANIFEST)
        version = manifest.get("rtnb_trace")
        if version != VERSION:
            error = self._error(f"its layout has version {version!r}; allowed is {VERSION}")
            raise error.with_hint("Next: open it with the version of rtnb that wrote it, or a newer one.")
        if not isinstance(manifest.get("clock"), dict):
            raise self._error("its manifest has no clock")
        self.manifest: dict[str, Any] = manifest

    def _parsed(self, text: bytes, where: str) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._error(f"{where} is no JSON ({type(error).__name__})") from error
        if not isinstance(value, dict):
            raise self._error(f"{where} is {type(value).__name__}, not an object")
        return value

    def _error(self, reason: str) -> TraceError:
        return TraceError(f"Cannot open the trace {self.name}: {reason}.")

    def _open(self, name: str) -> IO[bytes]:
        return open(self._folder / name, "rb") if self._zip is None else self._zip.open(name)

    # --- reading ------------------------------------------------------------------------------------------------------

    def lines(self, *, markers: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the lines of the events, or of the markers; half a line at the end of a recording is left out."""
        name = _MARKERS if markers else _EVENTS
        with self._open(name) as file:
            try:
                for number, line in enumerate(file, 1):
                    if line.endswith(b"\n"):
                        yield self._parsed(line, f"line {number} of {name}")
            except (zipfile.BadZipFile, OSError, EOFError) as error:
                raise self._error(f"{name} is damaged ({error})") from error

    def audio(self, lane: Lane, start: int, stop: int) -> bytes:
        """Return bytes of a track; zeros where it ends before."""
        name = _RAW[lane]
        position, size = self._places[name]
        start, stop = max(0, start), max(0, stop)
        held: Any = open(self._folder / name, "rb") if self._zip is None else nullcontext(self._zip.fp)  # noqa: SIM115
        with held as file:
            file.seek(position + min(start, size))
            found: bytes = file.read(max(0, min(stop, size) - start))
        return found.ljust(stop - start, b"\0")

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._zip is not None:
            self._zip.close()
