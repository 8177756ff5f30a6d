"""A series is one security's: it ends where its security leaves the ticker, and goes on where it comes back.

The former owner of a ticker is a series of its own. The server answers as of a day, as Alpaca does; the truth is its file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from data_engine import AlpacaClient, IngestionPipeline, ParquetStorage, ingest_single_symbol
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.fetch_actions import fetch_actions
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import new_york_days
from data_engine.sandbox import Announcements, Listing, Listings, Replay, Sandbox
from data_engine.sandbox.corporate_actions import ActionsRequest
from data_engine.sandbox.protocol import Refusal
from data_engine.store.coverage_store import CoverageStore
from data_engine.store.local_files import LocalFiles
from running import HASTY, KEY, SECRET, Clock, client_of, coverage, here, pipeline_of, rows, write_minutes

SPRINT = [date(2020, 3, day) for day in (26, 27, 30, 31)]
SENTINEL = [date(2021, 6, 30), date(2021, 7, 1), date(2021, 7, 2)]
LEFT = {"effective_date": "2020-04-01", "process_date": "2020-04-01"}
ENDS = {
    "stock_merger": {"acquiree_symbol": "S", "acquirer_symbol": "TMUS", "acquiree_rate": 1, "acquirer_rate": 0.1, **LEFT},
    "cash_merger": {"acquiree_symbol": "S", "rate": 5.37, **LEFT},
    "stock_and_cash_merger": {"acquiree_symbol": "S", "acquirer_symbol": "TMUS", "cash_rate": 1, **LEFT},
    "worthless_removal": {"symbol": "S", "process_date": "2020-04-01"},
    "redemption": {"symbol": "S", "rate": 0.14, "process_date": "2020-04-01"},
    "reorganization": {"symbol": "S", "stock_movements": [{"symbol": "TMUS", "new_rate": 1, "source_rate": 1}], **LEFT},
}
LISTINGS = Listings([Listing("S", "SPRINT", None, SPRINT[-1]), Listing("S", "SENTINEL", SENTINEL[0])])


def serve(tmp_path: Path, clock: Callable[[], datetime], records: dict[str, list[dict[str, Any]]] | Announcements) -> Sandbox:
    """Return a server of the two securities that had the ticker S, at prices of 100 and 200."""
    sprint = write_minutes(tmp_path / "sprint.parquet", ["SPRINT"], SPRINT)
    sentinel = write_minutes(tmp_path / "sentinel.parquet", ["SENTINEL"], SENTINEL, shift=100.0)
    actions = records if isinstance(records, Announcements) else Announcements(records)
    return Sandbox(Replay([sprint, sentinel]), actions=actions, clock=clock, listings=LISTINGS)


def days_in(base: Path, symbol: str = "S") -> list[date]:
    return sorted({datetime.fromtimestamp(row[1] / 1e6, UTC).date() for row in rows(base) if row[0] == symbol})


def pipeline(server: Sandbox, base: Path, clock: Clock, **options: Any) -> IngestionPipeline:
    made = pipeline_of(server, base, clock, **options)
    made.storage.bars.coverage = CoverageStore(made.storage.files, now=clock)
    return made


def bar_requests(server: Sandbox) -> list[dict[str, str]]:
    return [dict(one.query) for one in server.requests if one.path == "/v2/stocks/bars"]


def action_requests(server: Sandbox) -> list[str]:
    return [one.query["symbols"] for one in server.requests if one.path == "/v1/corporate-actions"]


@pytest.mark.parametrize("kind", ENDS)
def test_an_update_never_goes_on_with_the_next_owner(tmp_path: Path, kind: str) -> None:
    """The security ends a week after it was ingested; a year later, a day after its next owner's first bars, it is updated."""
    clock = Clock(datetime(2020, 3, 28, 12, tzinfo=UTC))
    with serve(tmp_path, clock, {f"{kind}s": [ENDS[kind]]}) as server:
        ours = pipeline(server, tmp_path / "store", clock, actions=True)
        ours.ingest_symbols(["S"], "2020-03-26")
        clock.now = datetime(2021, 7, 3, 12, tzinfo=UTC)
        server.forget()
        report = ours.update()

        assert (report["failed"], days_in(tmp_path / "store")) == ([], SPRINT)
        assert (report["ended"], report["successful"]) == (["S"], ["S"])
        assert report.line().startswith("0 of 1 series up to date, 1 ended, 0 failed, ")
        assert {one.get("asof") for one in bar_requests(server)} == {"2020-03-31"}
        (note,) = [note for note in report.notes if "2020-04-01" in note]
        assert note.startswith("S ")
        status = here("status", "S", "--json", "--base-path", tmp_path / "store", env={}).json["series"][0]
        assert (status["ended"]["date"], status["ended"]["reason"], status["ended"]["new"]) == ("2020-04-01", kind, None)
        assert (status["state"], status["missing"]) == ("ended", [])

        server.forget()
        clock.now = datetime(2021, 7, 7, 12, tzinfo=UTC)
        ours.update()
        assert (bar_requests(server), days_in(tmp_path / "store")) == ([], SPRINT)
        failed = ours.ingest_symbols(["S"], "2021-06-30")
        assert failed["codes"] == {"S": "ended"}
        assert "`data-engine ingest S@2020-03-31`" in failed["failed"][0][1]
    checked = here("verify", "--json", "--base-path", tmp_path / "store", env={})
    assert (checked.code, checked.json["inconsistencies"]) == (0, [])


