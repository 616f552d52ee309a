"""Figures; the only importer of matplotlib in rtnb."""
