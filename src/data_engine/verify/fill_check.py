"""Find filled ranges that no longer count, since Alpaca has bars in them."""

from __future__ import annotations

from collections.abc import Iterator

from data_engine.errors import StoreError
from data_engine.market.wording import and_more
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.live_fills import filled_by, live_fills
from data_engine.verify.findings import Finding

_SHOWN = 3


def superseded_fills(storage: BarStore, known: Coverage) -> Iterator[Finding]:
    """Yield a finding if Alpaca has bars in ranges that a series of fill bars fills.

    Args:
        storage: The store.
        known: The coverage of the series of fill bars.
    """
    try:
        live = live_fills(storage, filled_by(known.series), known)
    except StoreError:
        return  # the check of Alpaca's series reports it
    gone = [one.range for one in known.filled if one not in live]
    if gone:
        text = f"Alpaca has bars in {len(gone)} of {len(known.filled)} filled ranges, which `load(fill=True)` leaves out"
        yield Finding("fill_superseded", f"{text}: {and_more(gone, _SHOWN)}", known.series)
