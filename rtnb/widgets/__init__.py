"""Widgets: what a session says and does, on the page. Importing this needs no kernel and opens nothing."""

from __future__ import annotations
