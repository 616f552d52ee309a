"""Conformance kit: small probes that check a realtime service against the documented protocol.

``rtnb verify TARGET`` runs them; `verify` is the same in Python. An outcome is "as documented", "different" (with what
came, what was expected and where that stands) or "not tested". Two results can be compared.
"""

from rtnb.verify.run import Outcome, Result, compare, verify

__all__ = ["Outcome", "Result", "compare", "verify"]
