"""Who may come in: `rtnb.simulator.admission`."""

from __future__ import annotations

from rtnb.protocol import SessionConfig
from rtnb.simulator.admission import MAX_LIFETIME_S, KeyRing


class Clock:
    """Unix time by hand."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_every_start_has_a_key_of_its_own_unless_one_is_given() -> None:
    assert KeyRing(wall=Clock()).key != KeyRing(wall=Clock()).key
    assert len(KeyRing(wall=Clock()).key) >= 32
    assert KeyRing("mine", wall=Clock()).key == "mine"


def test_only_the_key_is_the_key() -> None:
    ring = KeyRing("mine", wall=Clock())
    assert ring.owner("mine") == ""
    assert not any(ring.owner(other) is not None for other in ("", "min", "mine ", "Mine", "ключ", "\udcff"))


def test_an_ephemeral_key_lives_its_time() -> None:
    clock = Clock()
    ring = KeyRing("mine", wall=clock)
    value, grant = ring.mint(SessionConfig(instructions="x"), lifetime_s=60)
    assert value.startswith("ek_")
    assert ring.grant(value) == grant
    assert grant.expires_at == 1_060.0
    clock.now = 1_059.9
    assert not ring.expired(grant)
    clock.now = 1_060.0
    assert ring.expired(grant)
    assert ring.grant(value) is not None  # known, so that it can be told from a wrong one
    assert ring.grant("ek_other") is None
    assert ring.owner(value) is None


def test_old_keys_are_forgotten() -> None:
    clock = Clock()
    ring = KeyRing("mine", wall=clock)
    value, _ = ring.mint(SessionConfig(), lifetime_s=10)
    clock.now += MAX_LIFETIME_S + 11
    ring.mint(SessionConfig(), lifetime_s=10)
    assert ring.grant(value) is None


def test_no_key_is_shown() -> None:
    ring = KeyRing("mine-and-secret", wall=Clock())
    value, grant = ring.mint(SessionConfig(), lifetime_s=10)
    shown = f"{ring!r} {ring} {grant!r}"
    assert "mine-and-secret" not in shown
    assert value not in shown
