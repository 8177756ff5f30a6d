"""The members of an index are the companies of then: a ticker that was passed on is not the series of its next owner.

S was SPRINT's until 2020-03-31 and is SENTINEL's since 2021-06-30; the server answers as of a day, and its file is the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from data_engine import MetadataStore, ParquetStorage
from data_engine.corporate_actions.ticker_changes import TickerChange
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.symbol import asof_day, ticker_of
from data_engine.market.time_range import TimeRange, new_york_date, new_york_days, new_york_midnight
from data_engine.sandbox import Announcements, Listing, Listings, Replay, Sandbox
from data_engine.store.coverage import Coverage
from data_engine.store.coverage_store import CoverageStore
from data_engine.store.local_files import LocalFiles
from data_engine.universe.member_series import MemberSeries
from data_engine.universe.membership import FOREVER
from running import here, rows, write_minutes

SPRINT = [date(2020, 3, day) for day in (26, 27, 30, 31)]
SENTINEL = [date(2021, 6, 30), date(2021, 7, 1), date(2021, 7, 2)]
LISTINGS = Listings([Listing("S", "SPRINT", None, SPRINT[-1]), Listing("S", "SENTINEL", SENTINEL[0])])
MERGER = {
    "acquiree_symbol": "S",
    "acquirer_symbol": "TMUS",
    "acquiree_rate": 1,
    "acquirer_rate": 0.1,
    "effective_date": "2020-04-01",
    "process_date": "2020-04-01",
}
HISTORY = "date,action,symbol\n2020-03-02,added,S\n2020-03-02,added,TMUS\n2020-03-31,removed,S\n"
BACK = "2021-07-01,added,S\n"
EVER = ("ingest", "--index", "big", "--ever", "--start", "2020-03-02", "--end", "2021-07-02")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "store"


def serve(tmp_path: Path, *, told: bool) -> Sandbox:
    sprint = write_minutes(tmp_path / "sprint.parquet", ["SPRINT"], SPRINT)
    others = write_minutes(tmp_path / "others.parquet", ["SENTINEL"], SENTINEL, shift=100.0)
    tmus = write_minutes(tmp_path / "tmus.parquet", ["TMUS"], [*SPRINT, *SENTINEL], shift=500.0)
    return Sandbox(Replay([sprint, others, tmus]), listings=LISTINGS, actions=Announcements({"stock_mergers": [MERGER] * told}))


def index(base: Path, text: str) -> None:
    changes, members = base.parent / "changes.csv", base.parent / "members.csv"
    changes.write_text(text)
    members.write_text("Symbol\nTMUS\nS\n" if text.endswith(BACK) else "Symbol\nTMUS\n")
    MetadataStore(base).import_history("big", changes, members=members, as_of="2021-07-02")


@pytest.mark.parametrize("told", [True, False], ids=["the-merger-is-known", "nothing-is-known"])
def test_a_past_member_is_asked_as_of_its_last_day_and_read_as_its_own_series(tmp_path: Path, base: Path, told: bool) -> None:
    index(base, HISTORY)
    last = "2020-03-31" if told else "2020-03-30"
    with serve(tmp_path, told=told) as server:
        present = here("ingest", "S", "--start", "2021-06-30", "--end", "2021-07-02", "--base-path", base, url=server.url)
        assert present.code == 0
        ran = here(*EVER, "--json", "--base-path", base, url=server.url)
        assert (ran.code, ran.json["successful"]) == (0, [f"S@{last}", "TMUS"])
        asked = [one.query.get("asof") for one in server.requests if one.query.get("symbols") == "S" and "timeframe" in one.query]
        assert asked == [None, last]

        frame = ParquetStorage(base).load(index="big", start="2020-03-02", end="2021-07-02", incomplete="raise")
        days = frame.reset_index().groupby("symbol")["timestamp"].agg(lambda times: sorted({time.date() for time in times}))
        assert days.to_dict() == {f"S@{last}": SPRINT[:3], "TMUS": [*SPRINT, *SENTINEL]}  # it left on the 31st
        truth = {row[1] for row in rows(base) if row[0] == f"S@{last}" and row[2] < 150}
        assert {int(time.timestamp() * 1e6) for _, time in frame.loc[[f"S@{last}"]].index} <= truth
        only = ParquetStorage(base).load("S", index="big", start="2020-03-02", end="2021-07-02")
        assert set(only.index.get_level_values("symbol")) == {f"S@{last}"}

        server.forget()
        again = here(*EVER, "--json", "--base-path", base, url=server.url)
        assert (again.json["successful"], again.json["requests"]) == ([f"S@{last}", "TMUS"], 0)
    status = here("status", "--index", "big", "--json", "--base-path", base, env={}).json["index"]["datasets"]
    assert [(one["former_members"], one["former_without_bars"]) for one in status] == [(1, [])]


def test_two_members_of_one_ticker_are_two_series(tmp_path: Path, base: Path) -> None:
    index(base, HISTORY + BACK)
    with serve(tmp_path, told=True) as server:
        ran = here(*EVER, "--json", "--base-path", base, url=server.url)
        assert (ran.code, ran.json["successful"]) == (0, ["S", "S@2020-03-31", "TMUS"])
    frame = ParquetStorage(base).load(index="big", start="2020-03-02", end="2021-07-02", columns="close", incomplete="raise")
    closes = frame["close"].groupby(["symbol", frame.index.get_level_values("timestamp").date]).first()
    assert closes["S@2020-03-31"].index.tolist() == SPRINT[:3]
    assert closes["S"].index.tolist() == SENTINEL[1:]
    assert closes["S@2020-03-31"].max() < 150 < closes["S"].min()


def test_a_plan_tells_of_the_same_series_and_sends_nothing(tmp_path: Path, base: Path) -> None:
    index(base, HISTORY)
    with serve(tmp_path, told=True) as server:
        plan = here(*EVER, "--dry-run", "--json", "--base-path", base, url=server.url)
        assert {symbol for task in plan.json["tasks"] for symbol in task["symbols"]} == {"S@2020-03-30", "TMUS"}
        assert server.requests == []


# ---------------------------------------------------------------------------------------------------------------- the rule alone

DAYS = Dataset(Timeframe(1, "Day"))
NOW = datetime(2024, 6, 3, 16, tzinfo=UTC)


def span(first: str, last: str | None) -> TimeRange:
    begin = date.fromisoformat(first)
    if last is None:
        return TimeRange(new_york_midnight(begin), FOREVER)
    return new_york_days(begin, date.fromisoformat(last))


def renamed(old: str, new: str, day: str) -> TickerChange:
    return TickerChange(old, new, date.fromisoformat(day))


FB = [renamed("FB", "META", "2022-06-09")]
SWAP = [renamed("META", "METV", "2022-01-31"), *FB]
AWAY = [renamed("A", "B", "2022-03-01"), renamed("B", "A", "2022-09-01")]
GONE = [TickerChange("S", None, date(2020, 4, 2), "stock_merger", date(2020, 4, 1), "TMUS")]


@pytest.mark.parametrize(
    ("symbol", "members", "changes", "stored", "series"),
    [
        ("IBM", [("2020-01-02", None)], [], {}, {"IBM": 1}),
        ("IBM", [("2020-01-02", "2021-12-31")], [], {}, {"IBM@2021-12-31": 1}),
        ("IBM", [("2020-01-02", "2021-12-31")], [], {"IBM": "2016-01-04"}, {"IBM": 1}),
        ("IBM", [("2020-01-02", "2021-12-31")], [], {"IBM": "2023-01-04"}, {"IBM@2021-12-31": 1}),
        ("IBM", [("2020-01-02", "2021-12-31")], [], {"IBM@2022-05-02": "2016-01-04"}, {"IBM@2022-05-02": 1}),
        ("IBM", [("2020-01-02", "2021-12-31")], [], {"IBM@2020-05-01": "2016-01-04"}, {"IBM@2021-12-31": 1}),
        ("IBM", [("2017-01-03", "2018-12-31"), ("2020-01-02", None)], [], {}, {"IBM": 2}),
        ("IBM", [("2017-01-03", "2018-12-31"), ("2020-01-02", "2020-12-31")], [], {}, {"IBM@2020-12-31": 2}),
        ("FB", [("2020-01-02", "2022-06-08")], FB, {}, {"FB@2022-06-08": 1}),
        ("META", [("2022-06-09", None)], SWAP, {}, {"META": 1}),
        ("META", [("2021-07-01", None)], SWAP, {}, {"META": 1, "META@2022-01-30": 1}),
        ("A", [("2020-01-02", None)], AWAY, {}, {"A": 1}),
        ("S", [("2020-01-02", "2020-04-06")], GONE, {}, {"S@2020-03-31": 1}),
        ("S", [("2020-01-02", "2020-03-30")], GONE, {"S": "2016-01-04"}, {"S": 1}),
        ("S", [("2020-01-02", "2020-03-30")], GONE, {"S": "2021-06-30"}, {"S@2020-03-31": 1}),
        ("S@2020-03-31", [("2020-01-02", "2020-03-30")], GONE, {}, {"S@2020-03-31": 1}),
    ],
)
def test_a_member_is_the_series_of_its_company(
    tmp_path: Path,
    symbol: str,
    members: Sequence[tuple[str, str | None]],
    changes: Sequence[TickerChange],
    stored: dict[str, str],
    series: dict[str, int],
) -> None:
    """`stored` has the first bars of stored series; they were begun on that day, or before the change of the ticker."""
    coverage = CoverageStore(LocalFiles(tmp_path))
    for name, first in stored.items():
        begun = new_york_midnight(date.fromisoformat(first))
        known: dict[str, Any] = {"first_bar": begun, "wanted": (TimeRange(begun, NOW),), "begun": begun}
        coverage.update(Series(name, DAYS), lambda old, known=known: Coverage(old.series, **known))
    found = MemberSeries(coverage, (DAYS,), lambda ticker: [one for one in changes if ticker in (one.old, one.new)], NOW).of(
        {symbol: [span(*piece) for piece in members]}
    )

    assert {name: len(ranges) for name, ranges in found.items()} == series


# ------------------------------------------------------------------------------- between a rename and the day the list follows it

LAGS = {
    "the-list-follows-days-later": (FB, {"2022-01-03": "FB AAPL", "2022-06-21": "META AAPL"}),
    "both-names-for-some-days": (FB, {"2022-01-03": "FB AAPL", "2022-06-14": "FB META AAPL", "2022-06-21": "META AAPL"}),
    "the-company-leaves-later": (FB, {"2022-01-03": "FB AAPL", "2022-06-21": "META AAPL", "2023-01-05": "AAPL"}),
    "the-next-name-never-comes": (FB, {"2022-01-03": "FB AAPL", "2022-06-21": "AAPL"}),
    "renamed-twice-meanwhile": (
        [*FB, renamed("META", "METB", "2022-06-15")],
        {"2022-01-03": "FB AAPL", "2022-06-21": "METB AAPL"},
    ),
    "renamed-and-back-meanwhile": (
        [*FB, renamed("META", "FB", "2022-06-15"), renamed("FB", "META", "2022-06-17")],
        {"2022-01-03": "FB AAPL", "2022-06-21": "META AAPL"},
    ),
    "renamed-and-then-bought": (
        [*FB, TickerChange("META", None, date(2022, 6, 15), "stock_merger", None, "AAPL")],
        {"2022-01-03": "FB AAPL", "2022-06-21": "AAPL"},
    ),
    "bought-without-a-next-ticker": (
        [TickerChange("FB", None, date(2022, 6, 9), "stock_merger", None, "AAPL")],
        {"2022-01-03": "FB AAPL", "2022-06-21": "AAPL"},
    ),
    "the-new-ticker-was-a-members": (SWAP, {"2022-01-03": "FB META AAPL", "2022-02-03": "FB AAPL", "2022-06-21": "META AAPL"}),
    "the-list-has-not-followed-yet": ([renamed("FB", "META", "2024-05-20")], {"2022-01-03": "FB AAPL"}),
    "the-ticker-is-taken-at-once": (
        [renamed("FB", "META", "2024-05-20"), renamed("NEW", "FB", "2024-05-20")],
        {"2022-01-03": "FB AAPL"},
    ),
}


def companies_by_day(changes: Sequence[TickerChange], lists: dict[str, str]) -> dict[date, set[tuple[str, str]]]:
    """Return what each day's list means, day by day: companies (each is called what it was in the beginning), and their tickers.

    A ticker that nobody has is meant as the company that had it last.
    """
    tickers = {ticker for one in changes for ticker in (one.old, one.new) if ticker} | {"AAPL"}
    first = {
        ticker: next((one.old for one in sorted(changes, key=lambda one: one.day) if ticker in (one.old, one.new)), ticker)
        for ticker in tickers
    }
    holder, last = {ticker: ticker for ticker in tickers if first[ticker] == ticker}, dict[str, str]()  # the others take it later
    listed: list[str] = []
    meant: dict[date, set[tuple[str, str]]] = {}
    day = date.fromisoformat(min(lists))
    while day <= date(2024, 6, 2):
        left = [(one, holder.pop(one.old)) for one in changes if one.day == day]
        for one, company in left:
            last[one.old] = company
            if one.new is not None:
                holder[one.new] = company
        listed = lists.get(day.isoformat(), " ".join(listed)).split()
        of = {company: ticker for ticker, company in holder.items()}
        found = (holder.get(ticker) or last.get(ticker) for ticker in listed)
        meant[day] = {(company, of[company]) for company in found if company in of}
        day += timedelta(days=1)
    return meant


@pytest.mark.parametrize("window", [("2022-01-03", "2024-06-02"), ("2022-06-10", "2022-06-13"), ("2022-06-16", "2022-06-24")])
@pytest.mark.parametrize("case", LAGS)
def test_a_renamed_member_is_its_company_until_the_list_follows(tmp_path: Path, case: str, window: tuple[str, str]) -> None:
    changes, lists = LAGS[case]
    indices = MetadataStore(tmp_path)
    for day, listed in lists.items():
        indices.store("big", listed.split(), on=day)
    expected = companies_by_day(changes, lists)
    series = MemberSeries(
        CoverageStore(LocalFiles(tmp_path)), (DAYS,), lambda ticker: [one for one in changes if ticker in (one.old, one.new)], NOW
    )
    found = indices.member_series("big", span(*window), series)

    by_day: dict[date, list[str]] = {}
    for name, ranges in found.items():
        for piece in ranges:
            day = new_york_date(piece.start)
            while new_york_midnight(day) < piece.end:
                by_day.setdefault(day, []).append(name)
                day += timedelta(days=1)
    first, last = map(date.fromisoformat, window)
    for day in (day for day in expected if first <= day <= last):
        names = by_day.get(day, [])
        assert sorted(map(ticker_of, names)) == sorted(ticker for _, ticker in expected[day]), day  # and none twice
        for name in names:  # the company that the name means is the one that is meant
            asof = asof_day(name) or date(2024, 6, 2)
            same = [pair for pair in expected.get(asof, ()) if pair[1] == ticker_of(name)]
            assert not same or same[0] in expected[day], (day, name)
    whole = indices.member_series("big", span("2022-01-03", "2024-06-02"), series)
    assert found.keys() <= whole.keys(), "a series has one name, whatever the range"
