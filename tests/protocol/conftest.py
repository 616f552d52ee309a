import pytest

from tests.protocol.goldens import DIALECTS
from tests.protocol.pair import ConnectionPair


@pytest.fixture(params=DIALECTS)
def pair(request: pytest.FixtureRequest) -> ConnectionPair:
    """Client and service of each dialect."""
    return ConnectionPair(request.param)
