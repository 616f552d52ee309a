"""Edges that a review found: connections that end twice, tools that end the session, events that arrive twice."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtnb
from rtnb._loop import BackgroundLoop
from rtnb.client.playback import ServicePlayback
from rtnb.client.speech import image_item
from rtnb.client.tools import ToolBox
from rtnb.errors import ConnectionClosed, ServiceError
from rtnb.protocol import events
from rtnb.protocol.values import ContentPart
from tests.client.peer import Message, Peer, failure
from tests.client.test_defects import hold
from tests.client.test_reconnect import reconnecting
from tests.client.virtual import outcome, run_virtual

SOUND = np.zeros(24_000, np.float32)


