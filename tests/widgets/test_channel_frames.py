"""Frames of the channel, and uploads: what was packed comes out unchanged, anything else is refused."""

import secrets
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtnb.errors import WidgetError
from rtnb.widgets._frames import MAX_FRAME_BYTES, pack, unpack
from rtnb.widgets._upload import Upload

headers = st.dictionaries(
    st.text(max_size=5), st.one_of(st.integers(), st.text(), st.booleans(), st.none()), max_size=3
)


@given(st.text(min_size=1), st.text(), headers, st.lists(st.binary(max_size=30), max_size=4))
def test_unpack_returns_what_was_packed(stream: str, kind: str, header: dict[str, Any], buffers: list[bytes]) -> None:
    data = pack(stream, kind, header, buffers, r=7)
    frame = unpack(data)
    assert (frame.stream, frame.kind, frame.header, frame.buffers) == (stream, kind, header, buffers)
    assert frame.request == 7
    assert len(data) % 8 == 0


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a frame"):
        unpack(data)


def test_a_truncated_frame_is_refused() -> None:
    data = pack("c", "k", {}, [b"12345678"])
    for end in range(len(data)):
        with pytest.raises(ValueError, match="not a frame"):
            unpack(data[:end])


def test_pack_refuses_what_is_too_large_or_not_json() -> None:
    with pytest.raises(ValueError, match="allowed are"):
        pack("c", "k", {}, [bytes(MAX_FRAME_BYTES)])
    with pytest.raises(TypeError):
        pack("c", "k", {"x": b""})
    with pytest.raises(ValueError, match="JSON"):
        pack("c", "k", {"x": float("nan")})


def piece(upload_id: str, at: int, size: int) -> dict[str, Any]:
    return {"upload": {"id": upload_id, "at": at, "size": size}}


@pytest.fixture
def upload() -> Upload:
    """An upload of which three bytes of nine have come."""
    upload = Upload()
    upload.receive(piece("a", 0, 9), [b"abc"])
    return upload


def test_an_upload_returns_all_its_bytes() -> None:
    data, upload = secrets.token_bytes(10_000), Upload()
    pieces = [upload.receive(piece("a", at, 10_000), [data[at : at + 3000]]) for at in range(0, 10_000, 3000)]
    assert pieces == [None, None, None, data]
    assert not upload.data
    assert upload.receive(piece("b", 0, 0), [b""]) == b""


@pytest.mark.parametrize(
    "at, size, data", [(6, 9, b"ghi"), (0, 9, b"abcdefghijk"), (3, 8, b"def"), (3, 9, b"defghijk")]
)
def test_a_piece_out_of_order_ends_the_upload(upload: Upload, at: int, size: int, data: bytes) -> None:
    with pytest.raises(WidgetError, match="The upload broke"):
        upload.receive(piece("a", at, size), [data])
    with pytest.raises(WidgetError, match="cancelled"):
        upload.receive(piece("a", 3, 9), [b"def"])


def test_a_cancelled_or_replaced_upload_takes_no_more_pieces(upload: Upload) -> None:
    upload.receive(piece("b", 0, 6), [b"abc"])
    with pytest.raises(WidgetError, match="cancelled"):
        upload.receive(piece("a", 3, 9), [b"def"])
    upload.receive({"upload": {"id": "a", "cancel": True}}, [])
    assert len(upload.data) == 3, "the page of the replaced upload cancels its own only"
    upload.receive({"upload": {"id": "b", "cancel": True}}, [])
    with pytest.raises(WidgetError, match="cancelled"):
        upload.receive(piece("b", 3, 6), [b"def"])


def test_an_upload_over_the_limit_is_refused_at_its_first_piece() -> None:
    upload = Upload()
    with pytest.raises(WidgetError, match="129 MiB; allowed are 128 MiB"):
        upload.receive(piece("a", 0, 129 * 2**20), [bytes(2**20)])
    assert not upload.data
