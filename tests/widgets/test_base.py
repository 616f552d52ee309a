"""What every widget of ours does."""

import re
import subprocess
import sys

import pytest
from traitlets import Unicode

import rtnb.widgets
from rtnb.widgets._base import FOLDER, Widget, bundle


class Small(Widget):
    _esm = "export default { render() {} }"
    colour = Unicode("red").tag(sync=True)


def test_a_misspelt_keyword_is_refused_with_the_right_one() -> None:
    with pytest.raises(TypeError, match=r"keyword of Small\(\) 'color'; did you mean 'colour'\?"):
        Small(color="blue")


def test_a_keyword_like_no_other_lists_what_there_is() -> None:
    with pytest.raises(TypeError, match=r"Allowed are .*colour"):
        Small(zzz=1)


def test_traits_can_be_given() -> None:
    assert Small(colour="blue").colour == "blue"


def test_the_repr_shows_no_trait() -> None:
    assert repr(Small(colour="a secret")) == "<Small>"


SCRIPTS = sorted(path.name for path in FOLDER.glob("*.js") if "_worklet" not in path.name)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_bundle_holds_each_file_once_after_what_it_imports_and_no_import_is_left(name: str) -> None:
    text = bundle(name)
    assert text.endswith(f"//# sourceURL=rtnb/{name}")
    assert not re.search(r"^import ", text, re.MULTILINE)
    tops = re.findall(r"^(?:export )?(?:async )?(?:class|function|const|let) (\w+)", text, re.MULTILINE)
    assert {one for one in tops if tops.count(one) > 1} == set()


def test_importing_the_widgets_starts_nothing() -> None:
    code = (
        "import rtnb.widgets, rtnb.widgets.channel, threading, sys; from rtnb.widgets.channel import shared_channel;"
        "channel = shared_channel().open_stream('a', print); channel.publish('state', {}); channel.close();"
        "assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", rtnb.widgets.__all__)
def test_every_name_of_the_room_is_there(name: str) -> None:
    assert getattr(rtnb.widgets, name).__module__.startswith("rtnb.widgets.")


def test_a_class_takes_module_and_style_from_the_files_beside_it() -> None:
    speaker = rtnb.widgets.Speaker
    assert speaker._esm.endswith("//# sourceURL=rtnb/speaker.js")
    assert speaker._css.endswith((FOLDER / "speaker.css").read_text(encoding="utf-8"))
    assert Small._css == Widget._css
