"""Say on stderr which datasets in the SQL of ``query`` are not held whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from data_engine.cli.console import print_err

if TYPE_CHECKING:
    from datetime import datetime

    from data_engine.market.time_range import TimeRange
    from data_engine.store.bar_store import BarStore

_NAMED = 3


def warn_of_gaps(store: BarStore, sql: str, span: TimeRange | None, now: datetime) -> bool:
    """Print one line that names the datasets in the SQL of which a requested range is missing; return whether there is one.

    Args:
        store: The store.
        sql: The SQL; a dataset is in it if the name of its view is a word of it.
        span: The range in which bars of the views start. If None, all.
        now: The current instant, aware.
    """
    from data_engine.market.dates import any_span
    from data_engine.market.wording import and_more, dataset_options, plural
    from data_engine.read.completeness import incomplete_series
    from data_engine.read.duckdb_views import datasets, view_name

    words = set(re.findall(r"\w+", sql.lower()))
    store.coverage.requested.refresh()
    parts, options = [], []
    for dataset in datasets(store):
        if view_name(dataset).lower() in words:
            symbols = [symbol for symbol, _ in incomplete_series(store, dataset, span or any_span(None, None), now)]
            if symbols:
                parts.append(
                    f"{view_name(dataset)} misses requested ranges of {plural(len(symbols), 'symbol')} "
                    f"({and_more(symbols, _NAMED)})"
                )
                options.append(dataset_options(dataset))
    if parts:
        option = options[0] if len(options) == 1 else ""
        print_err(f"Warning: {'; '.join(parts)}; run `data-engine update{option}`")
    return bool(parts)
