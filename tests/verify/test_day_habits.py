"""Daily bars against each other: copies of the day before, no volume, volumes of another order; and one line for many."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from data_engine.market.bars import VALUES, make_table, to_micros
from data_engine.market.exchange_calendar import sessions
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import new_york_midnight
from data_engine.verify.day_habits import compare_days
from data_engine.verify.file_bars import FileBars
from data_engine.verify.findings import Finding
from data_engine.verify.whole_datasets import of_whole_dataset

DAYS = Dataset(Timeframe.parse("1Day"))
A = Series("A", DAYS)
SESSIONS = list(sessions(date(2023, 1, 3), date(2023, 12, 29)))


def rows(*, trades: bool = True) -> dict[str, np.ndarray]:
    """Return a year of daily bars that never repeat."""
    rng = np.random.default_rng(9)
    close = 50 + np.cumsum(rng.normal(0, 0.4, len(SESSIONS)))
    volume = np.floor(rng.lognormal(13, 0.6, len(SESSIONS)))
    counts = np.floor(volume / rng.uniform(60, 140, len(SESSIONS))) if trades else np.zeros(len(SESSIONS))
    return dict(zip(VALUES, (close - 0.1, close + 0.5, close - 0.6, close, volume, counts, close), strict=True))


def codes(values: dict[str, np.ndarray]) -> dict[str, str]:
    times = np.array([to_micros(new_york_midnight(day)) for day in SESSIONS], np.int64)
    table = make_table(times, [values[name] for name in VALUES])
    files = [FileBars.of(part, DAYS) for part in (table.slice(0, 100), table.slice(100))]
    return {finding.code: finding.message for finding in compare_days(A, files)}


@pytest.mark.parametrize("trades", [True, False])
def test_healthy_days_are_not_named(trades):
    assert codes(rows(trades=trades)) == {}


def test_a_day_that_equals_the_one_before_is_named():
    values = rows()
    for column in values.values():
        column[100] = column[99]
    found = codes(values)

    assert set(found) == {"session_repeated"}
    assert f"{SESSIONS[100]} equals {SESSIONS[99]}" in found["session_repeated"]


def test_a_price_that_stays_is_no_copy():
    values = rows()
    for name in VALUES[:4]:
        values[name][100] = values[name][99]

    assert codes(values) == {}


@pytest.mark.parametrize("trades", [True, False])
@pytest.mark.parametrize(("factor", "length"), [(1000.0, 5), (0.0, 5), (0.0, 1), (1000.0, 60)])
def test_volumes_of_another_order_are_named(factor, length, trades):
    values = rows(trades=trades)
    values["volume"][100 : 100 + length] *= factor
    found = codes(values)

    assert set(found) == {"volume_unusual"}
    assert str(SESSIONS[100]) in found["volume_unusual"]


def test_a_series_that_often_has_no_volume_is_not_named():
    values = rows()
    values["volume"][::3] = 0.0

    assert codes(values) == {}


def test_what_most_series_have_in_common_is_one_finding():
    ours = [Finding("volume_unusual", "no volume", Series(f"S{number}", DAYS)) for number in range(30)]
    other = Finding("price_jump", "from 1 to 2", A)

    (kept, joined) = of_whole_dataset(DAYS, [*ours, other], 40)
    assert kept == other
    assert (joined.code, joined.series) == ("volume_unusual", None)
    assert "30 of 40 series (S0, S1, S2 and 27 more)" in joined.message
    assert of_whole_dataset(DAYS, [*ours, other], 61) == [*ours, other]
    assert of_whole_dataset(DAYS, ours[:19], 19) == ours[:19]
