"""Time of ``import rtnb`` in a fresh Python. ``python -m tests.benchmarks.imports``

The peers are a module of the standard library (`json`) and the stock client (`openai`).
"""

import argparse
import statistics
import subprocess
import sys

BOUND_S = 0.02
"""Longest ``import rtnb`` (median)."""

MODULES = ("rtnb", "json", "openai")
CODE = "from time import perf_counter as now; start = now(); import {module}; print(now() - start)"


def import_s(module: str) -> float:
    """Return the seconds that one import takes in a fresh Python."""
    command = [sys.executable, "-c", CODE.format(module=module)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="fresh Pythons per module")
    options = parser.parse_args()
    for module in MODULES:
        import_s(module)  # byte code is compiled, files are in the cache
    runs = [{module: import_s(module) for module in MODULES} for _ in range(options.runs)]
    medians = {module: statistics.median(run[module] for run in runs) for module in MODULES}
    holds = medians["rtnb"] <= BOUND_S
    for module, value in medians.items():
        bound = f"   (bound {BOUND_S} s{'' if holds else ': BROKEN'})" if module == "rtnb" else ""
        print(f"import {module:<10}{value:>9.4f} s{bound}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