def test_what_a_killed_run_has_requested_beyond_the_end_of_a_security_is_withdrawn(tmp_path: Path) -> None:
    """Nobody knew of the end then; the next run does, and requests nothing of the next owner, then or later."""
    clock = Clock(datetime(2020, 3, 28, 12, tzinfo=UTC))
    with serve(tmp_path, clock, {"stock_mergers": [ENDS["stock_merger"]]}) as server:
        ours = pipeline(server, tmp_path / "store", clock, actions=True)
        ours.ingest_symbols(["S"], "2020-03-26")
        series = Series("S", Dataset(Timeframe(1, "Min")))
        ours.storage.bars.coverage.requested.add({series: (new_york_days(date(2021, 6, 30), date(2021, 7, 2)),)})
        clock.now = datetime(2021, 7, 3, 12, tzinfo=UTC)
        ours.update()

    left = CoverageStore(LocalFiles(tmp_path / "store"))
    left.requested.refresh()
    assert left.requested.of(series) == ()
    assert left.read(series).wanted[-1].end <= new_york_days(date(2020, 3, 26), date(2020, 3, 31)).end


def test_verify_names_the_next_owners_bars_and_how_to_be_rid_of_them(tmp_path: Path) -> None:
    """The store was updated without actions: two securities are in one series, and only the stored actions tell."""
    clock = Clock(datetime(2020, 3, 30, 14, tzinfo=UTC))
    with serve(tmp_path, clock, {"stock_mergers": [ENDS["stock_merger"]]}) as server:
        ours = pipeline(server, tmp_path / "store", clock)
        ours.ingest_symbols(["S"], "2020-03-26")
        clock.now = datetime(2021, 7, 3, 12, tzinfo=UTC)
        ours.update()
        assert days_in(tmp_path / "store") == [*SPRINT[:2], *SENTINEL]
        assert here("verify", "--base-path", tmp_path / "store", env={}).code == 0
        here("actions", "S", "--start", "2020-01-01", "--base-path", tmp_path / "store", url=server.url)

        checked = here("verify", "--json", "--base-path", tmp_path / "store", env={})
        (found,) = checked.json["inconsistencies"]
        assert (checked.code, found["code"], found["symbol"]) == (5, "ticker_reassigned", "S")
        assert "S merged into TMUS on 2020-04-01" in found["message"]
        remove, refetch = (part.partition("`")[0].split() for part in found["message"].split("`data-engine ")[1:])
        assert here(*remove, "--base-path", tmp_path / "store", env={}).code == 0
        assert here("verify", "--base-path", tmp_path / "store", env={}).code == 0
        assert days_in(tmp_path / "store") == SPRINT[:2]

        assert refetch == ["ingest", "S", "--refetch"]
        ours.ingest_symbols(["S"], None, refetch=True)  # the days that the other security had no bar of are not lost
        assert days_in(tmp_path / "store") == SPRINT


