"""Tell which stored series are of delisted securities: Alpaca lists them as inactive, and has had no bar of them for long.

No action tells of such an end, and Alpaca has no date of it. One of the two alone is no evidence: some inactive securities still
trade, and an active one may be suspended.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property

from data_engine.corporate_actions.ticker_changes import DELISTED, TickerChange
from data_engine.errors import DataEngineError
from data_engine.market.symbol import asof_day
from data_engine.store.coverage import Coverage
from data_engine.store.file_store import FileStore
from data_engine.store.silence import silent_since
from data_engine.universe.index_store import MetadataStore
from data_engine.universe.vendor_lists import OTC_UNIVERSE, UNIVERSE

ASKED_EVERY = timedelta(days=7)
"""The time after the last final answer at which `update` fetches such a series again: it may trade again."""


class Delisted:
    """The securities that Alpaca's stored lists name as inactive, read when the first silent series is judged.

    Args:
        files: The files of the store.

    Example:
        >>> Delisted(store.files).change_of(coverage)  # doctest: +SKIP
    """

    def __init__(self, files: FileStore) -> None:
        self._files = files

    @cached_property
    def tickers(self) -> frozenset[str]:
        """The tickers that only inactive securities have; empty if no list is stored, or it cannot be read."""
        lists = MetadataStore(files=self._files)
        try:
            there = set(lists.names())
            listed = {name: frozenset(lists.members(name)) for name in (*UNIVERSE, *OTC_UNIVERSE) if name in there}
        except DataEngineError:
            return frozenset()
        active, inactive = ({listed.get(pair[at], frozenset()) for pair in (UNIVERSE, OTC_UNIVERSE)} for at in (0, 1))
        return frozenset().union(*inactive) - frozenset().union(*active)

    def change_of(self, known: Coverage) -> TickerChange | None:
        """Return the end of a series that is delisted, on the day after its last bar; None if it is not known to be."""
        last = silent_since(known)
        if last is None or asof_day(known.series.symbol) is not None or known.series.symbol not in self.tickers:
            return None
        return TickerChange(known.series.symbol, None, last + timedelta(days=1), DELISTED)

    def is_due(self, known: Coverage, now: datetime) -> bool:
        """Return whether an update fetches a series: it is not delisted, or its last final answer is a week old."""
        return now - known.covered[-1].end >= ASKED_EVERY if self.change_of(known) else True
