"""Time that `redact` takes for 1 MB of text: ``python -m tests.benchmarks.redaction``

Each text as it is, and with two keys that are searched for; CPU, the best of 7 runs. The floor is one pass of a regular
expression that finds nothing.
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
from tests.benchmarks.stage import best_s, judged, print_table

BOUND_MS = 20.0
LENGTH = 1_000_000


def texts() -> dict[str, str]:
    """Return the texts by name: random base64url, dashes, and the JSON of a session's events."""
    noise = random.Random(0)

    def event() -> dict[str, object]:
        ids = {name: f"{name}_{noise.randbytes(16).hex()}" for name in ("event_id", "response_id", "item_id")}
        text = " ".join(noise.choices(["the", "quick", "answer", "is", "a delta"], k=12))
        return {"type": "response.output_text.delta", **ids, "output_index": 0, "content_index": 0, "delta": text}

    return {
        "base64url": base64.urlsafe_b64encode(noise.randbytes(LENGTH * 3 // 4)).decode(),
        "dashes": "-" * LENGTH,
        "JSON": json.dumps([event() for _ in range(LENGTH // 260)])[:LENGTH],
    }


def best_ms(work: Callable[[str], object], text: str) -> float:
    """Return the shortest CPU time of some runs, in ms."""
    return 1000 * best_s(lambda: work(text), clock=time.process_time)


def main() -> int:
    noise = random.Random(1)
    keys = [base64.b64encode(noise.randbytes(63), b"Ab").decode() for _ in range(2)]
    rows = {}
    for name, text in texts().items():
        rows[name] = {"redact_ms": best_ms(redact, text), "floor_ms": best_ms(re.compile("[^ ]QQ").search, text)}
        with patch.dict(redaction._known):
            redaction.remember(keys)
            rows[name]["with_keys_ms"] = best_ms(redact, text)
    print_table(rows)
    longest_ms = max(max(row["redact_ms"], row["with_keys_ms"]) for row in rows.values())
    return judged({"longest, ms": (longest_ms, BOUND_MS)})


if __name__ == "__main__":
    sys.exit(main())
