"""The texts of the page are those that were reviewed."""

from tests.widgets.page_texts import GOLDEN, page_texts, python_texts, script_texts


def test_the_texts_of_the_page_are_the_reviewed_ones() -> None:
    renew = "renew it and read the difference: python -m tests.widgets.page_texts"
    assert page_texts() == GOLDEN.read_text(encoding="utf-8"), renew


def test_the_texts_are_found_in_scripts_and_modules() -> None:
    script = 'add(line, "button", { textContent: "Send" }); // "Not this one."\nshow(`Saved ${name} now`); put("a b");'
    assert list(script_texts(script)) == ["Send", "Saved {…} now"]
    module = '"""Not this one."""\nx = Unicode("", help="Nor this one.")\nsay(f"Events {n} here")\n'
    assert list(python_texts(module)) == ["Events {…} here"]


def test_banned_words_are_not_on_the_page() -> None:
    text = page_texts()
    for word in ("in writing", "stand-in", "in stock", "wish", "nobody", "somebody", "let sound through"):
        assert word not in text.lower(), word
