"""Command `python -m rtnb`, the same as `rtnb`, for a PATH without the scripts folder."""

from __future__ import annotations

import sys

from rtnb.cli import main

if __name__ == "__main__":
    sys.exit(main())
