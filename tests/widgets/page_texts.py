"""All texts of the page in one file, for reviewers: ``python -m tests.widgets.page_texts`` writes it anew.

Texts of scripts are string literals that name or label an element, or read like a sentence; texts of Python are string
literals that read like one, without docstrings and help texts of traits. Settings come from their table. What stands in
``{…}`` is filled in later.
"""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rtnb.widgets._base import FOLDER

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "page_texts.txt"

_ELSEWHERE = [FOLDER.parent / "trace" / "conversation.py", FOLDER.parent / "tuning" / "bench.py"]
_FILES = sorted([*FOLDER.iterdir(), *_ELSEWHERE], key=lambda path: path.name)

_COMMENT = re.compile(r"/\*.*?\*/|(?<![:\"'`\\])//[^\n]*", re.DOTALL)
_LITERAL = re.compile(
    r'(?P<key>(?:textContent|title|placeholder|"aria-label"|label): |(?:[bB]utton|act)\((?:\w+, )?)?'
    r'(?:"(?P<text>[^"\n]*)"|`(?P<template>[^`]*)`)'
)
_SENTENCE = re.compile(r"^(?:\$\{|[A-Z(✂]).*[a-z.…] ?\S|^[a-z]+ .*[.…]$", re.DOTALL)


def script_texts(source: str) -> Iterator[str]:
    """Find the texts in a script."""
    for found in _LITERAL.finditer(_COMMENT.sub("", source)):
        text = found["text"] if found["text"] is not None else found["template"]
        reads_well = " " in text and _SENTENCE.search(text) and "\n" not in text
        if text and (found["key"] or reads_well) and not re.search(r"[<>]|=>|rtnb-|\.jp-", text):
            text = re.sub(r"\$\{[^}]*\}", "{…}", text)
            if found["key"] or re.search(r"[A-Za-z]{3}", text.replace("{…}", "")):
                yield text


def python_texts(source: str) -> Iterator[str]:
    """Find the texts in a module."""
    tree = ast.parse(source)
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):  # docstrings
            skipped.update(ast.walk(node.value) if isinstance(node.value, ast.Constant) else ())
        elif isinstance(node, ast.keyword) and node.arg in ("help", "html"):
            skipped.update(ast.walk(node.value))
        elif isinstance(node, ast.JoinedStr):
            skipped.update(part for part in ast.walk(node) if part is not node)
    for node in ast.walk(tree):
        text = "" if node in skipped else _text(node)
        if " " in text and re.search(r"^[A-Z{].*[a-z]{3}", text) and not re.search(r"[<>\n]|%\(|^\{…\}[/.]", text):
            yield text


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{…}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def table_texts(table: Any) -> Iterator[str]:
    """Find labels, help and units in the table of settings."""
    for key, value in table.items() if isinstance(table, dict) else enumerate(table):
        if isinstance(value, dict | list):
            yield from table_texts(value)
        elif isinstance(value, str) and (key in ("label", "help", "unit") or " " in value):
            yield value


def page_texts() -> str:
    """Return all texts, by file."""
    blocks = []
    for path in _FILES:
        if path.suffix == ".js":
            texts = list(script_texts(path.read_text(encoding="utf-8")))
        elif path.suffix == ".py":
            texts = list(python_texts(path.read_text(encoding="utf-8")))
        elif path.suffix == ".toml":
            texts = list(table_texts(tomllib.loads(path.read_text(encoding="utf-8"))))
        else:
            continue
        if texts:
            blocks.append("\n".join([path.name, *(f"  {text}" for text in dict.fromkeys(texts))]))
    return "\n\n".join(blocks) + "\n"


if __name__ == "__main__":
    GOLDEN.write_text(page_texts(), encoding="utf-8")
