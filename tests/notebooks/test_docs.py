"""The documentation builds without a network and without a warning; its links are whole, and no name is missing."""

from __future__ import annotations

import doctest
import inspect
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import rtnb
from rtnb.protocol import events

ROOT = Path(__file__).resolve().parents[2]
HOW_TO = ("compare_prompts", "send_a_conversation", "interruptions", "another_voice", "speech_files")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """Build the pages from a checkout, warnings as errors; of the lessons only the first is run, as nbval runs all."""
    place = tmp_path_factory.mktemp("docs").resolve()
    strict = ["-q", "-W", "--keep-going", "-c", "notebooks/docs"]
    command = [sys.executable, "-m", "sphinx", *strict, "notebooks", str(place)]
    environment = os.environ | {"RTNB_DOCS_NOT_RUN": "0[1-9]* 1*"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {path: path.read_text(encoding="utf-8") for path in place.rglob("*.html")}


def page(site: dict[Path, str], name: str) -> str:
    """Return the text of one page."""
    (text,) = [text for path, text in site.items() if path.match(f"docs*/{name}.html")]
    return text


def test_a_lesson_has_its_figures_and_its_sound(site: dict[Path, str]) -> None:
    text = page(site, "00_start_here")
    assert text.count("<img") == text.count("<em>Figure ") == 2
    assert text.count("<audio") == 1


def test_a_page_names_a_widget_and_has_no_bar_of_progress(tmp_path: Path) -> None:
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1", "version_major": 2, "version_minor": 0}}
    texts = ["<Playground: simulator, closed>", "runs:   0%|          | 0/32 [00:00<?, ?run/s]", "<Sweep: 17>"]
    outputs = [new_output("display_data", {"text/plain": text, **widget}) for text in texts]
    notebook = new_notebook(cells=[new_markdown_cell("# A page"), new_code_cell("1", outputs=outputs)])
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    pages, place = tmp_path / "pages", tmp_path / "site"
    pages.mkdir()
    nbformat.write(notebook, pages / "page.ipynb")
    options = ["-q", "-W", "-D", "root_doc=page", "-c", str(ROOT / "notebooks" / "docs")]
    subprocess.run([sys.executable, "-m", "sphinx", *options, str(pages), str(place)], check=True)
    text = unescape(re.sub(r"</?span[^>]*>", "", (place / "page.html").read_text(encoding="utf-8")))
    assert "A widget, Playground: open this lesson in JupyterLab to use it." in text
    assert "<Sweep: 17>" in text
    assert "simulator, closed" not in text
    assert "0/32" not in text


def values(text: str, *attributes: str) -> list[str]:
    """Return the values of some attributes on a page."""
    return [unescape(found) for found in re.findall(rf'\s(?:{"|".join(attributes)})="([^"]+)"', text)]


def test_every_internal_link_leads_somewhere(site: dict[Path, str]) -> None:
    ids = {path: {"", *values(text, "id")} for path, text in site.items()}
    assert len(ids) > 30
    broken, n_links = [], 0
    for path, text in site.items():
        for link in values(text, "href", "src"):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link == "#":
                continue
            n_links += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists() or (target in ids and unquote(parts.fragment) not in ids[target]):
                broken.append(f"{path.name}: {link}")
    assert n_links > 1000
    assert broken == []


def test_every_public_name_is_described(site: dict[Path, str]) -> None:
    ids = set(values(page(site, "api"), "id"))
    names = set(dir(rtnb)) - {"__version__", "graders"}
    assert len(names) > 50
    assert {name for name in names if not ids & {f"rtnb.{name}", f"module-rtnb.{name}"}} == set()
    assert "module-rtnb.experiments.graders" in ids


def test_a_colon_in_the_text_of_an_attribute_does_not_make_a_type_of_it(site: dict[Path, str]) -> None:
    text = re.sub(r"<[^>]+>", "", page(site, "api"))
    assert "The same as log: trace.events.to_frame() is a table." in text


@pytest.mark.parametrize("name", [name for name in dir(rtnb) if name != "__version__"])
def test_every_public_name_has_an_example(name: str) -> None:
    assert doctest.DocTestParser().get_examples(inspect.getdoc(getattr(rtnb, name)) or ""), "pytest runs it"


@pytest.mark.parametrize("name", HOW_TO)
def test_what_a_new_user_wants_is_a_page_whose_python_is_valid(site: dict[Path, str], name: str) -> None:
    text = (ROOT / "notebooks" / "docs" / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, name, "exec", flags=0x2000)  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    assert page(site, name)


def test_every_event_of_the_protocol_is_in_the_reference(site: dict[Path, str]) -> None:
    text = page(site, "protocol")
    names = [*events.CLIENT_EVENTS, *events.SERVER_EVENTS]
    assert [name for name in names if f">{name}<" not in text] == []


def test_the_readme_is_a_front_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    links = re.findall(r"\]\(((?!https?:)[^)#]+)\)", text)
    assert len(links) > 15
    assert [link for link in links if not (ROOT / link).exists()] == []
