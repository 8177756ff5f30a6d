"""Say on stderr which datasets in the SQL of ``query`` are not held whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from data_engine.cli.console import print_err

if TYPE_CHECKING:
    from datetime import datetime

    from data_engine.market.time_range import TimeRange
    from data_engine.store.bar_store import BarStore

def warn_of_gaps(store: BarStore, sql: str, span: TimeRange | None, now: datetime) -> bool:
    """Print one line that names the datasets in the SQL that miss a requested range or a counted file; return whether one does.

    Args:
        store: The store.
        sql: The SQL; a dataset is in it if the name of its view is a word of it.
        span: The range in which bars of the views start. If None, all.
        now: The current instant, aware.
    """
    from data_engine.market.dates import any_span
    from data_engine.market.wording import dataset_options
    from data_engine.read.completeness import incomplete_series, incomplete_text
    from data_engine.read.duckdb_views import datasets, view_name

    words = set(re.findall(r"\w+", sql.lower()))
    store.coverage.requested.refresh()
    texts = []
    for dataset in datasets(store):
        if view_name(dataset).lower() in words:
            found = list(incomplete_series(store, dataset, span or any_span(None, None), now))
            if found:
                texts.append(incomplete_text(view_name(dataset), dataset_options(dataset), found))
    if texts:
        print_err(f"Warning: {'; '.join(texts)}")
    return bool(texts)
