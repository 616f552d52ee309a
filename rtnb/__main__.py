"""`python -m rtnb …` is `rtnb …`, for when the scripts folder is not on the path."""

from __future__ import annotations

import sys

from rtnb.cli import main

if __name__ == "__main__":
    sys.exit(main())
