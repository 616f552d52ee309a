"""Command `python -m rtnb`, the same as `rtnb`, for a PATH without the scripts folder."""

from rtnb.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
