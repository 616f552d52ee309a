"""Budget of a session: `Budget`, and the meter that watches it.

Costs are estimates from the tokens that the service reports after each response. A response that is still growing is
counted by the duration of its audio only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from rtnb.analysis.cost import PRICES, PRICES_CHECKED, Price, estimate_usd, find_price
from rtnb.errors import BudgetExceeded, RtnbError
from rtnb.protocol.values import Usage

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
        price = find_price(model, self.prices) if self.prices else None
        price = price or find_price(model)
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
