"""The parts that messages share."""

from __future__ import annotations

import pytest

from data_engine.market.series import Adjustment, Dataset, Feed, Timeframe
from data_engine.market.wording import and_more, dataset_options, plural


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, ""), (1, "A"), (3, "A, B, C"), (4, "A, B, C and 1 more days"), (5, "A, B, C and 2 more days")],
)
def test_a_long_list_is_shortened_and_counted(count: int, text: str) -> None:
    assert and_more("ABCDE"[:count], 3, "days") == text


def test_another_separator() -> None:
    assert and_more(range(1003), 2, separator=" ") == "0 1 and 1,001 more"


def test_a_count_has_its_noun() -> None:
    assert [plural(count, "request") for count in (0, 1, 2000)] == ["0 requests", "1 request", "2,000 requests"]
    assert plural(2, "inconsistency", "inconsistencies") == "2 inconsistencies"


def test_options_name_what_is_no_default() -> None:
    minutes = Dataset(Timeframe.parse("1Min"), Adjustment.parse("raw"), Feed.SIP)
    days = Dataset(Timeframe.parse("1Day"), Adjustment.parse("split"), Feed.IEX)

    assert dataset_options(minutes) == ""
    assert dataset_options(days) == " --timeframe 1Day --adjustment split --feed iex"
