"""The documentation builds without a network and without a warning; its links are whole, and no name is missing."""

from __future__ import annotations

import doctest
import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import rtnb

ROOT = Path(__file__).resolve().parents[2]
HOW_TO = ("compare_prompts", "send_a_conversation", "interruptions", "another_voice", "speech_files")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the pages from a checkout, warnings as errors; of the lessons only the first is run, as nbval runs all."""
    place = tmp_path_factory.mktemp("docs")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-c",
        "notebooks/docs",
        "notebooks",
        str(place),
    ]
    environment = os.environ | {"RTNB_DOCS_NOT_RUN": "0[1-9]* 1*"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place


def test_a_lesson_has_its_figures_and_its_sound(site: Path) -> None:
    page = (site / "00_start_here.html").read_text(encoding="utf-8")
    assert page.count("<img") == page.count("<em>Figure ") == 2
    assert page.count("<audio") == 1


class Page(HTMLParser):
    """Links and places of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.add(values.get("id") or "")
        self.links += [values[name] or "" for name in ("href", "src") if values.get(name)]


def test_every_internal_link_leads_somewhere(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 30
    broken = []
    n_links = 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or (link.startswith("#") and len(link) == 1):
                continue
            n_links += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages[target].ids if target in pages else None
            if not target.exists() or (parts.fragment and known is not None and unquote(parts.fragment) not in known):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert n_links > 1000
    assert broken == []


def test_every_public_name_is_described(site: Path) -> None:
    ids = Page(site / "docs" / "api.html").ids
    names = [name for name in dir(rtnb) if name != "__version__"]
    assert len(names) > 50
    modules = {f"module-rtnb.{name}" for name in names} | {"module-rtnb.experiments.graders"}
    missing = [name for name in names if f"rtnb.{name}" not in ids and not {f"module-rtnb.{name}"} & ids & modules]
    assert [name for name in missing if name != "graders"] == []
    assert "module-rtnb.experiments.graders" in ids


def test_a_colon_in_the_text_of_an_attribute_does_not_make_a_type_of_it(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "docs" / "api.html").read_text(encoding="utf-8"))
    assert "The same as log: trace.events.to_frame() is a table." in text


@pytest.mark.parametrize("name", [name for name in dir(rtnb) if name != "__version__"])
def test_every_public_name_has_an_example(name: str) -> None:
    assert doctest.DocTestParser().get_examples(inspect.getdoc(getattr(rtnb, name)) or ""), "pytest runs it"


@pytest.mark.parametrize("name", HOW_TO)
def test_what_a_new_user_wants_is_a_page_whose_python_is_valid(site: Path, name: str) -> None:
    text = (ROOT / "notebooks" / "docs" / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, name, "exec", flags=0x2000)  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    assert (site / "docs" / f"{name}.html").exists()


def test_every_event_of_the_protocol_is_in_the_reference(site: Path) -> None:
    from rtnb.protocol import events

    text = (site / "docs" / "protocol.html").read_text(encoding="utf-8")
    names = [*events.CLIENT_EVENTS, *events.SERVER_EVENTS]
    assert [name for name in names if f">{name}<" not in text] == []


def test_the_readme_is_a_front_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    links = re.findall(r"\]\(((?!https?:)[^)#]+)\)", text)
    assert len(links) > 15
    assert [link for link in links if not (ROOT / link).exists()] == []
