"""A file from a stranger is opened safely or refused in words."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from rtnb.errors import TraceError
from rtnb.trace import Trace
from rtnb.trace.file import TraceWriter
from tests.trace.rows import START, delta, log_of, written

MANIFEST, EVENTS = "manifest.json", "events.jsonl"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A short trace."""
    return written(tmp_path / "good.rtnb", log_of(START, (11.0, delta(100))))


def _changed(good: Path, changes: Mapping[str, bytes | None], *, compress: int = zipfile.ZIP_STORED) -> Path:
    """Write the file again with other contents; None leaves a name out."""
    path = good.with_name("changed.rtnb")
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w", compress) as new:
        for name, data in ({name: old.read(name) for name in old.namelist()} | dict(changes)).items():
            if data is not None:
                new.writestr(name, data)
    return path


def _line(**changes: object) -> bytes:
    event = {"type": "response.output_audio.delta", "response_id": "r", "item_id": "a", "delta": ""}
    line = {"audio_bytes": 4, "direction": "received", "monotonic_s": 1.0, "wall_time": 0.0, "size_bytes": 9}
    return json.dumps(line | {"event": event} | changes).encode() + b"\n"


def _manifest(**fields: object) -> bytes:
    return json.dumps({"rtnb_trace": 1} | fields).encode()


DAMAGED = "a part of it is missing or damaged"
NAMES = ("../evil.py", "/etc/passwd", "a\\..\\b", "C:evil", "sub/manifest.json", "evil.py")
MANIFESTS = [b"", b"[]", b"{", b"\xff", b"[" * 100_000, *(_manifest(window_ms=w) for w in ("ab", [1], {"a": 1}, 5))]
REPORT = b'{"played_ms": 1, "monotonic_s": 2}\n'
NO_EVENTS = [b"{}\n", b"nonsense\n", b'{"a":' * 5_000 + b"\n"]
NO_EVENTS += [
    _line(**one) for one in ({"audio_bytes": -1}, {"audio_bytes": 2**60}, {"monotonic_s": None}, {"event": []})
]
YEARS = "event 1 is damaged .* hours after the first; allowed are 168"
REFUSED: list[tuple[str, bytes | None, str]] = [
    *((name, b"import os", "which is no part of a trace") for name in NAMES),
    *((MANIFEST, data, DAMAGED) for data in MANIFESTS),
    *((MANIFEST, _manifest(rtnb_trace=version), "allowed is 1") for version in (0, 2, "1", None)),
    *((name, None, f"{DAMAGED}.*{name}") for name in (MANIFEST, EVENTS, "user.raw")),
    *((EVENTS, line, "event 0 is damaged") for line in NO_EVENTS),
    *((EVENTS, _line() + _line(monotonic_s=seconds), YEARS) for seconds in (1e300, 1e9)),
    (EVENTS, _line() + REPORT, "event 1 is damaged .*item_id"),
]
"""Name and contents that are changed, None for a missing file, and the words with which the trace is refused."""


@pytest.mark.parametrize(
    "name, data, words", REFUSED, ids=[f"{name} {(data or b'-')[:20]!r}" for name, data, _ in REFUSED]
)
def test_other_contents_are_refused(good: Path, name: str, data: bytes | None, words: str) -> None:
    path = _changed(good, {name: data})
    with pytest.raises(TraceError, match=words):
        _ = Trace(path).log


def test_another_version_names_the_next_step(good: Path) -> None:
    with pytest.raises(TraceError) as caught:
        Trace(_changed(good, {MANIFEST: _manifest(rtnb_trace=2)}))
    assert "version of rtnb" in caught.value.__notes__[0]


def test_a_good_copy_opens_and_nothing_is_unpacked(good: Path, tmp_path: Path) -> None:
    copy = _changed(good, {})
    before = sorted(tmp_path.iterdir())
    with Trace(copy) as trace:
        assert np.count_nonzero(trace.stereo()) == 2400
    assert sorted(tmp_path.iterdir()) == before


def test_a_bomb_is_refused_before_it_is_unpacked(good: Path) -> None:
    path = _changed(good, {EVENTS: None})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as new, new.open(EVENTS, "w", force_zip64=True) as file:
        for _ in range(100):
            file.write(bytes(2**20))
    with pytest.raises(TraceError, match=r"events\.jsonl would unpack to 104,857,600 bytes; allowed are"):
        Trace(path)


def test_compressed_audio_is_refused(good: Path) -> None:
    with pytest.raises(TraceError, match=r"\.raw is compressed; allowed is stored audio"):
        Trace(_changed(good, {}, compress=zipfile.ZIP_DEFLATED))


def _overwritten(data: bytes, start: int, new: bytes) -> bytes:
    return data[:start] + new + data[start + len(new) :]


def test_a_size_of_ten_gigabytes_that_is_only_claimed_is_refused(good: Path) -> None:
    data = good.read_bytes()
    place = data.rindex(b"PK\x01\x02", 0, data.rindex(b"model.raw"))
    # Packed and unpacked size in the central directory.
    good.write_bytes(_overwritten(data, place + 20, 2 * (4_000_000_000).to_bytes(4, "little")))
    with pytest.raises(TraceError, match=DAMAGED):
        Trace(good)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(good: Path, share: float) -> None:
    data = good.read_bytes()
    good.write_bytes(data[: int(share * len(data))])
    with pytest.raises(TraceError, match=DAMAGED):
        Trace(good)


def test_damaged_events_are_refused(good: Path) -> None:
    data = good.read_bytes()
    good.write_bytes(_overwritten(data, data.index(EVENTS.encode()) + 60, bytes(20)))
    with pytest.raises(TraceError, match="event 0 is damaged"):
        _ = Trace(good).turns


def test_audio_that_the_file_does_not_have_is_not_there(good: Path) -> None:
    with Trace(_changed(good, {EVENTS: _line(audio_bytes=48_000)})) as trace:
        assert len(trace.model_audio[:]) == 2_400
        assert trace.model_audio[:].all()


def test_a_file_that_is_cut_while_it_is_open_is_refused(good: Path) -> None:
    with Trace(good) as trace:
        track = trace.model_audio
        os.truncate(good, 100)
        for read in (lambda: track[:], lambda: next(trace.rows())):
            with pytest.raises(TraceError, match="it was cut while it was open"):
                read()


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"none\.rtnb is not there"):
        Trace(tmp_path / "none.rtnb")


def test_a_folder_with_links_is_refused(good: Path, tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "linked.rtnb.part", {"clock": {}})
    writer.close()
    (writer.folder / "user.raw").unlink()
    (writer.folder / "user.raw").symlink_to(good)
    with pytest.raises(TraceError, match=r"user\.raw is a link"):
        Trace(tmp_path / "linked.rtnb")