def test_a_former_owner_is_a_series_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(datetime(2021, 7, 3, 12, tzinfo=UTC))
    base, former = tmp_path / "store", "S@2020-03-31"
    with serve(tmp_path, clock, {"stock_mergers": [ENDS["stock_merger"]]}) as server:
        ours = pipeline(server, base, clock, actions=True)
        report = ours.ingest_symbols(["s@2020-03-31", "S"], "2021-06-01")
        assert report["codes"] == {former: "ended"}
        report = ours.ingest_symbols([former], "2020-03-01", "2020-12-31")

        assert (report["successful"], report["failed"]) == ([former], [])
        assert (days_in(base, former), days_in(base)) == (SPRINT, SENTINEL)
        assert {(one["symbols"], one.get("asof")) for one in bar_requests(server)} == {("S", "2020-03-31"), ("S", None)}
        assert (base / "equities_1min" / "symbol=S%402020-03-31" / "year=2020" / "month=03" / "data.parquet").is_file()
        storage = ParquetStorage(base)
        assert len(storage.load(former, "2020-03-26", "2020-12-31", incomplete="raise")) == 4 * 20
        assert set(storage.load([former, "S"], "2020-03-26", "2021-07-02", incomplete="ignore").index.levels[0]) == {former, "S"}

        server.forget()
        clock.now = datetime(2021, 7, 7, 12, tzinfo=UTC)
        report = ours.update()
        assert (report["successful"], {one["symbols"] for one in bar_requests(server)}) == (["S", former], {"S"})
        assert {one.get("asof") for one in bar_requests(server)} == {None}
        assert action_requests(server) == ["S"]
        status = here("status", former, "--json", "--base-path", base, env={}).json["series"]
        assert [(one["symbol"], one["state"], one["ended"]["date"]) for one in status] == [(former, "ended", "2020-04-01")]

        server.forget()
        monkeypatch.setenv("ALPACA_API_KEY", KEY)
        monkeypatch.setenv("ALPACA_SECRET_KEY", SECRET)
        client = AlpacaClient(base_url=server.url, policy=HASTY)
        again = ingest_single_symbol("S", "2020-03-01", "2020-12-31", asof=date(2020, 3, 31), base_path=base, client=client)
        assert (again["successful"], bar_requests(server)) == ([former], [])
        assert client.fetch_bars([former, "S"], "2020-03-30", "2021-07-02").groupby("symbol").size().to_dict() == {
            "S": 3 * 20,
            former: 2 * 20,
        }


def test_without_a_known_end_a_former_owner_ends_on_its_day(tmp_path: Path) -> None:
    clock = Clock(datetime(2021, 7, 3, 12, tzinfo=UTC))
    with serve(tmp_path, clock, {}) as server:
        ours = pipeline(server, tmp_path / "store", clock)
        report = ours.ingest_symbols(["S"], "2020-03-01", asof="2020-03-30")
        ours.update()

        assert (report["failed"], report.notes, days_in(tmp_path / "store", "S@2020-03-30")) == ([], (), SPRINT[:3])


def test_a_ticker_that_comes_back_to_its_security_goes_on(tmp_path: Path) -> None:
    """Renamed from A to B in March and back in September: A is whole, what it traded as B included, and B ends."""
    days = [date(2022, month, day) for month, day in ((2, 25), (2, 28), (3, 1), (3, 2), (8, 31), (9, 1), (9, 2))]
    records = {
        "name_changes": [
            {"old_symbol": "A", "new_symbol": "B", "process_date": "2022-03-01"},
            {"old_symbol": "B", "new_symbol": "A", "process_date": "2022-09-01"},
        ]
    }
    listings = Listings(
        [
            Listing("A", "ONE", None, date(2022, 2, 28)),
            Listing("B", "ONE", date(2022, 3, 1), date(2022, 8, 31)),
            Listing("A", "ONE", date(2022, 9, 1)),
        ]
    )
    clock, base = Clock(datetime(2022, 2, 26, 12, tzinfo=UTC)), tmp_path / "store"
    bars = Replay(write_minutes(tmp_path / "bars.parquet", ["ONE"], days))
    with Sandbox(bars, actions=Announcements(records), clock=clock, listings=listings) as server:
        ours = pipeline(server, base, clock, actions=True)
        ours.ingest_symbols(["A"], "2022-02-25")
        clock.now = datetime(2022, 3, 3, 12, tzinfo=UTC)
        assert (ours.update()["failed"], days_in(base, "A")) == ([], days[:2])
        assert ours.ingest_symbols(["B"], "2022-02-25")["failed"] == []

        clock.now = datetime(2022, 9, 6, 16, tzinfo=UTC)
        report = ours.update()
        assert (report["failed"], days_in(base, "A")) == ([], days)
        assert days_in(base, "B") == days[:5]
        server.forget()
        clock.now = datetime(2022, 9, 7, 16, tzinfo=UTC)
        assert ours.update()["failed"] == []
        assert {one["symbols"] for one in bar_requests(server)} == {"A"}
    ended = {one["symbol"]: one["ended"] for one in here("status", "--json", "--base-path", base, env={}).json["series"]}
    assert (ended["A"], ended["B"]["new"], ended["B"]["date"]) == (None, "A", "2022-09-01")
    assert here("verify", "--base-path", base, env={}).code == 0


