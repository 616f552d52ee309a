"""Fixtures of the client's tests: a session joined to a scripted service."""

from tests.client.conftest import ga

__all__ = ["ga"]
