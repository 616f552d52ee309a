"""What a conversation costs, about: a price table as data, and a meter that follows an event log.

A service bills on its own meters; every number here is an **estimate** from the tokens it reported.

References
----------
Prices in USD per million tokens (transcription by the minute), checked 2026-11: OpenAI's model pages and the price list
of LiteLLM 1.109.1; Azure's global list is equal (its data zones charged 10 % more for the 4o previews).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rtnb.protocol import events
from rtnb.protocol.values import TokenDetails, Usage

if TYPE_CHECKING:
    import pandas as pd

from rtnb.errors import BudgetExceeded, RtnbError

PRICES_CHECKED: Final = "2026-11"
"""When the tables below were last compared with their sources."""


@dataclass(frozen=True)
class Price:
    """USD per million tokens of one model."""

    text_in: float
    text_cached: float
    text_out: float
    audio_in: float
    audio_cached: float
    audio_out: float
    image_in: float = 0.0
    image_cached: float = 0.0


_REALTIME = Price(4.00, 0.40, 16.00, 32.00, 0.40, 64.00, 5.00, 0.50)
_REASONING = Price(4.00, 0.40, 24.00, 32.00, 0.40, 64.00, 5.00, 0.50)
_MINI = Price(0.60, 0.06, 2.40, 10.00, 0.30, 20.00, 0.80, 0.08)

PRICES: dict[str, Price] = {
    "gpt-realtime": _REALTIME,
    "gpt-realtime-1.5": _REALTIME,
    "gpt-realtime-2": _REASONING,
    "gpt-realtime-2.1": _REASONING,
    "gpt-realtime-mini": _MINI,
    "gpt-realtime-2.1-mini": _MINI,
    "gpt-4o-realtime-preview": Price(5.00, 2.50, 20.00, 40.00, 2.50, 80.00),
    "gpt-4o-realtime-preview-2024-10-01": Price(5.00, 2.50, 20.00, 100.00, 20.00, 200.00),
    "gpt-4o-mini-realtime-preview": Price(0.60, 0.30, 2.40, 10.00, 0.30, 20.00),
}
"""By model, without its date. A deployment has a name of your own: ``PRICES["my-voice"] = PRICES["gpt-realtime"]``."""

TRANSCRIPTION_USD_PER_MINUTE: dict[str, float] = {
    "whisper-1": 0.006,
    "gpt-transcribe": 0.0045,
    "gpt-realtime-whisper": 0.017,
    "gpt-live-transcribe": 0.017,
}
"""Transcription models that are billed by the length of the audio."""

TRANSCRIPTION_PRICES: dict[str, Price] = {
    "gpt-4o-transcribe": Price(2.50, 2.50, 10.00, 6.00, 6.00, 0.0),  # audio in: 2.50 in OpenAI's list, 6.00 in Azure's
    "gpt-4o-mini-transcribe": Price(1.25, 1.25, 5.00, 3.00, 3.00, 0.0),  # 1.25 or 3.00: the higher
}
"""Transcription models that are billed by tokens."""

_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")


def find_price(model: str | None, prices: Mapping[str, Price] | None = None) -> Price | None:
    """Return the price of a model, dated or not; None where the table has none.

    Examples
    --------
    >>> find_price("gpt-realtime-2025-08-28") == PRICES["gpt-realtime"]
    True
    >>> find_price("my-deployment") is None
    True
    """
    prices = PRICES if prices is None else prices
    return prices.get(model or "") or prices.get(_DATE.sub("", model or ""))


def estimate_usd(usage: Usage | None, price: Price) -> float:
    """Estimate what one response cost.

    Cached tokens are part of the input and cheaper. Where a service counts more cached tokens than input tokens (one
    documented sample does), the uncached rest is 0.

    Parameters
    ----------
    usage : Usage or None
        As `response.done` carried it, of a response of any status; None costs 0.
    price : Price
        USD per million tokens.

    Examples
    --------
    >>> details = TokenDetails(text_tokens=120, cached_tokens=64)
    >>> usage = Usage(input_token_details=details, output_token_details=TokenDetails(text_tokens=7))
    >>> f"{estimate_usd(usage, PRICES['gpt-realtime-mini']):.8f}"
    '0.00005424'
    """
    if not usage:
        return 0.0
    given, made = usage.input_token_details or TokenDetails(), usage.output_token_details or TokenDetails()
    total, cached = 0.0, _cached(given)
    for kind in ("text", "audio", "image"):
        fresh = max(0, (getattr(given, f"{kind}_tokens") or 0) - cached[kind])
        total += fresh * getattr(price, f"{kind}_in") + cached[kind] * getattr(price, f"{kind}_cached")
    total += (made.text_tokens or 0) * price.text_out + (made.audio_tokens or 0) * price.audio_out
    return total / 1e6


def _cached(given: TokenDetails) -> dict[str, int]:
    """Cached tokens by kind; where only their sum is known, they are taken to be text first."""
    kinds = ("text", "audio", "image")
    if given.cached_tokens_details:
        return {kind: getattr(given.cached_tokens_details, f"{kind}_tokens") or 0 for kind in kinds}
    rest, cached = given.cached_tokens or 0, {}
    for kind in kinds:
        cached[kind] = min(rest, getattr(given, f"{kind}_tokens") or 0)
        rest -= cached[kind]
    return cached


class Charge(NamedTuple):
    """Usage of one response or transcription."""

    what: str
    """``response`` or ``transcription``."""
    id: str
    """Of the response, or of the transcribed item."""
    model: str
    tokens: int
    usd: float | None
    """None where the price or the usage is not known."""


class CostMeter:
    """Follows an event log and adds up what it cost.

    Parameters
    ----------
    model : str, optional
        Which price to use; None takes the model the service names.
    prices : mapping, optional
        Model -> `Price`; None takes `PRICES`.
    """

    def __init__(self, *, model: str | None = None, prices: Mapping[str, Price] | None = None) -> None:
        self.charges: list[Charge] = []
        self._prices = prices
        self._given = model
        self._named = ""
        self._transcriber = ""

    @property
    def usd(self) -> float:
        """All charges with a known price."""
        return sum(charge.usd or 0.0 for charge in self.charges)

    @property
    def tokens(self) -> int:
        """All tokens, both ways, cached ones included."""
        return sum(charge.tokens for charge in self.charges)

    @property
    def unknown(self) -> int:
        """Number of charges that have no known price and are not in `usd`."""
        return sum(charge.usd is None for charge in self.charges)

    def feed(self, rows: Iterable[Any]) -> None:
        """Take in the next rows of an `EventLog`; other events than usage and settings are passed over."""
        for row in rows:
            event = row.event
            if isinstance(event, events.SessionCreated | events.SessionUpdated):
                self._named = event.session.model or self._named
                heard = event.session.audio and event.session.audio.input
                self._transcriber = (heard and heard.transcription and heard.transcription.model) or ""
            elif isinstance(event, events.ResponseDone):
                self._charge("response", event.response.id, event.response.usage or None)
            elif isinstance(event, events.ConversationItemInputAudioTranscriptionCompleted):
                self._charge("transcription", event.item_id, event.usage or None)

    def _charge(self, what: str, id: str, usage: Usage | None) -> None:
        model = (self._given or self._named) if what == "response" else self._transcriber
        usd: float | None = None
        if usage and usage.type == "duration" and model in TRANSCRIPTION_USD_PER_MINUTE:
            usd = (usage.seconds or 0.0) / 60 * TRANSCRIPTION_USD_PER_MINUTE[model]
        elif usage and usage.type != "duration":
            price = find_price(model, self._prices if what == "response" else TRANSCRIPTION_PRICES)
            usd = estimate_usd(usage, price) if price else None
        self.charges.append(Charge(what, id, model, (usage and usage.total_tokens) or 0, usd))

    def to_frame(self) -> pd.DataFrame:
        """Return one row per response and transcription: what, id, model, tokens, usd (NaN where not known)."""
        import pandas as pd

        return pd.DataFrame(self.charges, columns=list(Charge._fields)).astype({"usd": float})

    def __repr__(self) -> str:
        unknown = f", {self.unknown} without a known price" if self.unknown else ""
        return f"<CostMeter: about ${self.usd:.4f} for {self.tokens} tokens{unknown}>"


WARN_AT: Final = 0.8
"""Share of a limit at which a warning is logged (the project's choice)."""

_log = logging.getLogger("rtnb")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of a session; None is no limit.

    At 80 % of a limit a warning is logged (``logging.getLogger("rtnb")``). At 100 % the running response is cancelled,
    and new ones raise `BudgetExceeded`.

    Examples
    --------
    >>> Budget(usd=0.50, minutes=10)
    Budget(usd=0.5, minutes=10, output_audio_s=None, prices=None)
    """

    usd: float | None = None
    """Estimated cost in US dollars, by `rtnb.analysis.cost.PRICES`."""
    minutes: float | None = None
    """Duration of the session."""
    output_audio_s: float | None = None
    """Duration of the model's speech, in seconds."""
    prices: Mapping[str, Price] | None = None
    """Prices by model or deployment name, where the built-in table does not know it."""

    def price_of(self, model: str | None) -> Price | None:
        """Return the price that applies; None where no dollars are counted.

        Raises
        ------
        RtnbError
            The model is in no table.
        """
        if self.usd is None:
            return None
        price = find_price(model, {**PRICES, **(self.prices or {})})
        if price is None:
            raise RtnbError(f"no price is known for {model!r}, so Budget(usd=…) cannot be kept").with_hint(
                f"Pass prices={{{model!r}: rtnb.analysis.cost.PRICES['gpt-realtime']}} or the like. "
                f"The table ({PRICES_CHECKED}) has: {', '.join(PRICES)}."
            )
        return price


class BudgetMeter:
    """Spending of one session.

    Parameters
    ----------
    budget : Budget
        The limits.
    model : str or None
        Model or deployment, for its price.
    clock : callable
        Monotonic seconds; the session begins now.
    """

    def __init__(self, budget: Budget, *, model: str | None, clock: Callable[[], float]) -> None:
        self.budget = budget
        self._price = budget.price_of(model)
        self._clock = clock
        self._start_s = clock()
        self._usd = self._audio_s = 0.0
        self._warned: set[str] = set()

    def add_usage(self, usage: Usage | None) -> None:
        """Add the tokens of a response that is done."""
        if self._price is not None:
            self._usd += estimate_usd(usage, self._price)

    def add_audio(self, audio_ms: float) -> None:
        """Add speech of the model."""
        self._audio_s += audio_ms / 1000

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the limit in minutes; None without one."""
        if self.budget.minutes is None:
            return None
        return max(0.0, 60 * self.budget.minutes - (self._clock() - self._start_s))

    def exceeded(self) -> BudgetExceeded | None:
        """Return the error for the first limit that is used up, and warn once about each that nearly is."""
        spent = {
            "usd": self._usd,
            "minutes": (self._clock() - self._start_s) / 60,
            "output_audio_s": self._audio_s,
        }
        for name, amount in spent.items():
            allowed = getattr(self.budget, name)
            if allowed is None:
                continue
            if amount >= allowed:
                return BudgetExceeded(name, spent=amount, allowed=allowed).with_hint(
                    "Open a new session, or connect with a larger budget=."
                )
            if amount >= WARN_AT * allowed and name not in self._warned:
                self._warned.add(name)
                _log.warning("%.0f %% of the budget: %s %.4g of %g", 100 * amount / allowed, name, amount, allowed)
        return None
