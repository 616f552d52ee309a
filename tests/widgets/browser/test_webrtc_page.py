"""The page's part of a call on a bare page: what it asks of the kernel, what it shows, and that it lets go."""

from __future__ import annotations

from typing import Any

from tests.widgets.bare_page import shown

TRAITS = {"state": "idle", "message": "", "notices": [], "label": "x", "microphone": False, "through_kernel": False}
KEY = "ek_" + "0123456789abcdef0123456789abcdef"  # in two, so that no scanner takes it for a key
OFFER = "v=0\r\na=candidate:1 1 udp 2 5d3a-1.local 5 typ host\r\na=candidate:2 1 udp 2 10.0.0.1 5 typ host\r\n"


async def test_a_page_that_reaches_nothing_hands_over_to_the_kernel_and_lets_go(browser: Any) -> None:
    page = await shown(browser, "webrtc", {**TRAITS, "muted": False})
    await page.get_by_role("button", name="Start").click()
    assert await page.evaluate("sent") == [["start", {"page": "p"}]]
    await page.evaluate(
        """key => {
            answers.key = { key, url: "http://localhost:9/calls" };
            answers.offer = { failed: true };
            const Peer = RTCPeerConnection;
            window.RTCPeerConnection = class extends Peer { constructor() { super(); window.peer = this; } };
            say("call", { call: 7, page: "elsewhere" });
            say("call", { call: 7, page: "p" });
        }""",
        KEY,
    )
    await page.wait_for_function("sent.some(([kind]) => kind === 'released')")
    sent = await page.evaluate("sent")
    assert [kind for kind, _ in sent] == ["start", "step", "key", "offer", "released"]
    offer = dict(sent)["offer"]
    assert (offer["call"], offer["why"]) == (7, "cors")
    assert offer["sdp"].startswith("v=0")
    assert "opus" in offer["sdp"]
    assert KEY not in str(sent) + await page.content()
    assert await page.evaluate("peer.connectionState === 'closed' && peer.getSenders()[0].track.readyState") == "ended"
    await page.evaluate("unrender()")
    assert not await page.evaluate("listening()")
    assert page.failures == []


async def test_a_page_without_a_microphone_says_why(browser: Any) -> None:
    page = await shown(browser, "webrtc", {**TRAITS, "microphone": True, "muted": True})  # about:blank is not secure
    await page.evaluate("say('call', { call: 1, page: 'p' })")
    await page.wait_for_function("sent.some(([kind]) => kind === 'released')")
    assert ["ended", {"call": 1, "why": "insecure", "detail": ""}] in await page.evaluate("sent")
    hostile = "<img src=x onerror='window.hacked=1'>"
    await page.evaluate(
        "text => (model.set('notices', [text]), model.set('message', text), model.set('state', 'failed'))", hostile
    )
    assert await page.locator("[role=alert]").text_content() == hostile
    assert await page.locator("li").text_content() == hostile
    assert await page.evaluate("window.hacked") is None
    assert await page.get_by_role("button", name="Mute").get_attribute("aria-pressed") == "true"


async def test_words_and_figures(browser: Any) -> None:
    page = await shown(browser, "webrtc", {**TRAITS, "muted": False})
    assert await page.evaluate("sdp => module.withoutLocalNames(sdp)", OFFER) == OFFER.replace(
        OFFER.split("\r\n")[1] + "\r\n", ""
    )
    said = "(state, call, page) => module.describe(state, call, page)"
    talking = {"over": False, "step": "an answer", "waits": False}
    for state, call, words in (
        ("idle", None, "Not connected"),
        ("starting", talking, "Waiting for an answer…"),
        ("open", None, "The call is on another page."),
        ("open", talking, "Connected: speak"),
        ("open", talking | {"waits": True}, "The browser waits for a click before it lets sound through."),
        ("closed", talking | {"over": True}, "The call is over"),
    ):
        page_is = {"microphone": True, "muted": False}
        assert await page.evaluate(f"([s, c, p]) => ({said})(s, c, p)", [state, call, page_is]) == words
    empty = await page.evaluate("module.figures(new Map())")
    assert (empty["received"], empty["round_trip_ms"], empty["path"]) == (0, None, "")
    rows = await page.evaluate(
        """empty => module.table({ ...empty, lost: 5, received: 95, round_trip_ms: 1.25, bytes_sent: 4321 },
            { iceConnectionState: "checking" }, { readyState: "connecting", label: "x" })""",
        empty,
    )
    figures = {name: value for name, value, _ in rows}
    assert figures["lost"] == "5 (5.0 %)"
    assert (figures["round trip"], figures["buffer"], figures["sent"]) == ("1.3 ms", "–", "4 kB")
    assert (figures["ICE"], figures["events"]) == ("checking", "connecting")
