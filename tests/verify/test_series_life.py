"""Series that begin late or end early though covered, and what explains it: actions, new listings, other datasets."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.market.bars import VALUES, make_table, to_micros
from data_engine.market.corporate_action import decode
from data_engine.market.exchange_calendar import sessions
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import TimeRange, new_york_days, new_york_midnight
from data_engine.sandbox import Replay, Sandbox
from data_engine.store.bar_store import BarStore
from data_engine.store.local_files import LocalFiles
from data_engine.store.selection import DatasetFilter
from data_engine.verify.findings import Finding
from data_engine.verify.verify import verify
from real_data import real
from running import pipeline_of

from .damages import FIRST, LAST, SESSIONS, Bars
from .test_damages import DAYS, MINUTES, NOW, made_up

WHOLE = (new_york_days(FIRST, LAST),)


@pytest.fixture
def storage(tmp_path: Path) -> BarStore:
    return BarStore(LocalFiles(tmp_path))


def put(storage: BarStore, series: Series, bars: Bars, covered: tuple[TimeRange, ...] = WHOLE) -> None:
    storage.add(series, make_table(bars.times, [bars.columns[name] for name in VALUES]))
    storage.coverage.update(series, lambda known: replace(known, wanted=covered, covered=covered))


def daily(days: list[date], symbol_price: float = 20.0) -> Bars:
    rng = np.random.default_rng(1)
    price = symbol_price + np.cumsum(rng.normal(0, 0.1, len(days)))
    times = np.array([to_micros(new_york_midnight(day)) for day in days], np.int64)
    columns = (price, price + 0.3, price - 0.3, price, np.full(len(days), 9e5), np.full(len(days), 9e3), price)
    return Bars(times, dict(zip(VALUES, columns, strict=True)))


def ends(storage: BarStore) -> list[tuple[str, str]]:
    found: list[Finding] = verify(storage, DatasetFilter(), now=NOW).findings
    assert {one.code for one in found} <= {"series_begins_late", "series_ends_early", "ticker_reassigned"}
    return sorted((one.series.dataset.name, one.code) for one in found if one.series)


@pytest.mark.parametrize(("left", "codes"), [(5, []), (6, ["series_ends_early"]), (30, ["series_ends_early"])])
def test_a_series_of_days_that_stops_though_covered_is_named(storage, left, codes):
    put(storage, Series("A", DAYS), daily(SESSIONS[:-left]))

    assert ends(storage) == [("equities_1day", code) for code in codes]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("name_change", {"old_symbol": "A", "new_symbol": "B"}),
        ("cash_merger", {"acquiree_symbol": "A", "rate": 20.0}),
        ("stock_merger", {"acquiree_symbol": "A", "acquirer_symbol": "B"}),
        ("redemption", {"symbol": "A", "rate": 20.0}),
        ("worthless_removal", {"symbol": "A"}),
    ],
)
@pytest.mark.parametrize(("shift", "explained"), [(0, True), (-25, False)])
def test_an_action_near_the_end_explains_it(storage, kind, fields, shift, explained):
    put(storage, Series("A", DAYS), daily(SESSIONS[:40]))
    day = SESSIONS[40 + shift].isoformat()
    action = decode(kind, {"id": "1", "process_date": day, **fields})
    ActionStore(storage.files).update("A", lambda known: replace(known, actions=(action,)))

    codes = [] if explained else ["series_ends_early", "ticker_reassigned"]  # bars of weeks after the action are another's
    assert ends(storage) == [("equities_1day", code) for code in codes]


def test_a_dividend_does_not_explain_an_end(storage):
    put(storage, Series("A", DAYS), daily(SESSIONS[:40]))
    day = SESSIONS[40].isoformat()
    action = decode("cash_dividend", {"id": "1", "symbol": "A", "rate": 0.1, "ex_date": day, "process_date": day})
    ActionStore(storage.files).update("A", lambda known: replace(known, actions=(action,)))

    assert ends(storage) == [("equities_1day", "series_ends_early")]


def test_a_series_that_seldom_trades_may_stop(storage):
    put(storage, Series("A", DAYS), daily(SESSIONS[:-8:4]))

    assert ends(storage) == []


def test_a_new_listing_opens_late_and_a_cut_series_does_not(storage):
    bars = made_up(3)
    late = bars.take(bars.days(SESSIONS[20], LAST))
    opening = late.take(~late.days(SESSIONS[20], SESSIONS[20]) | (np.arange(late.times.size) > 400))
    put(storage, Series("CUT", MINUTES), late)
    put(storage, Series("LISTED", MINUTES), opening)
    put(storage, Series("DAYS", DAYS), daily(SESSIONS[20:]))

    assert [(one.series.symbol, one.code) for one in verify(storage, DatasetFilter(), now=NOW).findings if one.series] == [
        ("CUT", "series_begins_late")
    ]


def test_a_spin_off_begins_a_series(storage):
    bars = made_up(3)
    put(storage, Series("B", MINUTES), bars.take(bars.days(SESSIONS[20], LAST)))
    day = SESSIONS[20].isoformat()
    record = {"id": "1", "source_symbol": "A", "new_symbol": "B", "source_rate": 1, "new_rate": 1}
    action = decode("spin_off", {**record, "ex_date": day, "process_date": day})
    ActionStore(storage.files).update("B", lambda known: replace(known, actions=(action,)))

    assert ends(storage) == []


def test_before_alpacas_history_there_is_nothing_to_miss(storage):
    days = list(sessions(date(2016, 1, 4), date(2016, 3, 31)))
    covered = (new_york_days(date(2015, 1, 2), date(2016, 3, 31)),)
    put(storage, Series("A", DAYS), daily(days), covered)

    assert ends(storage) == []


def test_another_dataset_of_the_symbol_is_evidence(storage):
    bars = made_up(3)
    put(storage, Series("A", MINUTES), bars.take(bars.days(SESSIONS[3], SESSIONS[-5])))
    rows = daily(SESSIONS)
    put(storage, Series("A", DAYS), rows)
    found = [one for one in verify(storage, DatasetFilter(), now=NOW).findings if one.code.startswith("series_")]

    assert [(one.series.dataset.name, one.code) for one in found if one.series] == [
        ("equities_1min", "series_ends_early"),
        ("equities_1min", "series_begins_late"),
    ]
    assert all("equities_1day has bars" in one.message for one in found)


def test_a_real_symbol_that_was_delisted_and_stayed_covered_is_named(tmp_path):
    """JUNO was bought in March 2018; the store holds it until the 20th of April."""
    path = real("minute/unknownvendor_rth_10sym_2018_ENDLABEL.parquet")
    with Sandbox(Replay(path, end_label=True), gzip_level=0) as sandbox:
        pipeline_of(sandbox, tmp_path).ingest_symbols(["JUNO", "GE"], "2018-02-16", "2018-04-20")
    found = verify(BarStore(LocalFiles(tmp_path)), DatasetFilter(), now=NOW).findings
    (end,) = [one for one in found if one.code == "series_ends_early"]

    assert end.series == Series("JUNO", Dataset(Timeframe.parse("1Min")))
    assert "2018-03-05" in end.message
    assert "33 sessions" in end.message
