"""What every widget of ours does."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from traitlets import Unicode

import rtnb.widgets
from rtnb.widgets._base import Widget


class Small(Widget):
    _esm = "export default { render() {} }"
    colour = Unicode("red").tag(sync=True)


def test_a_misspelt_keyword_is_refused_with_the_right_one() -> None:
    with pytest.raises(TypeError, match=r"Small\(\) got an unexpected keyword 'color'; did you mean 'colour'\?"):
        Small(color="blue")


def test_a_keyword_like_no_other_lists_what_there_is() -> None:
    with pytest.raises(TypeError, match=r"it takes .*colour"):
        Small(zzz=1)


def test_traits_can_be_given() -> None:
    assert Small(colour="blue").colour == "blue"


def test_the_repr_shows_no_trait() -> None:
    assert repr(Small(colour="a secret")) == "<Small>"


def test_what_is_packed_is_smaller_and_still_the_file(tmp_path: Path) -> None:
    source = "/** Small. */\nexport default { render({ el }) { el.textContent = '½'; } };\n" * 20
    (tmp_path / "big.js").write_text(source, encoding="utf-8")

    class Big(Widget):
        _esm = tmp_path / "big.js"

    (kept,) = re.findall(r'atob\("(.*?)"\)', Big._esm)
    assert zlib.decompress(base64.b64decode(kept)).decode().startswith(source)
    assert len(Big._esm) < len(source) / 2


def test_importing_the_widgets_starts_nothing() -> None:
    code = (
        "import rtnb.widgets, rtnb.widgets._line, threading, sys; from rtnb.widgets._line import shared_line;"
        "channel = shared_line().channel('a', print); channel.publish('state', {}); channel.close();"
        "assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", rtnb.widgets.__all__)
def test_every_name_of_the_room_is_there(name: str) -> None:
    assert getattr(rtnb.widgets, name).__module__.startswith("rtnb.widgets.")
