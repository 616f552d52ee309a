"""The prompt lab in a real JupyterLab: change a prompt, run, hear a run, vote, export; both themes, axe-core."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from tests.browser.axe import violations
from tests.browser.cells import eventually, run

LAB = """
import rtnb
from rtnb import graders
questions = ["What is a delta?", "Tell me about <b>trains</b>.", "How are you?", "Tell me about tea."]
questions.append("What can you do?")
fast = {"latency": "fast", "voice": "babble"}
prompts = {"A": {"instructions": "Explain at length.", **fast}, "B": {"instructions": "Explain at length.", **fast}}
lab = rtnb.PromptLab(cases=questions, variants=prompts, graders=[graders.max_words(12), graders.n_words])
lab
"""


@pytest.fixture
async def notebook(open_notebook: Any) -> Any:
    """A lab of its own in a kernel that the tests share."""
    notebook = await open_notebook("prompts.ipynb", cells=[LAB, "0"], keep=True)
    await notebook.run_all()
    await notebook.page.locator(".rtnb-prompts").wait_for(timeout=20_000)
    return notebook


@pytest.fixture
async def done(notebook: Any) -> Any:
    """The same with another instruction for B, after a click on Run."""
    page = notebook.page
    await page.get_by_role("textbox", name="Instructions B").fill("Answer in one sentence.")
    await eventually(notebook, "lab.variants['B']['instructions']", "Answer in one sentence.")
    await page.get_by_role("button", name="Run", exact=True).click()
    await expect(page.locator(".rtnb-runs td button")).to_have_count(20, timeout=60_000)
    await expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled(timeout=20_000)
    return notebook


def lab_of(page: Any) -> Any:
    return page.locator(".jp-OutputArea-output", has=page.locator(".rtnb-prompt-lab"))


async def test_the_words_that_two_prompts_differ_in_are_marked(notebook: Any) -> None:
    page = notebook.page
    changes = page.get_by_role("group", name="Changes")
    await expect(changes).to_have_text("Both instructions are the same.")
    await page.get_by_role("textbox", name="Instructions B").fill("Answer in one sentence.")
    await expect(changes.locator("del")).to_have_text("Explain at length.")
    await expect(changes.locator("ins")).to_have_text("Answer in one sentence.")


async def test_a_cell_of_the_grid_opens_the_run_below_it(done: Any) -> None:
    lab = lab_of(done.page)
    await expect(lab.get_by_role("button", name="Case 4, A, repeat 1: ✗")).to_be_visible()
    await expect(lab.get_by_role("button", name="Case 4, B, repeat 1: ✓")).to_be_visible()
    await expect(lab).to_contain_text("20 of 20 runs (5 cases, 2 variants, 2 repeats)")
    await expect(lab).to_contain_text("not shown: about")
    assert await done.page.locator(".rtnb-prompt-lab b").count() == 0, "texts are no markup"
    await lab.get_by_role("button", name="Case 2, B, repeat 2").click()
    await done.page.locator(".rtnb-panes").wait_for(timeout=20_000)
    await expect(lab.get_by_role("button", name="Case 2, B, repeat 2")).to_have_attribute("aria-pressed", "true")
    await lab.get_by_label("Grade shown").select_option("n_words")
    await expect(lab.get_by_role("button", name="Case 1, A, repeat 1")).not_to_have_text("✗")


async def test_pairs_are_heard_without_their_names_and_voted_on(done: Any) -> None:
    lab, player = lab_of(done.page), done.page.locator(".rtnb-prompt-lab audio")
    for number, vote in enumerate(("First is better", "Second is better", "No difference"), 1):
        await expect(lab).to_contain_text(f"Pair {number} of 10")
        await lab.get_by_role("button", name="Play second").click()
        await done.page.wait_for_function("document.querySelector('.rtnb-prompt-lab audio').duration > 0.5")
        await expect(player).to_have_attribute("aria-label", "Play second")
        await lab.get_by_role("button", name=vote).click()
    await expect(lab).to_contain_text("Votes: 3")
    await expect(lab).to_contain_text("a preference is not shown")
    assert await run(done, "print(len((lab.result.path / 'votes.jsonl').read_text().splitlines()))") == "3"


async def test_an_experiment_leaves_as_a_page_and_as_code(done: Any, tmp_path: Path) -> None:
    lab, file = lab_of(done.page), tmp_path / "experiment.html"
    async with done.page.expect_download() as saved:
        await lab.get_by_role("button", name="Save as a page").click()
    await (await saved.value).save_as(file)
    assert "max_words(12)" in file.read_text()
    assert "<b>trains" not in file.read_text()

    # The code that is shown does the same: it finds the runs of the button.
    await lab.get_by_text("Code", exact=True).click()
    await expect(lab.get_by_role("region", name="Code")).to_contain_text("await rtnb.experiment(")
    source = await run(done, "await lab.run()\nprint(lab.code)")
    assert (await run(done, f"{source}\nprint(len(result.runs), result.path == lab.result.path)")).endswith("20 True")


@pytest.mark.parametrize("theme", ["Light", "Dark"])
async def test_axe_finds_no_violation(done: Any, pictures: Path, theme: str) -> None:
    await done.page.set_viewport_size({"width": 1440, "height": 1500})
    await done.set_theme(f"JupyterLab {theme}")
    assert not await violations(done.page, ".rtnb-prompt-lab")
    await done.page.screenshot(path=pictures / f"prompt-lab-{theme.lower()}.png")


async def test_a_run_is_stopped_and_goes_on_and_a_problem_is_shown(notebook: Any) -> None:
    page = notebook.page
    await run(notebook, "lab.form.repeats = 20")
    await page.get_by_role("button", name="Run", exact=True).click()
    await page.locator(".rtnb-runs td button").first.wait_for(timeout=30_000)
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled(timeout=20_000)
    await page.get_by_label("Budget").fill("0.5")
    await page.get_by_label("Repeats").fill("1")
    await page.get_by_label("Repeats").press("Tab")
    await eventually(notebook, "(lab.form.repeats, lab.form.budget_usd)", "(1, 0.5)")
    n_before = int(await run(notebook, "print(len(lab.result.runs))"))
    assert 0 < n_before < 200
    await page.get_by_role("checkbox", name="Tell me about tea.").uncheck()
    await eventually(notebook, "lab.form.chosen", "['1', '2', '3', '5']")
    await run(notebook, "lab.form.texts = ['Hello {name}', 'Hi']")
    await page.get_by_role("button", name="Run", exact=True).click()
    alert = page.get_by_role("alert").filter(has_text="the placeholder {name}")
    await expect(alert).to_be_visible(timeout=20_000)
