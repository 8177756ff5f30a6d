"""Corporate actions brought into a store: few requests, nothing twice, everything kept; alpaca-py's client gets the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from data_engine import AlpacaClient
from data_engine.alpaca.retry import RetryPolicy
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.fetch_actions import ActionsReport, fetch_actions
from data_engine.corporate_actions.ticker_changes import TickerChange
from data_engine.errors import BadAnswer, CredentialsRefused, InputError
from data_engine.market.time_range import TimeRange, new_york_days
from data_engine.sandbox import Announcements, Faults, Sandbox, SimulatedMarket
from data_engine.store.local_files import LocalFiles
from hostile import Hostile, http
from running import Clock, client_of

NOW = datetime(2024, 6, 28, 20, tzinfo=UTC)
FIRST, TODAY = date(2015, 1, 1), date(2024, 6, 28)
YEARS = new_york_days(FIRST, TODAY)


def dividends(symbol: str, count: int, first: date = date(2015, 2, 2)) -> list[dict[str, Any]]:
    days = [first + timedelta(days=91 * number) for number in range(count)]
    return [
        {"symbol": symbol, "rate": 0.1 + number / 100, "ex_date": str(day), "process_date": str(day + timedelta(days=40))}
        for number, day in enumerate(days)
    ]


RECORDS: dict[str, list[dict[str, Any]]] = {
    "cash_dividends": [*dividends("AAPL", 38), *dividends("MSFT", 30), *dividends("FB", 3), *dividends("KO", 12)],
    "forward_splits": [{"symbol": "AAPL", "new_rate": 4, "old_rate": 1, "ex_date": "2020-08-31", "process_date": "2020-08-31"}],
    "name_changes": [{"old_symbol": "FB", "new_symbol": "META", "process_date": "2022-06-09"}],
    "stock_mergers": [
        {
            "acquiree_symbol": "FAZE", "acquirer_symbol": "AAPL", "acquiree_rate": 1, "acquirer_rate": 0.1,
            "effective_date": "2024-03-11", "process_date": "2024-03-11",
        },
    ],
    "worthless_removals": [{"symbol": "KO", "process_date": "2024-12-19"}],
}  # fmt: skip

Serve = Callable[..., tuple[Sandbox, AlpacaClient]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Sandboxes with corporate actions and clients of them, closed at the end."""
    made: list[Any] = []

    def start(records: dict[str, list[dict[str, Any]]] = RECORDS, **options: Any) -> tuple[Sandbox, AlpacaClient]:
        sandbox = Sandbox(SimulatedMarket(), actions=Announcements(records), **options)
        sandbox.start()
        made.append(sandbox)
        made.append(client_of(sandbox, Clock(NOW)))
        return sandbox, made[-1]

    yield start
    for one in reversed(made):
        one.close()


@pytest.fixture
def store(tmp_path: Path) -> ActionStore:
    return ActionStore(LocalFiles(tmp_path / "store"))


def bring(
    store: ActionStore, client: AlpacaClient, *symbols: str, span: TimeRange = YEARS, now: datetime = NOW, again: bool = False
) -> ActionsReport:
    return fetch_actions(store, client, dict.fromkeys(symbols, span), now=now, again=again)


def kept(store: ActionStore, symbol: str) -> list[tuple[str, dict[str, Any]]]:
    return [(action.kind, dict(action.record)) for action in store.read(symbol).actions]


# -------------------------------------------------------------------------------------------------------------- the client


def test_the_client_gets_what_alpaca_py_gets(serve):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from alpaca.data.historical.corporate_actions import CorporateActionsClient
        from alpaca.data.requests import CorporateActionsRequest
    sandbox, client = serve()
    theirs = CorporateActionsClient("key", "secret", url_override=sandbox.url, raw_data=True)
    asked = CorporateActionsRequest(symbols=["AAPL", "META", "KO"], start=FIRST, end=date(2030, 1, 1))
    lists = theirs.get_corporate_actions(asked)
    theirs._session.close()

    found = client.corporate_actions(["AAPL", "META", "KO"], FIRST, date(2030, 1, 1))

    expected = sorted((name.removesuffix("s"), record["id"]) for name, records in lists.items() for record in records)
    assert sorted((action.kind, action.key) for action in found) == expected
    assert len(found) == 38 + 12 + 1 + 1 + 1 + 1


@pytest.mark.parametrize("faults", ["empty=0.4", "429=0.4", "502=0.3,reset=0.3", "500=0.3,cut_gzip=0.3"])
def test_the_client_weathers_what_it_weathers_with_bars(serve, faults):
    _, client = serve(faults=Faults.parse(faults))
    client._session.policy = RetryPolicy(tries=12, base=0.001, cap=0.01, give_up_after=20.0)
    found = [client.corporate_actions("AAPL", FIRST, date(2030, 1, 1)) for _ in range(6)]

    assert {len(actions) for actions in found} == {40}
    assert client.requests > 6


