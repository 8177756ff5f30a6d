"""What differs between stored bars and Alpaca's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_engine.ingest.drift import rechecked_of
from data_engine.market.bars import VALUES, make_table, to_micros
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.store.conflicts import conflicts_between, new_bars, still_conflicting, with_theirs

SERIES = Series("A", Dataset(Timeframe.parse("1Min")))
SEEN = datetime(2024, 7, 1, 12, 30, tzinfo=UTC)


def table(rows: dict[int, float]):
    times = np.array([to_micros(SEEN) + 60_000_000 * minute for minute in sorted(rows)], np.int64)
    prices = np.array([rows[minute] for minute in sorted(rows)], float)
    return make_table(times, [prices, prices + 1, prices - 1, prices, np.full(len(rows), 100.0), np.ones(len(rows)), prices])


bars = st.dictionaries(st.integers(0, 30), st.sampled_from([10.0, 11.0]), max_size=20)


@given(bars, bars)
def test_differences_are_those_that_two_dictionaries_have(old, new):
    expected = {}
    for minute in sorted(old.keys() | new.keys()):
        was, now = old.get(minute), new.get(minute)
        if was != now:
            change = "appeared" if was is None else "vanished" if now is None else "revised"
            fields = ("open", "high", "low", "close", "vwap") if change == "revised" else VALUES
            expected[SEEN + timedelta(minutes=minute)] = (change, fields, was, now)

    stored, fetched = table(old), table(new)
    conflicts, appeared = conflicts_between(stored, fetched, SEEN)
    found = rechecked_of(SERIES, stored, conflicts, new_bars(fetched, appeared))

    shown = {one.timestamp: (one.change, one.fields, one.old and one.old[0], one.new and one.new[0]) for one in found.differences}
    assert shown == expected
    changes = [change for change, *_ in expected.values()]
    assert found.counts == {kind: changes.count(kind) for kind in ("revised", "appeared", "vanished")}
    # With Alpaca's values and the new bars, the store has what Alpaca has, and nothing conflicts any more.
    theirs = with_theirs(stored, conflicts)
    assert theirs.num_rows + found.appeared == fetched.num_rows
    assert theirs.column("close").to_pylist() == [new[minute] for minute in sorted(old.keys() & new.keys())]
    assert still_conflicting(conflicts, theirs) == ()
    assert still_conflicting(conflicts, stored) == conflicts