def test_what_was_covered_as_empty_while_it_was_away_is_fetched_when_it_comes_back(tmp_path: Path) -> None:
    """Nobody fetched actions in March: the days under the other ticker were covered as empty under this one."""
    days = [date(2022, 2, 25), date(2022, 3, 2), date(2022, 9, 1)]
    records = [{"old_symbol": "A", "new_symbol": "B", "process_date": "2022-03-01"}]
    listings = Listings([Listing("A", "ONE", None, date(2022, 2, 28)), Listing("B", "ONE", date(2022, 3, 1))])
    clock, base = Clock(datetime(2022, 2, 26, 12, tzinfo=UTC)), tmp_path / "store"
    bars = Replay(write_minutes(tmp_path / "bars.parquet", ["ONE"], days))
    with Sandbox(bars, actions=Announcements({"name_changes": records}), clock=clock, listings=listings) as server:
        pipeline(server, base, clock).ingest_symbols(["A"], "2022-02-25")
        clock.now = datetime(2022, 3, 15, 12, tzinfo=UTC)
        pipeline(server, base, clock).update()
        assert coverage(base, "A")["covered"][-1][1] > "2022-03-12"
        pipeline(server, base, clock, actions=True).update()
        assert coverage(base, "A")["covered"][-1][1] == "2022-03-01T05:00:00Z"
    records.append({"old_symbol": "B", "new_symbol": "A", "process_date": "2022-09-01"})
    back = Listings([Listing("A", "ONE")])
    with Sandbox(bars, actions=Announcements({"name_changes": records}), clock=clock, listings=back) as server:
        clock.now = datetime(2022, 9, 6, 16, tzinfo=UTC)
        assert pipeline(server, base, clock, actions=True).update()["failed"] == []
    assert days_in(base, "A") == days


def test_actions_come_first_and_once_a_day(tmp_path: Path) -> None:
    clock, base = Clock(datetime(2020, 3, 28, 12, tzinfo=UTC)), tmp_path / "store"
    with serve(tmp_path, clock, {"cash_mergers": [ENDS["cash_merger"]]}) as server:
        ours = pipeline(server, base, clock, actions=True)
        ours.ingest_symbols(["S", "TMUS"], "2020-03-26")
        assert next(one.path for one in server.requests) == "/v1/corporate-actions"
        assert action_requests(server) == ["S,TMUS"]
        ours.ingest_symbols(["S"], "2020-03-26")
        ours.update()
        assert len(action_requests(server)) == 1
        ours.ingest_symbols(["S"], "2020-03-02")  # earlier days than are known
        assert set(action_requests(server)[1:]) == {"S"}
        server.forget()
        clock.now = datetime(2020, 3, 30, 12, tzinfo=UTC)
        ours.update()
        ours.plan(["S"], "2016-01-04")
        assert action_requests(server) == ["S,TMUS"]


def test_the_actions_of_a_ticker_that_ended_are_fetched_weekly(tmp_path: Path) -> None:
    clock, base = Clock(datetime(2020, 4, 3, 12, tzinfo=UTC)), tmp_path / "store"
    with serve(tmp_path, clock, {"cash_mergers": [ENDS["cash_merger"]]}) as server:
        ours = pipeline(server, base, clock, actions=True)
        ours.ingest_symbols(["S", "TMUS"], "2020-03-26")
        server.forget()
        asked = []
        for day in range(4, 13):
            clock.now = datetime(2020, 4, day, 12, tzinfo=UTC)
            ours.update()
            asked.append(",".join(sorted(action_requests(server))))
            server.forget()
        ours.update(["S"])  # by name: daily
        clock.now += timedelta(days=1)
        ours.update(["S"])

        assert asked == ["TMUS"] * 6 + ["S,TMUS"] + ["TMUS"] * 2
        assert action_requests(server) == ["S"] * 2