def test_the_client_refuses_before_it_sends(serve):
    sandbox, client = serve()

    with pytest.raises(InputError):
        client.corporate_actions("A B", FIRST, TODAY)
    assert sandbox.requests == []


def test_the_clients_keys_are_refused_as_with_bars(serve):
    _, client = serve(keys={"key": "other"})

    with pytest.raises(CredentialsRefused):
        client.corporate_actions("AAPL", FIRST, TODAY)


def test_pages_that_do_not_end_are_given_up():
    endless = b'{"corporate_actions":{"worthless_removals":[{"symbol":"A","process_date":"2024-01-02"}]},"next_page_token":"x"}'
    with (
        Hostile(http(body=endless)) as server,
        client_of(server) as client,
        pytest.raises(BadAnswer, match="the pages do not end"),
    ):
        client.corporate_actions("A", date(2024, 1, 1), date(2024, 1, 3))


# ------------------------------------------------------------------------------------------------------------- the gathering


def test_every_action_of_every_kind_is_kept_as_it_came(serve, store):
    _, client = serve()
    made = bring(store, client, "AAPL", "MSFT", "KO")

    assert sum(kind == "cash_dividend" for kind, _ in kept(store, "AAPL")) == 38
    assert sum(kind == "cash_dividend" for kind, _ in kept(store, "MSFT")) == 30
    assert dict(made.held) == {"cash_dividend": 80, "forward_split": 1, "stock_merger": 1, "worthless_removal": 1}
    assert made.added == made.held
    for plural, records in RECORDS.items():
        for record in records:
            if record.get("symbol") in ("AAPL", "MSFT", "KO"):
                held = [fields for kind, fields in kept(store, record["symbol"]) if kind == plural.removesuffix("s")]
                assert any(record.items() <= fields.items() for fields in held)


def test_symbols_share_requests_and_a_repeat_asks_for_the_tail_alone(serve, store):
    sandbox, client = serve()
    assert bring(store, client, "AAPL", "MSFT", "KO").requests == 1
    again = bring(store, client, "KO", "AAPL", "MSFT")

    assert (again.requests, sum(again.added.values())) == (1, 0)
    first, second = (record.query for record in sandbox.requests)
    assert (first["start"], first["end"]) == ("2014-12-01", "2025-06-29")
    assert (second["start"], second["end"]) == ("2024-05-29", "2025-06-29")


def test_years_that_are_settled_cost_no_request(serve, store):
    _, client = serve()
    bring(store, client, "AAPL")

    made = bring(store, client, "AAPL", span=new_york_days(date(2016, 1, 1), date(2022, 12, 31)))
    assert (made.requests, made.held["cash_dividend"]) == (0, 38)


def test_days_that_settled_answers_prove_are_covered_without_a_request(serve, store):
    """The ex-dates of 2014-12 were never asked about, but their process dates were."""
    _, client = serve()
    bring(store, client, "AAPL")
    span = new_york_days(date(2016, 1, 1), date(2016, 12, 31))
    store.update("AAPL", lambda known: type(known)("AAPL", known.actions, (), known.settled, known.fetched, known.by))
    assert store.read("AAPL").missing(span)

    assert bring(store, client, "AAPL", span=span).requests == 0
    assert store.read("AAPL").missing(span) == ()


def test_a_refetch_asks_for_everything(serve, store):
    sandbox, client = serve()
    bring(store, client, "AAPL")
    bring(store, client, "AAPL", again=True)

    assert [record.query["start"] for record in sandbox.requests] == ["2014-12-01", "2014-12-01"]


def test_what_the_vendor_takes_back_is_taken_out_and_said(serve, store):
    sandbox, client = serve()
    bring(store, client, "AAPL")
    sandbox.actions = Announcements({"cash_dividends": RECORDS["cash_dividends"][1:]})
    made = bring(store, client, "AAPL", again=True)

    assert sorted(map(str, made.withdrawn)) == [
        "AAPL: 4-for-1 split on 2020-08-31",
        "AAPL: dividend of 0.1 USD on 2015-02-02",
        "FAZE: stock merger on 2024-03-11",
    ]
    assert [kind for kind, _ in kept(store, "AAPL")] == ["cash_dividend"] * 37


def test_earlier_and_later_names_come_along(serve, store):
    """META's dividends of before 2022 are FB's, and who asks for FB wants META's of after."""
    sandbox, client = serve()
    made = bring(store, client, "META")

    assert (made.related_symbols, made.renames) == (("FB",), (TickerChange("FB", "META", date(2022, 6, 9)),))
    assert [kind for kind, _ in kept(store, "FB")] == ["cash_dividend"] * 3 + ["name_change"]
    assert store.read("FB").covered == (new_york_days(FIRST, date(2022, 6, 9)),)
    assert [record.query["symbols"] for record in sandbox.requests] == ["META", "FB"]
    assert made.added["name_change"] == 1


