"""Where bars come from, as a run sees it: `BarSource`. A vendor is known by name to the pipeline, the audit and Dask alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any, Protocol

from data_engine.market.bars_page import BarsPage
from data_engine.market.series import Dataset
from data_engine.market.time_range import TimeRange


class BarSource(Protocol):
    """A vendor of historical bars. `AlpacaClient` is one. What `begin` returns is shared by the threads of one run."""

    def begin(self) -> BarSource:
        """Return a source for one run, with its own counts and its own `stop`, which is final: no later run starts it again."""

    @property
    def requests(self) -> int:
        """The number of requests sent so far, answered or not."""

    @property
    def allowed(self) -> float | None:
        """The requests per minute that are kept to; None where nothing limits."""

    @property
    def recent_refused(self) -> bool:
        """Whether the account's plan refused the latest minutes, so that ends are truncated."""

    @property
    def server_time(self) -> datetime | None:
        """The vendor's time at its last response, UTC; None before the first, or if it does not say."""

    def request(
        self,
        symbols: Sequence[str],
        dataset: Dataset,
        span: TimeRange,
        *,
        delayed: bool = False,
        now: datetime | None = None,
        asof: date | None = None,
    ) -> Any | None:
        """Return the request for every whole bar that starts in a range, or None if all of it is still to come.

        Args:
            symbols: Symbols in ascending order; those of former owners of tickers (``S@DATE``) are all of the day *asof*.
            dataset: Their timeframe, adjustment and feed.
            span: Half-open range, UTC.
            delayed: Whether to end before the latest minutes, which a plan may not permit.
            now: The instant up to which to ask. If None, the source's clock.
            asof: The day whose owners of the symbols are meant. If None, today.
        """

    def pages(self, request: Any) -> Iterator[BarsPage]:
        """Yield the pages of the response to a request until the vendor says that there are no more.

        Symbols come in ascending order, the bars of a symbol in order of time; a symbol may span pages.

        Raises:
            SourceError: If the vendor refuses, or gives no usable response.
            Interrupted: If `stop` was called.
        """

    def stop(self, *, at_once: bool = False) -> None:
        """Send nothing more, for ever: pending and later requests raise `Interrupted`.

        Args:
            at_once: Whether requests that were sent are broken off. If not, their responses still count.
        """
