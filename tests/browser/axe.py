"""axe-core, the accessibility checker, in a page."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

_CI = Path(__file__).resolve().parents[2] / ".ci"
_SCRIPT = _CI / "node_modules" / "axe-core" / "axe.min.js"
_INSTALL_S = 300  # chosen

TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa")
"""Rules of WCAG 2.1, levels A and AA."""
_RUN = """async ([root, tags]) => {
    const { violations } = await axe.run({ include: [root] }, { runOnly: tags, resultTypes: ["violations"] });
    const rows = ({ id, nodes }) => nodes.map(({ target, failureSummary }) => [id, target.join(" "), failureSummary]);
    return violations.flatMap(rows);
}"""


def axe_script() -> str:
    """Return axe-core's source; installs the pinned version, or skips the test where npm is absent or fails."""
    if not _SCRIPT.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("axe-core is not installed, and npm is absent; install Node.js, then: cd .ci && npm ci")
        done = subprocess.run([npm, "ci"], cwd=_CI, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
        if done.returncode:
            pytest.skip(f"npm ci failed in .ci: {done.stderr.strip()[-300:]}")
    return _SCRIPT.read_text(encoding="utf-8")


async def violations(page: Any, root: str) -> list[str]:
    """Return one line per violation of WCAG 2.1 AA inside `root`: rule, selector, reason."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(axe_script())
    found = await page.evaluate(_RUN, [root, list(TAGS)])
    return [f"{rule}: {selector}: {' '.join(why.split())}" for rule, selector, why in found]