def test_a_later_name_comes_along_too(serve, store):
    _, client = serve()
    made = bring(store, client, "FB")

    assert made.related_symbols == ("META",)
    assert store.read("META").covered == (new_york_days(date(2022, 6, 9), TODAY),)


def test_a_symbol_without_actions_has_an_empty_book_that_covers(serve, store):
    _, client = serve()
    made = bring(store, client, "ZZZT")

    assert (made.failed, made.held) == ([], {})
    assert store.read("ZZZT").missing(YEARS) == ()


def test_a_malformed_symbol_fails_alone(serve, store):
    _, client = serve()
    made = bring(store, client, "AAPL", "BRK-B", "MSFT")

    assert made.failed == [("BRK-B", "invalid_symbol", "invalid symbol: BRK-B")]
    assert made.to_json()["successful"] == ["AAPL", "MSFT"]
    assert (len(kept(store, "AAPL")), len(kept(store, "MSFT")), store.symbols()) == (40, 30, ["AAPL", "FAZE", "MSFT"])


def test_a_request_without_an_answer_fails_its_symbols_and_writes_nothing(serve, store):
    _, client = serve(faults=Faults.parse("502=1"))
    made = bring(store, client, "AAPL", "MSFT")

    assert [(symbol, code) for symbol, code, _ in made.failed] == [("AAPL", "unavailable"), ("MSFT", "unavailable")]
    assert store.symbols() == []


def test_refused_keys_end_it(serve, store):
    _, client = serve(keys={"key": "other"})

    with pytest.raises(CredentialsRefused):
        bring(store, client, "AAPL")


def test_a_damaged_book_fails_alone(serve, store, tmp_path):
    _, client = serve()
    path = tmp_path / "store" / "metadata" / "actions" / "symbol=AAPL.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{")
    made = bring(store, client, "AAPL", "MSFT")

    assert [(symbol, code) for symbol, code, _ in made.failed] == [("AAPL", "damaged_file")]
    assert (path.read_bytes(), len(kept(store, "MSFT"))) == (b"{", 30)


def test_many_symbols_are_as_few_requests_as_a_request_line_allows(serve, store):
    sandbox, client = serve()
    names = [f"{a}{b}{c}" for a in "ABCDEFGH" for b in "ABCDEFGH" for c in "ABCDEFGH"][:450]
    made = bring(store, client, *names)

    assert (made.requests, len(store.symbols())) == (3, 450)
    assert sum(len(record.query["symbols"].split(",")) for record in sandbox.requests) == 450


def test_what_is_announced_is_stored_before_it_is_paid(serve, store):
    """Ex two days ago, paid in three weeks: by process date it lies in the future."""
    ex, paid = str(TODAY - timedelta(days=2)), str(TODAY + timedelta(days=20))
    _, client = serve({"cash_dividends": [{"symbol": "AAPL", "rate": 1, "ex_date": ex, "process_date": paid}]})

    assert bring(store, client, "AAPL").held["cash_dividend"] == 1


@pytest.mark.parametrize("name", ["same", "another"])
def test_a_ratio_that_alpaca_corrects_is_noticed_within_a_month(serve, store, name):
    """A split of years ago, corrected at the same id or under a new one. Until then, each night requests the latest days only."""

    def record(new: float, name: str = "same") -> dict[str, list[dict[str, Any]]]:
        split = {
            "id": name,
            "symbol": "AAPL",
            "new_rate": new,
            "old_rate": 1,
            "ex_date": "2020-08-31",
            "process_date": "2020-08-31",
        }
        return {"forward_splits": [split]}

    _, before = serve(record(3))
    bring(store, before, "AAPL")
    _, client = serve(record(4, name))
    for days in (1, 15, 30):
        later = NOW + timedelta(days=days)
        bring(store, client, "AAPL", span=new_york_days(FIRST, TODAY + timedelta(days=days)), now=later)
        assert [values["new_rate"] for _, values in kept(store, "AAPL")] == [3]

    span = new_york_days(FIRST, TODAY + timedelta(days=31))
    report = bring(store, client, "AAPL", span=span, now=NOW + timedelta(days=31))
    assert [values["new_rate"] for _, values in kept(store, "AAPL")] == [4]
    assert (report.requests, len(report.withdrawn)) == (1, int(name == "another"))
    recent = bring(store, client, "AAPL", span=span, now=NOW + timedelta(days=32))
    assert (recent.requests, report.added) == (1, {"forward_split": 1})
    assert store.read("AAPL").checked == NOW + timedelta(days=31)
