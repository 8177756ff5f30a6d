"""Find the series of all that were members of an index at any time in a range: `series_ever`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.market.dates import DateLike, parse_span
from data_engine.market.series import Dataset, Timeframe
from data_engine.universe.member_series import MemberSeries

if TYPE_CHECKING:
    from data_engine.ingest.pipeline import IngestionPipeline


def series_ever(
    pipeline: IngestionPipeline,
    index_name: str,
    start: DateLike,
    end: DateLike | None = None,
    timeframe: object = "1Min",
    *,
    now: datetime,
    fetch: bool = True,
) -> tuple[list[str], dict[str, datetime]]:
    """Return the series of all that were members of an index in a range, for `IngestionPipeline.ingest_symbols`.

    A member that has left the index is meant as of its last day: ``S@2020-03-31``, unless the store has its series.

    Returns:
        The symbols, sorted, and the instants before which nothing of some of them is to be requested, since another security had
        the ticker.

    Args:
        pipeline: The pipeline.
        index_name: The name of the index.
        start: A New York calendar day, or an aware instant.
        end: A day (included) or an aware instant (excluded). If None, now.
        timeframe: The timeframe of the bars.
        now: The current instant.
        fetch: Whether to fetch the corporate actions of the members first, which tell of tickers that were passed on.

    Raises:
        UnknownIndexError: If there is no such index.
        InputError: If an argument cannot be used, or the range begins before the first list.
        DataEngineError: As `IngestionPipeline.ingest_symbols`.
    """
    dataset = Dataset(Timeframe.parse(timeframe), pipeline.adjustment, pipeline.feed)
    span = parse_span(start, end, now=now).range
    members = pipeline.metadata.memberships(index_name, span)
    if fetch and pipeline.actions:
        with pipeline.access.locked():  # what fails here is left to the run, which fetches what is not known yet
            pipeline.fetch_actions({dataset: dict.fromkeys(members, (span,))}, now)
    changes = ActionStore(pipeline.storage.files).changes_of
    series = MemberSeries(pipeline.storage.bars.coverage, (dataset,), changes, now)
    names = list(pipeline.metadata.member_series(index_name, span, series))
    return names, {name: since for name in names if (since := series.since(name)) is not None}