def test_no_actions_turns_it_off(tmp_path: Path) -> None:
    with serve(tmp_path, lambda: datetime.now(UTC), {}) as server:
        words = ("--no-actions", "--base-path", tmp_path / "store")
        assert here("ingest", "S", "--start", "2021-06-30", "--end", "2021-07-02", *words, url=server.url).code == 0
        here("update", *words, url=server.url)
        assert (action_requests(server), len(bar_requests(server)) > 0) == ([], True)
        here("update", "--base-path", tmp_path / "store", url=server.url)
        assert action_requests(server) == ["S"]


class Refusing(Announcements):
    """A service without corporate actions for this plan."""

    def page(self, request: ActionsRequest, *, budget: int | None = None) -> bytes:
        raise Refusal(403, "subscription does not permit corporate actions")


def test_a_failure_of_the_actions_is_a_note(tmp_path: Path) -> None:
    clock = Clock(datetime(2020, 3, 28, 12, tzinfo=UTC))
    with serve(tmp_path, clock, Refusing({})) as server:
        report = pipeline(server, tmp_path / "store", clock, actions=True).ingest_symbols(["S"], "2020-03-26")

        assert (report["successful"], days_in(tmp_path / "store")) == (["S"], SPRINT[:2])
        (note,) = report.notes
        assert "corporate actions" in note
        assert "`data-engine actions`" in note


def test_refused_keys_end_the_run_at_the_actions_and_what_was_requested_is_remembered(tmp_path: Path) -> None:
    with Sandbox(Replay(write_minutes(tmp_path / "bars.parquet", ["S"], SENTINEL)), keys={"PKRIGHT": "right"}) as server:
        words = ("ingest", "S", "--start", "2021-06-30", "--end", "2021-07-02", "--json", "--base-path", tmp_path / "store")
        ran = here(*words, url=server.url)

        assert (ran.code, [one["symbol"] for one in ran.json["failed"]]) == (3, ["S"])
        assert [one.path for one in server.requests] == ["/v1/corporate-actions"]
    status = here("status", "--json", "--base-path", tmp_path / "store", env={}).json["series"]
    assert [(one["symbol"], len(one["missing"])) for one in status] == [("S", 1)]


class Broken(Announcements):
    """A service of which the records of one symbol have no usable process date."""

    def page(self, request: ActionsRequest, *, budget: int | None = None) -> bytes:
        content = json.loads(super().page(request, budget=budget))
        record = {"id": "x", "symbol": "KO", "rate": 1, "ex_date": "2020-03-02", "process_date": "0000-00-00"}
        content["corporate_actions"].setdefault("cash_dividends", []).append(record)
        return json.dumps(content).encode()


def test_one_broken_record_fails_its_own_symbol(tmp_path: Path) -> None:
    """Two hundred symbols share one request: 199 of them are stored, and the request is not repeated."""
    names = ["KO", *(f"A{one}{two}" for one in "ABCDEFGHIJKLMNOPQRST" for two in "ABCDEFGHIJ")][:200]
    dividend = {"symbol": "AAA", "rate": 1, "ex_date": "2020-03-02", "process_date": "2020-03-05"}
    clock = Clock(datetime(2020, 3, 28, 12, tzinfo=UTC))
    with serve(tmp_path, clock, Broken({"cash_dividends": [dividend]})) as server, client_of(server, clock) as client:
        store = ActionStore(LocalFiles(tmp_path / "actions"))
        wanted = dict.fromkeys(names, new_york_days(date(2020, 1, 1), date(2020, 3, 28)))
        report = fetch_actions(store, client, wanted, now=clock.now)

        assert [(symbol, code) for symbol, code, _ in report.failed] == [("KO", "bad_answer")]
        assert "0000-00-00" in report.failed[0][2]
        assert (len(server.requests), len(store.symbols())) == (1, 199)
        assert [str(one) for one in store.read("AAA").actions] == ["AAA: dividend of 1 USD on 2020-03-02"]
