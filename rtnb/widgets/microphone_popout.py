"""The capture page: a microphone outside of the notebook, where the notebook's page may not have one (VS Code).

It is served once, on this machine's loopback, and talks over the line like any page of the notebook.
"""

from __future__ import annotations

import json
from typing import Any, Final

from rtnb.widgets._base import bundle, styles

KNOBS: Final = (
    "mode", "muted", "talk_key", "device", "echo_cancellation", "noise_suppression", "auto_gain_control",
    "keep_on_when_hidden",
)  # fmt: skip
"""What can be turned on either page."""

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Microphone</title>
<style>
:root {{ color-scheme: light dark; }} body {{ margin: 2em auto; max-width: 50em; padding: 0 1em; }}
{style}
</style>
</head>
<body class="rtnb">
<h1>Microphone of your notebook</h1>
<p>What you say goes to the notebook's kernel on this machine. Closing this page switches the microphone off.</p>
<div id="widget"></div>
<script type="application/json" id="facts">{facts}</script>
<script type="module">{script}</script>
</body>
</html>
"""


def page(microphone: Any, page_id: str, token: str, port: int) -> str:
    """The HTML of the capture page of a microphone, with what it needs to reach the kernel."""
    names = ("stream_name", "worklet", *KNOBS)
    facts = {
        "page": page_id,
        "token": token,
        "port": port,
        "channel": bundle("channel.js"),
        "microphone": bundle("microphone.js"),
        "traits": {**{name: getattr(microphone, name) for name in names}, "stream": "", "stand_in": ""},
    }
    text = json.dumps(facts).replace("<", "\\u003c")  # no </script> in it
    return _PAGE.format(style=styles("microphone.css"), facts=text, script=bundle("microphone_popout.js"))
