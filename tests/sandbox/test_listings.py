"""Tickers that are passed on: which security the server answers for, as Alpaca's documentation says of FB and META."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from data_engine.errors import InputError, MissingFileError
from data_engine.sandbox.listings import Answered, Listing, Listings

NOW = datetime(2024, 6, 3, 16, tzinfo=UTC)
LISTINGS = Listings(
    [
        Listing("FB", "FACEBOOK", None, date(2022, 6, 8)),
        Listing("META", "FUND", None, date(2022, 1, 28)),
        Listing("META", "FACEBOOK", date(2022, 6, 9)),
        Listing("METV", "FUND", date(2022, 1, 31)),
        Listing("S", "SPRINT", None, date(2020, 3, 31)),
        Listing("S", "SENTINEL", date(2021, 6, 30)),
        Listing("TWTR", "TWITTER", None, date(2022, 10, 27)),
    ]
)


@pytest.mark.parametrize(
    ("ticker", "asof", "security"),
    [
        ("META", None, "FACEBOOK"),
        ("META", date(2022, 1, 10), "FUND"),
        ("META", date(2022, 3, 1), None),  # the fund has another ticker, and nobody has this one
        ("FB", date(2022, 6, 6), "FACEBOOK"),
        ("FB", None, None),
        ("S", date(2020, 3, 31), "SPRINT"),
        ("S", date(2020, 12, 1), "SPRINT"),  # no longer there, and not taken yet
        ("S", None, "SENTINEL"),
        ("TWTR", None, "TWITTER"),
        ("AAPL", None, "AAPL"),
    ],
)
def test_a_ticker_is_that_of_its_owner_on_a_day(ticker: str, asof: date | None, security: str | None) -> None:
    assert LISTINGS.find(ticker, asof, NOW) == (None if security is None else Answered(security))


def test_earlier_bars_come_from_the_day_after_the_change_on() -> None:
    day = datetime(2022, 6, 9, 20, tzinfo=UTC)

    assert LISTINGS.find("META", None, day) == Answered("FACEBOOK", datetime(2022, 6, 9, 4, tzinfo=UTC))
    assert LISTINGS.find("META", None, datetime(2022, 6, 10, 12, tzinfo=UTC)) == Answered("FACEBOOK")
    assert LISTINGS.find("META", date(2030, 1, 1), datetime(2022, 1, 3, tzinfo=UTC)) == Answered("FUND"), (
        "nothing is known before"
    )


def test_listings_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "listings.csv"
    path.write_text("ticker,security,first,last\nS,SPRINT,,2020-03-31\nS,SENTINEL,2021-06-30,\n")
    assert Listings.read(path).find("S", date(2019, 1, 2), NOW) == Answered("SPRINT")

    path.write_text("ticker,security,first,last\nS,SPRINT,,March\n")
    with pytest.raises(InputError, match="March"):
        Listings.read(path)
    path.write_text("ticker,first,last\nS,,\n")
    with pytest.raises(InputError, match="security"):
        Listings.read(path)
    with pytest.raises(MissingFileError):
        Listings.read(tmp_path / "none.csv")
