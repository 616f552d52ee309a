"""`rtnb simulate`: what its options mean."""

from __future__ import annotations

from rtnb.cli import parser


def test_without_options_it_serves_this_machine_only() -> None:
    options = parser().parse_args(["simulate"])
    assert (options.host, options.port, options.tls, options.json) == ("127.0.0.1", 0, False, False)
    assert (
        options.key is options.seed is options.latency is options.voice is options.scenario is options.chat_url is None
    )


def test_every_option() -> None:
    words = "simulate --host ::1 --port 0 --key k --tls --seed 7 --latency slow --voice babble --scenario s.toml"
    options = parser().parse_args([*words.split(), "--chat-url", "http://127.0.0.1:1/v1", "--json"])
    assert (options.host, options.port, options.key, options.tls, options.seed) == ("::1", 0, "k", True, 7)
    assert (options.latency, options.voice, options.scenario) == ("slow", "babble", "s.toml")
    assert (options.chat_url, options.json) == ("http://127.0.0.1:1/v1", True)
