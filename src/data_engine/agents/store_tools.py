"""The questions that an agent can ask of a store, each with a bounded answer: `StoreTools`.

An answer has what was found and always `complete`, the number of sessions by state, what is missing, and a digest. What is not
held whole is refused, unless the question says that an incomplete answer is wanted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from threading import Timer
from typing import Any

import pandas as pd

from data_engine.agents.scope import Scope, digest_of, plain_value, scope_of
from data_engine.agents.series_state import state_of_series
from data_engine.agents.sql_scope import check_sql
from data_engine.errors import InputError, StoreError
from data_engine.market.bar_frame import ATTRS_KEY
from data_engine.market.dates import any_span
from data_engine.market.series import Adjustment, Dataset
from data_engine.market.session_states import STATES
from data_engine.market.time_range import iso
from data_engine.market.wording import and_more, did_you_mean
from data_engine.read import duckdb_views
from data_engine.read.bar_query import ReadOptions
from data_engine.read.duckdb_views import connect, translate_errors, view_name
from data_engine.read.parquet_storage import ParquetStorage
from data_engine.read.statement import reading_statement
from data_engine.store.history.past import instant_of_files, stored_on
from data_engine.store.selection import DatasetFilter, select_series
from data_engine.verify.status import SeriesStatus, series_status
from data_engine.verify.symbol_history import symbol_history
from data_engine.verify.verify import verify

MOST_ROWS = 1000
"""The rows of an answer, at most."""

MOST_BARS = 2_000_000
"""The bars that are read for an answer, at most."""

_MOST_SERIES = 200

_MOST_BYTES = 2_000_000  # of the result of a query

_MOST_RANGES = 50

_SECONDS = 60  # of a query

_MEMORY = "2GB"


class StoreTools:
    """The questions about one store. Nothing is written.

    Args:
        storage: The store.
        clock: What returns the current instant, aware.
    """

    def __init__(self, storage: ParquetStorage, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._storage = storage
        self._clock = clock

    def held(self, symbols: list[str] | None = None, timeframe: str | None = None) -> dict[str, Any]:
        """List what the store holds: per series, the requested, covered, provisional and missing ranges and the number of bars.

        Args:
            symbols: Symbols such as AAPL. If omitted, all; at most 200 series are listed, with the latest 50 ranges of each kind.
            timeframe: Only series of this length of a bar, such as 1Min or 1Day.
        """
        now = self._clock()
        found = self._series(symbols, timeframe, now)
        whole = [one.to_json() for one in found[:_MOST_SERIES]]
        listed = [{name: _latest(value) for name, value in one.items()} for one in whole]
        truncated = len(found) > len(listed) or listed != whole
        return {**state_of_series(found), "instant": iso(now), "series": listed, "truncated": truncated}

    def sessions(
        self,
        symbols: list[str],
        start: str,
        end: str,
        timeframe: str = "1Min",
        feed: str | None = None,
        adjustment: str | None = None,
    ) -> dict[str, Any]:
        """Return the state of each session of each symbol: final, provisional, missing, suspect or unverified; and its bars.

        Args:
            symbols: Symbols such as AAPL.
            start: The first day, such as 2024-01-31.
            end: The last day, included.
            timeframe: The length of the stored bars.
            feed: The feed. If omitted, the consolidated tape.
            adjustment: The adjustment of the stored bars: raw (if omitted), or split, dividend or all for those that Alpaca
                adjusted. If bars computes adjusted prices, they rest on raw bars.
        """
        options = _as_stored(ReadOptions(timeframe=timeframe, feed=feed, adjustment=adjustment))
        scope = self._scope(symbols, start, end, options, allow_incomplete=True)
        frame = self._storage.sessions(symbols, start, end, timeframe=timeframe, feed=feed, adjustment=adjustment)
        scope.check_unchanged()
        found = Counter(frame["state"])
        shown = frame.head(MOST_ROWS)
        days = shown["session"].dt.strftime("%Y-%m-%d").tolist()
        answered = [None if at is pd.NaT else iso(at.to_pydatetime()) for at in shown["answered"]]
        parts = (shown["symbol"].tolist(), days, shown["state"].tolist(), shown["bars"].tolist(), answered)
        rows = [list(row) for row in zip(*parts, strict=True)]
        answer = {**scope.to_json(), "sessions": {name: found[name] for name in STATES}}
        columns = ["symbol", "session", "state", "bars", "answered"]
        return {**answer, "columns": columns, "rows": rows, "row_count": len(frame), "truncated": len(frame) > len(rows)}

    def bars(
        self,
        symbols: list[str],
        start: str,
        end: str,
        timeframe: str = "1Min",
        resample: str | None = None,
        session: str | None = None,
        feed: str | None = None,
        adjustment: str | None = None,
        allow_incomplete: bool = False,
        limit: int = MOST_ROWS,
    ) -> dict[str, Any]:
        """Return bars, the first 1,000 of the range at most. A range that is not held whole is refused.

        Args:
            symbols: Symbols such as AAPL.
            start: The first day, such as 2024-01-31, or an instant with its zone.
            end: The last day, included, or an instant, excluded.
            timeframe: The length of the stored bars, such as 1Min or 1Day.
            resample: Longer bars to compute from minutes, such as 15Min or 1Day.
            session: The hours: all, extended or regular.
            feed: The feed. If omitted, the consolidated tape.
            adjustment: The adjustment of the prices: raw (if omitted), split, dividend or all.
            allow_incomplete: Whether bars are wanted although some are missing. The answer says which.
            limit: The maximum number of rows, up to 1,000.
        """
        most = _checked_limit(limit)
        options = ReadOptions(timeframe=timeframe, feed=feed, adjustment=adjustment, resample=resample)
        if session is not None:
            options["session"] = session  # type: ignore[typeddict-item] # `BarQuery.parse` checks it
        scope = self._scope(symbols, start, end, options, allow_incomplete=allow_incomplete)
        if scope.bars > MOST_BARS:
            raise InputError(f"cannot read {scope.bars:,} bars for one answer; pass fewer symbols or days, or use the query tool")
        options["incomplete"] = "ignore"  # it has been judged
        frame = self._storage.load(symbols, start, end, **options)
        scope.check_unchanged()
        rows = frame.head(most).reset_index()
        values = [
            [row[0], iso(row[1].to_pydatetime()), *(float(value) for value in row[2:])] for row in rows.itertuples(index=False)
        ]
        answer = {**scope.to_json(), "sessions": frame.attrs[ATTRS_KEY]["sessions"], "files": frame.attrs[ATTRS_KEY]["files"]}
        found = {"columns": list(rows.columns), "rows": values, "row_count": len(frame), "truncated": len(frame) > len(values)}
        return {**answer, **found}

    def query(
        self,
        sql: str,
        start: str,
        end: str,
        symbols: list[str] | None = None,
        allow_incomplete: bool = False,
        limit: int = MOST_ROWS,
    ) -> dict[str, Any]:
        """Run one SELECT of DuckDB over the views bars_1min, bars_1day and so on, with the bars of some symbols and days only.

        A view has symbol, timestamp (the start of the bar), open, high, low, close, volume, trade_count, vwap. Symbols and days
        that are not held whole are refused, and so is SQL that names a symbol or a year outside of them.

        Args:
            sql: The statement.
            start: The first day of the bars, such as 2024-01-31.
            end: The last day, included.
            symbols: The symbols of the bars. If omitted, all of the datasets in the SQL.
            allow_incomplete: Whether a result is wanted although bars are missing. The answer says which.
            limit: The maximum number of rows, up to 1,000.
        """
        store, most = self._storage.bars, _checked_limit(limit)
        words = set(re.findall(r"\w+", sql.lower()))
        fetched = [dataset for dataset in duckdb_views.datasets(store) if not dataset.fill]
        named = [dataset for dataset in fetched if view_name(dataset).lower() in words]
        if not named:
            views = and_more(map(view_name, fetched), 20)
            raise InputError(f"cannot run the SQL: it names no view; the views are {views}")
        scopes = []
        for dataset in named:
            options = _as_stored(ReadOptions(timeframe=str(dataset.timeframe), feed=dataset.feed, adjustment=dataset.adjustment))
            names = symbols if symbols is not None else sorted(self._stored([dataset]))
            scopes.append(self._scope(names, start, end, options, allow_incomplete=allow_incomplete))
        span = scopes[0].query.span
        columns, rows = self._run(sql, scopes, most)
        for scope in scopes:
            scope.check_unchanged()
        shown = rows[:most]
        states = [scope.to_json() for scope in scopes]
        summed = {name: sum(scope.sessions[name] for scope in scopes) for name in scopes[0].sessions}
        return {
            **states[0],
            "complete": all(scope.missing is None for scope in scopes),
            "missing": ". ".join(scope.missing for scope in scopes if scope.missing) or None,
            "sessions": summed,
            "conflicting": sum(scope.conflicting for scope in scopes),
            "notes": list(dict.fromkeys(note for scope in scopes for note in scope.notes)),
            "digest": digest_of([store.coverage.read(one) for scope in scopes for one in scope.query.series], span, store.files),
            "scope": [state["scope"] for state in states],
            "columns": columns,
            "rows": shown,
            "truncated": len(rows) > len(shown),
        }

    def _run(self, sql: str, scopes: Sequence[Scope], limit: int) -> tuple[list[str], list[list[Any]]]:
        """Return the columns of a result, and one row more than *limit* if there are more."""
        span = scopes[0].query.span
        names = [view_name(scope.query.dataset) for scope in scopes]
        symbols = {symbol for scope in scopes for symbol in scope.query.symbols}
        import duckdb

        with connect(self._storage.bars, span, memory=_MEMORY) as connection, translate_errors(connection, names):
            for scope in scopes:
                duckdb_views.narrow(connection, scope.query.dataset, scope.query.symbols)
            timer = Timer(_SECONDS, connection.interrupt)
            timer.start()
            try:
                statement = reading_statement(connection, sql)
                check_sql(connection, sql, {name.lower() for name in names}, symbols, span)
                relation = connection.sql(statement)
                found = relation.limit(limit + 1).to_arrow_table()
                if found.nbytes > _MOST_BYTES:
                    raise InputError(
                        f"the result has {found.nbytes:,} bytes, and an answer at most {_MOST_BYTES:,}; select fewer rows"
                    )
                rows = connection.from_arrow(found).fetchall()
                return list(relation.columns), [[plain_value(value) for value in row] for row in rows]
            except duckdb.InterruptException:
                raise InputError(f"the SQL ran for {_SECONDS} seconds; pass fewer symbols or days, or simplify it") from None
            finally:
                timer.cancel()

    def findings(self, symbols: list[str] | None = None, timeframe: str | None = None, quick: bool = True) -> dict[str, Any]:
        """Check the store, and return what is wrong with it or unusual: inconsistencies first, at most 200.

        Args:
            symbols: Symbols such as AAPL. If omitted, all.
            timeframe: Only series of this length of a bar, such as 1Min or 1Day.
            quick: Whether to read only the metadata of files: no bar and no gap is judged then. A full check of many symbols
                takes minutes.
        """
        now = self._clock()
        series = self._series(symbols, timeframe, now)
        names = None if symbols is None else sorted({one.series.symbol for one in series})
        report = verify(self._storage.bars, DatasetFilter.parse(timeframe), names, now=now, quick=quick)
        found = [*report.inconsistencies, *report.warnings]
        return {
            **state_of_series(series),
            "instant": iso(now),
            "checked": "file metadata only" if quick else "all bars",
            "series_checked": report.series,
            "inconsistencies": len(report.inconsistencies),
            "warnings": len(report.warnings),
            "gaps": None if quick else report.gaps,
            "findings": [one.to_json() for one in found[:_MOST_SERIES]],
            "truncated": len(found) > _MOST_SERIES,
        }

    def history(
        self, symbols: list[str], start: str | None = None, end: str | None = None, timeframe: str | None = None
    ) -> dict[str, Any]:
        """Return what came, went and changed of the stored bars of some symbols, when, and by whom: the latest 1,000 commits.

        A commit's instant, passed as as_stored_on to another tool, is the store with this change and without later ones.

        Args:
            symbols: Symbols such as AAPL.
            start: The first day of the bars, such as 2024-01-31. If omitted, that of the first bar.
            end: The last day of the bars, included. If omitted, that of the last bar.
            timeframe: Only series of this length of a bar, such as 1Min or 1Day.
        """
        store, chosen = self._storage.bars, DatasetFilter.parse(timeframe)
        names = [name.upper() for name in symbols]
        found = symbol_history(store, chosen, names, any_span(start, end))
        if unknown := [name for name in names if name not in found.symbols]:
            raise InputError(f"no stored series of {and_more(unknown, 10)}{did_you_mean(unknown, self._stored())}")
        answer = found.to_json()
        unexplained = [one for one in found.beginnings if one.bars is None]
        earlier = f"what {len(unexplained)} series held before is not known: no record explains it" if unexplained else None
        return {
            "complete": not found.beginnings,
            "missing": "bars from before the history of the store" if found.beginnings and not earlier else earlier,
            "digest": digest_of(store.coverage.read(one) for one in select_series(store.coverage, chosen, names)),
            "instant": iso(self._clock()),
            **answer,
            "changes": answer["changes"][:MOST_ROWS],
            "truncated": len(answer["changes"]) > MOST_ROWS,
        }

    def as_of(self, when: str) -> StoreTools:
        """Return the questions about the store as it was.

        Args:
            when: An instant with its zone, a day (its end in New York), or the name of a snapshot.

        Raises:
            InputError: If it is none of these, in the future, or before the history of the store begins.
        """
        past = stored_on(self._storage.bars, when, now=self._clock())
        instant = instant_of_files(past.files, self._clock())
        return StoreTools(ParquetStorage(files=past.files), lambda: instant)

    @property
    def instant(self) -> datetime:
        """The instant by which answers are judged, UTC."""
        return self._clock()

    def _scope(self, symbols: Sequence[str], start: str, end: str, options: ReadOptions, *, allow_incomplete: bool) -> Scope:
        if not symbols:
            raise InputError("no symbols given; pass at least one, such as AAPL")
        judge = partial(self._judged, list(symbols), start, end, options.copy(), self._clock())
        scope = judge()
        if scope.missing is not None and not allow_incomplete:
            there = self._stored()
            meant = did_you_mean([name for name in scope.query.symbols if name not in there], there)
            raise StoreError(
                f"not held whole: {scope.missing}{meant}. Sessions: {scope.sessions}. Pass allow_incomplete for what there is"
            )
        return replace(scope, judge=judge)

    def _judged(self, symbols: list[str], start: str, end: str, options: ReadOptions, now: datetime) -> Scope:
        """Return what is held of a range; a symbol that the store does not know is missing even from a weekend."""
        scope = scope_of(self._storage.bars, symbols, start, end, options, now=now)
        there = self._stored()
        unknown = [name for name in scope.query.symbols if name not in there]
        if unknown and scope.missing is None:
            return replace(scope, missing=f"nothing is stored of {and_more(unknown, 10)}")
        return scope

    def _series(self, symbols: Sequence[str] | None, timeframe: str | None, now: datetime) -> list[SeriesStatus]:
        """Return the state of all series, or of those of some symbols.

        Raises:
            InputError: If there is none, or none of one of the symbols.
        """
        names = None if symbols is None else [name.upper() for name in symbols]
        found = list(series_status(self._storage.bars, DatasetFilter.parse(timeframe).fetched, names, now=now))
        there, length = {one.series.symbol for one in found}, f" with bars of {timeframe}" if timeframe else ""
        if unknown := [name for name in names or () if name not in there]:
            stored = self._stored()
            meant = did_you_mean([name for name in unknown if name not in stored], stored)
            raise InputError(f"no stored series of {and_more(unknown, 10)}{length}{meant}")
        if not found:
            raise InputError(f"no series is stored{length}" if names is None else "no symbols given; omit symbols for all")
        return found

    def _stored(self, datasets: Collection[Dataset] | None = None) -> set[str]:
        """Return the symbols of which some datasets have bars, an answer or a request; a request may have brought no bar.

        Args:
            datasets: The datasets. If None, all.
        """
        store = self._storage.bars
        store.coverage.requested.refresh()  # a run may have requested series since the server started
        bars, known = (datasets, datasets) if datasets is not None else (duckdb_views.datasets(store), store.coverage.datasets())
        return {symbol for one in bars for symbol in store.symbols(one)} | {
            series.symbol for one in known for series in store.coverage.series(one)
        }


def _as_stored(options: ReadOptions) -> ReadOptions:
    """Return options for the bars that are stored with an adjustment, never for prices computed from raw bars."""
    return options if Adjustment.parse(options.get("adjustment")).is_raw else {**options, "prices": "vendor"}


def _latest(value: Any) -> Any:
    """Return the last ranges of a list of them, or another value as it is."""
    return value[-_MOST_RANGES:] if isinstance(value, list) else value


def _checked_limit(limit: int) -> int:
    """Return the maximum number of rows of an answer.

    Raises:
        InputError: If it is not positive.
    """
    if limit < 1:
        raise InputError(f"cannot return {limit} rows; pass a limit from 1 to {MOST_ROWS:,}")
    return min(limit, MOST_ROWS)
