"""Process that talks to a simulator and records itself until it is killed.

python -m tests.trace.talker URL KEY FILE
"""

from __future__ import annotations

import asyncio
import sys

import rtnb
from rtnb.audio import babble


async def main(url: str, key: str, path: str) -> None:
    target = rtnb.Azure(url, deployment="any", api_key=key)
    speech = babble("Would you please tell me something about the weather?").audio
    async with rtnb.connect(target, trace=path, turn_detection="server_vad") as session:
        sys.stdout.write("open\n")
        sys.stdout.flush()
        while True:
            await session.say(speech, rate_hz=24_000)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
