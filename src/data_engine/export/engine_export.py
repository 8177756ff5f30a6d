"""Export stored bars to the format of an engine: what a call asks for, what the store lacks of it, and the result."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.adjusted_bars import Adjuster, choose_road
from data_engine.errors import InputError
from data_engine.export.bar_export import ExportPlan, Source, plan_export, run_export
from data_engine.export.export_record import ExportRecord
from data_engine.export.format import Bars, FormatMaker
from data_engine.market.bars import from_micros
from data_engine.market.corporate_action import Action
from data_engine.market.dates import DateLike, any_span
from data_engine.market.resampling import Resampling
from data_engine.market.series import RAW, Adjustment, Dataset, Timeframe
from data_engine.market.session_hours import Hours
from data_engine.market.time_range import new_york_date
from data_engine.market.wording import and_more, dataset_options
from data_engine.read.bar_query import ReadOptions, parse_dataset, parse_symbols
from data_engine.read.completeness import incomplete_series, incomplete_text
from data_engine.read.holdings import Holdings
from data_engine.read.parquet_storage import ParquetStorage
from data_engine.store.bar_store import BarStore
from data_engine.store.history.past import instant_of_files

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
        notes: What is said of adjusted prices.

    Raises:
        InputError: If an argument cannot be used, or the folder has something else.
        StoreError: If there is no store, or corporate actions are not stored that the format needs.
    """

    def __init__(self, storage: ParquetStorage, call: ExportCall, *, now: datetime, store_folder: Path | None) -> None:
        storage.bars.check_exists()
        self._folder = checked_folder(call.folder, store_folder)
        self._storage, self._call, self._now = storage, call, instant_of_files(storage.files, now)
        self._dataset = parse_dataset(call.options)
        self._symbols = self._asked_symbols()
        bars = self._bars()
        self._record = ExportRecord(self._folder, self._identity(bars))
        self._format = _maker(call.to)(self._folder, bars)
        self.missing: str | None = None
        self.notes: list[str] = []
        self._source = Source(self._read, self._actions(bars), self._symbols or (), monthly=self._dataset.timeframe.intraday)
        self.plan: ExportPlan = plan_export(self._source, self._format, self._record)

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

    def _asked_symbols(self) -> tuple[str, ...] | None:
        call = self._call
        raw = replace(self._dataset, adjustment=RAW)
        stored = {symbol for dataset in (self._dataset, raw) for symbol in self._storage.bars.symbols(dataset)}
        wanted = None if call.symbols is None else parse_symbols(call.symbols)
        if not (stored if wanted is None else stored.intersection(wanted)):
            of_whom = "" if wanted is None else f" of {and_more(wanted, _NAMED)}"
            raise InputError(f"cannot export {self._dataset.name}: it has no bars{of_whom}; {self._remedy(raw)}")
        if wanted is None and call.options.get("index") is not None:
            return None
        return tuple(sorted(stored)) if wanted is None else wanted

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
        start = call.start
        if start is None:
            start, options["incomplete"] = self._first_day(), "ignore"
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = self._storage.batches(self._symbols, start, call.end, **options)
        texts = {type(one.message).__name__: str(one.message) for one in told}
        self.missing = texts.pop("IncompleteWarning", None) if call.start is not None else self._requested_gaps()
        self.notes = list(texts.values())
        return found

    def _first_day(self) -> date:
        """Return a New York day that no stored bar precedes."""
        store, raw = self._storage.bars, replace(self._dataset, adjustment=RAW)
        names: Sequence[str | None] = (None,) if self._symbols is None else self._symbols
        firsts = [
            one.period.start
            for dataset in {self._dataset, raw}
            for name in names
            for one in _first(store.partitions(dataset, name))
        ]
        return new_york_date(min(firsts, default=self._now))

    def _requested_gaps(self) -> str | None:
        """Return which symbols have no bars, miss a requested range or a counted file, as text."""
        span = any_span(None, self._call.end)
        store, wanted, dataset = self._storage.bars, self._symbols, self._read_dataset()
        store.coverage.requested.refresh()
        found = [one for one in incomplete_series(store, dataset, span, self._now) if wanted is None or one.symbol in wanted]
        texts = [incomplete_text(dataset.name, dataset_options(dataset), found)] if found else []
        if absent := sorted({*(wanted or ())}.difference(store.symbols(dataset), (one.symbol for one in found))):
            texts.append(f"{dataset.name} has no bars of {and_more(absent, _NAMED)}")
        return "; ".join(texts) or None

    def _read_dataset(self) -> Dataset:
        """Return the dataset whose files are read: adjusted prices may be computed from raw bars."""
        store = self._storage.bars
        symbols = store.symbols(replace(self._dataset, adjustment=RAW)) if self._symbols is None else self._symbols
        return choose_road(self._dataset, symbols, Holdings(store, tolerant=True).is_held, now=self._now).dataset

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
