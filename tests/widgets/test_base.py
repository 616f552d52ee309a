"""What every widget of ours does, and what all of the page's sources have in common."""

import re
import subprocess
import sys

import pytest
from traitlets import Unicode

import rtnb.widgets
from rtnb.widgets._base import FOLDER, Widget, bundle

SCRIPTS = sorted(path.name for path in FOLDER.glob("*.js") if "_worklet" not in path.name)


class Small(Widget):
    _esm = "export default { render() {} }"
    colour = Unicode("red").tag(sync=True)


@pytest.mark.parametrize(
    "keyword, words",
    [("color", r"keyword of Small\(\) 'color'; did you mean 'colour'\?"), ("zzz", r"Allowed are .*colour")],
)
def test_an_unknown_keyword_is_refused_with_those_that_there_are(keyword: str, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        Small(**{keyword: "blue"})


def test_traits_can_be_given_and_the_repr_shows_none() -> None:
    small = Small(colour="a secret")
    assert (small.colour, repr(small)) == ("a secret", "<Small>")


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


@pytest.mark.parametrize(
    "word", ["in writing", "stand-in", "in stock", "wish", "nobody", "somebody", "let sound through"]
)
def test_no_source_of_the_page_has_a_word_that_a_stranger_stumbles_over(word: str) -> None:
    elsewhere = FOLDER.parent / "trace" / "conversation.py", FOLDER.parent / "tuning" / "bench.py"
    sources = [path for path in (*FOLDER.iterdir(), *elsewhere) if path.suffix in (".js", ".py", ".toml")]
    assert [path.name for path in sources if word in path.read_text(encoding="utf-8").lower()] == []
