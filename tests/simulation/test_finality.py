"""The engine's rule of finality is that of the contract, by a calendar written down by hand."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from data_engine.market.finality import final_before
from data_engine.market.series import Dataset, Timeframe

from .finality import final_by_calendar
from .market import instant, micros


@pytest.mark.parametrize("timeframe", ["1Min", "30Min", "7Hour", "8Hour", "1Day", "1Week", "1Month", "3Month"])
def test_bars_are_final_from_ten_on_the_next_session(timeframe: str) -> None:
    draw, dataset = random.Random(timeframe), Dataset(Timeframe.parse(timeframe))
    begin = datetime(2023, 11, 1, tzinfo=UTC)
    for _ in range(300):
        now = begin + timedelta(minutes=draw.randrange(3 * 365 * 1440))

        assert final_before(dataset, now) == instant(final_by_calendar(dataset.timeframe, micros(now))), now
