"""Export stored bars to the format of an engine: what a call asks for, what the store lacks of it, and the result."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.adjusted_bars import Adjuster, Road, choose_road
from data_engine.errors import InputError
from data_engine.export.bar_export import ExportPlan, Source, plan_export, run_export
from data_engine.export.export_record import ExportRecord
from data_engine.export.format import Bars, FormatMaker
from data_engine.market.bars import from_micros
from data_engine.market.corporate_action import Action
from data_engine.market.dates import DateLike, any_span, parse_span
from data_engine.market.exchange_calendar import can_hold_bars
from data_engine.market.resampling import Resampling
from data_engine.market.series import RAW, Adjustment, Dataset, Series, Timeframe
from data_engine.market.session_hours import Hours
from data_engine.market.time_range import TimeRange, new_york_date
from data_engine.market.wording import and_more, dataset_options
from data_engine.read.bar_query import ReadOptions, parse_dataset, parse_symbols
from data_engine.read.completeness import incomplete_series, incomplete_text
from data_engine.read.holdings import Holdings
from data_engine.read.parquet_storage import ParquetStorage
from data_engine.store.bar_store import BarStore
from data_engine.store.history.past import instant_of_files
from data_engine.universe.index_store import MetadataStore
from data_engine.universe.member_series import MemberSeries

FORMATS = {
    "nautilus": "nautilus_catalog.NautilusCatalog",
    "qlib": "qlib_features.QlibFeatures",
    "zipline": "zipline_bundle.ZiplineBundle",
}
"""The formats, by the word that names them: a module and a class of it, which is a `Format`."""

_NAMED = 3


@dataclass(frozen=True, slots=True)
class ExportCall:
    """What a user asks to export.

    Attributes:
        to: The name of the format, of `FORMATS`.
        folder: The folder to write.
        symbols: The symbols. If None, all members of the index, or all symbols of the dataset.
        start: The first day or instant. If None, that of the first bar.
        end: The last day, included, or an instant. If None, now.
        options: The other arguments of `ParquetStorage.load`: dataset, session, resample, index.
        venue: The name of the venue, for engines that need one.
    """

    to: str
    folder: Path
    symbols: Sequence[str] | None
    start: DateLike | None
    end: DateLike | None
    options: ReadOptions
    venue: str


class EngineExport:
    """One export: planned when it is made, written by `run`.

    Args:
        storage: The store.
        call: What is asked for.
        now: The current instant, aware.
        store_folder: The folder of the store on this machine, whose files may be read as they were; None if it is elsewhere.

    Attributes:
        plan: What will be written.
        missing: What the call asks for and the store does not hold, as text; None if nothing is.
        notes: What is said of adjusted prices, and of symbols of the folder that are removed.

    Raises:
        InputError: If an argument cannot be used, or the folder has something else.
        StoreError: If there is no store, or corporate actions are not stored that the format needs.
    """

    def __init__(self, storage: ParquetStorage, call: ExportCall, *, now: datetime, store_folder: Path | None) -> None:
        storage.bars.check_exists()
        self._folder = checked_folder(call.folder, store_folder)
        self._storage, self._call, self._now = storage, call, instant_of_files(storage.files, now)
        self._dataset = parse_dataset(call.options)
        self._members: Mapping[str, Sequence[TimeRange]] = {}
        self._start = call.start
        self._symbols = self._asked_symbols() if call.options.get("index") is None else self._asked_members()
        self._road = self._choose_road()
        bars = self._bars()
        self._record = ExportRecord(self._folder, self._identity(bars))
        self._format = _maker(call.to)(self._folder, bars)
        self.missing: str | None = None
        self.notes: list[str] = []
        self._source = Source(
            self._read,
            self._actions(bars),
            self._symbols,
            monthly=self._dataset.timeframe.intraday,
            whole=call.symbols is None and call.options.get("index") is None,
            prices=self._road.prices,
        )
        self.plan: ExportPlan = plan_export(self._source, self._format, self._record)
        self.notes += self._removals()

    @property
    def columns(self) -> Sequence[str]:
        """The columns of bars that the format has."""
        return self._format.columns

    def run(self) -> None:
        """Write the export.

        Raises:
            StoreError: If the bars changed since the plan was made, or a file cannot be written.
        """
        run_export(self.plan, self._source, self._format, self._record, self._folder)

    def _asked_symbols(self) -> tuple[str, ...]:
        call = self._call
        stored = self._stored()
        wanted = None if call.symbols is None else parse_symbols(call.symbols)
        if not (stored if wanted is None else stored.intersection(wanted)):
            raise self._no_bars("" if wanted is None else f" of {and_more(wanted, _NAMED)}")
        symbols = tuple(sorted(stored)) if wanted is None else wanted
        if self._start is None:
            self._start = self._first_day(symbols)
        return symbols

    def _asked_members(self) -> tuple[str, ...]:
        """Return the series of the members of the index in the range, which begins with the first bar of any member."""
        index, call = str(self._call.options.get("index")), self._call
        indices = MetadataStore(files=self._storage.files)
        possible = (self._dataset, replace(self._dataset, adjustment=RAW))
        series = MemberSeries(self._storage.bars.coverage, possible, ActionStore(self._storage.files).changes_of, self._now)

        def members(start: DateLike) -> Mapping[str, Sequence[TimeRange]]:
            return indices.member_series(index, parse_span(start, call.end, now=self._now).range, series)

        if self._start is None:
            listed = [event.day for event in indices.history(index)[:1]]
            ever = members(listed[0]) if listed else {}
            if not self._stored().intersection(ever):
                raise self._no_bars(f" of the members of {index}")
            self._start = max(*listed, self._first_day(tuple(ever)))  # before, the members are unknown
        self._members = members(self._start)
        return tuple(self._members)

    def _stored(self) -> set[str]:
        datasets = (self._dataset, replace(self._dataset, adjustment=RAW))
        return {symbol for dataset in datasets for symbol in self._storage.bars.symbols(dataset)}

    def _no_bars(self, of_whom: str) -> InputError:
        raw = replace(self._dataset, adjustment=RAW)
        return InputError(f"cannot export {self._dataset.name}: it has no bars{of_whom}; {self._remedy(raw)}")

    def _remedy(self, raw: Dataset) -> str:
        """Return what to do if a dataset has no bars: they may be computed from stored minutes."""
        timeframe, minute = raw.timeframe, Timeframe.parse("1Min")
        computed = timeframe != minute and timeframe.unit not in ("Week", "Month")
        if computed and self._storage.bars.symbols(replace(raw, timeframe=minute)):
            return f"pass --resample {timeframe} instead of --timeframe to compute them from stored minutes"
        return "run `data-engine status`"

    def _bars(self) -> Bars:
        options, dataset = self._call.options, self._dataset
        resample = options.get("resample")
        hours = Hours.parse(options.get("session") or ("all" if resample is None else "regular"))
        resampling = None if resample is None else Resampling.parse(resample, hours, dataset.timeframe)
        return Bars(dataset, hours, resampling, self._call.venue, ActionStore(self._storage.files))

    def _identity(self, bars: Bars) -> dict[str, Any]:
        """Return what must not differ between two exports to one folder."""
        identity = {"format": self._call.to, "dataset": bars.dataset.name, "session": bars.hours.value, "bars": str(bars)}
        return {**identity, "venue": bars.venue} if self._call.to == "nautilus" else identity

    def _read(self) -> Iterator[tuple[str, pa.Table]]:
        """Read the bars; note what the store lacks of them."""
        call, options = self._call, self._call.options.copy()
        options["columns"] = list(self._format.columns)
        if call.start is None:
            options["incomplete"] = "ignore"
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = self._storage.batches(self._symbols, self._start, call.end, **options)
        texts = {type(one.message).__name__: str(one.message) for one in told}
        self.missing = texts.pop("IncompleteWarning", None) if call.start is not None else self._requested_gaps()
        self.notes = list(texts.values())
        return found

    def _first_day(self, symbols: Sequence[str]) -> date:
        """Return a New York day that no stored bar of some symbols precedes."""
        store, raw = self._storage.bars, replace(self._dataset, adjustment=RAW)
        firsts = [
            one.period.start
            for dataset in {self._dataset, raw}
            for symbol in symbols
            for one in _first(store.partitions(dataset, symbol))
        ]
        return new_york_date(min(firsts, default=self._now))

    def _requested_gaps(self) -> str | None:
        """Return which symbols have no bars, miss a requested range or a counted file, as text."""
        span = any_span(self._start if self._members else None, self._call.end)
        store, wanted, dataset = self._storage.bars, {*self._symbols}, self._road.dataset
        store.coverage.requested.refresh()
        every = (one for one in incomplete_series(store, dataset, span, self._now) if one.symbol in wanted)
        found = [one for one in every if one.damaged or self._lacks(one.symbol)]
        texts = [incomplete_text(dataset.name, dataset_options(dataset), found)] if found else []
        if absent := sorted(wanted.difference(store.symbols(dataset), (one.symbol for one in found))):
            texts.append(f"{dataset.name} has no bars of {and_more(absent, _NAMED)}")
        return "; ".join(texts) or None

    def _lacks(self, symbol: str) -> bool:
        """Return whether a series of which a requested range is missing misses it in its membership."""
        if not self._members:
            return True
        known = self._storage.bars.coverage.read(Series(symbol, self._road.dataset), fingerprints=False)
        parts = (part for span in self._members[symbol] for part in known.incomplete(span, self._now))
        return any(can_hold_bars(part, self._road.dataset) for part in parts)

    def _choose_road(self) -> Road:
        """Return whence the prices come: adjusted ones may be computed from raw bars."""
        holdings = Holdings(self._storage.bars, tolerant=True)
        return choose_road(self._dataset, self._symbols, holdings.is_held, now=self._now)

    def _removals(self) -> Iterator[str]:
        """Yield which symbols of the folder are removed, and why."""
        plan, folder = self.plan, self._folder
        if plan.broken:
            names = and_more(plan.broken, _NAMED)
            yield f"{folder} has unfinished or changed files of {names}; the export removes them: export these symbols again"
        if gone := [symbol for symbol in plan.ended if symbol not in plan.broken]:
            yield f"no bars of {and_more(gone, _NAMED)} are to be exported; the export removes what {folder} has of them"

    def _actions(self, bars: Bars) -> Any:
        if not self._format.with_actions:
            return lambda *_: ()
        return partial(_actions_of, self._storage.bars, bars.dataset, new_york_date(self._now))


def _actions_of(store: BarStore, dataset: Dataset, today: date, symbol: str, first: int, last: int) -> Sequence[Action]:
    until = min(new_york_date(from_micros(last)), today)
    adjuster = Adjuster(store, dataset, Adjustment("all"), until, today=today)
    return adjuster.effective_actions(symbol, from_micros(first))


def _first(found: Iterator[Any]) -> Iterator[Any]:
    one = next(found, None)
    if one is not None:
        yield one


def _maker(to: str) -> FormatMaker:
    if to not in FORMATS:
        raise InputError(f"cannot export to {to!r}; choose one of {', '.join(FORMATS)}")
    module, name = FORMATS[to].split(".")
    made: FormatMaker = getattr(import_module(f"data_engine.export.{module}"), name)
    return made


def checked_folder(folder: Path, store: Path | None) -> Path:
    """Return the whole path of a folder that is neither in the store nor around it.

    Raises:
        InputError: If it is.
    """
    whole = folder.expanduser().resolve()
    if store is not None and (whole.is_relative_to(store.resolve()) or store.resolve().is_relative_to(whole)):
        raise InputError(f"cannot export to {folder}: the store is there; pass a folder elsewhere")
    return whole
