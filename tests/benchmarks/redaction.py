"""Time that `redact` takes for 1 MB of text: ``python -m tests.benchmarks.redaction``

Each text as it is, and with two keys that are searched for; the best of 7 runs. The floor is one pass of a regular
expression that finds nothing. Bound: 20 ms for each text.
"""

import base64
import json
import random
import re
import sys
import time
from collections.abc import Callable
from unittest.mock import patch

from rtnb import redaction
from rtnb.redaction import redact
from tests.benchmarks.stage import best_s

BOUND_MS = 20.0
LENGTH = 1_000_000
ROUNDS = 7


def texts() -> dict[str, str]:
    """Return the texts by name: random base64url, dashes, and the JSON of a session's events."""
    noise = random.Random(0)

    def made_id(prefix: str) -> str:
        return f"{prefix}_{noise.randbytes(16).hex()}"

    def event() -> dict[str, object]:
        ids = {"event_id": made_id("event"), "response_id": made_id("resp"), "item_id": made_id("item")}
        text = " ".join(noise.choices(["the", "quick", "answer", "is", "a delta"], k=12))
        return {"type": "response.output_text.delta", **ids, "output_index": 0, "content_index": 0, "delta": text}

    return {
        "base64url": base64.urlsafe_b64encode(noise.randbytes(LENGTH * 3 // 4)).decode(),
        "dashes": "-" * LENGTH,
        "JSON": json.dumps([event() for _ in range(LENGTH // 260)])[:LENGTH],
    }


def best_ms(work: Callable[[], object]) -> float:
    """Return the shortest CPU time of some runs, in ms."""
    return 1000 * best_s(work, times=ROUNDS, clock=time.process_time)


def main() -> int:
    """Print the table; return 1 beyond the bound."""
    noise = random.Random(1)
    keys = [base64.b64encode(noise.randbytes(63), b"Ab").decode() for _ in range(2)]
    floor = re.compile("[^ ]QQ")
    print(f"{'1 MB of':12}{'redact':>10}{'with keys':>12}{'floor':>9}   (ms of CPU, best of {ROUNDS})")
    worst = 0.0
    for name, text in texts().items():
        plain = best_ms(lambda text=text: redact(text))  # type: ignore[misc]
        with patch.dict(redaction._known):
            redaction.remember(keys)
            keyed = best_ms(lambda text=text: redact(text))  # type: ignore[misc]
        worst = max(worst, plain, keyed)
        print(f"{name:12}{plain:10.1f}{keyed:12.1f}{best_ms(lambda text=text: floor.search(text)):9.1f}")  # type: ignore[misc]
    print(f"longest {worst:.1f} ms, bound {BOUND_MS:.0f} ms: {'ok' if worst <= BOUND_MS else 'too slow'}")
    return 0 if worst <= BOUND_MS else 1


if __name__ == "__main__":
    sys.exit(main())
