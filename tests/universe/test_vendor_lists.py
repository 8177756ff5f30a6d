"""`data-engine universe`: Alpaca's list of securities as dated indices, against a sandbox and against servers of evil will."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from data_engine import MetadataStore, ParquetStorage
from data_engine.alpaca import http_client, transport
from data_engine.alpaca.assets_client import AssetsClient
from data_engine.alpaca.retry import RetryPolicy
from data_engine.errors import ConfigError, InputError
from data_engine.sandbox import Assets, Sandbox, SimulatedMarket
from data_engine.universe.vendor_lists import update_universe
from hostile import Hostile, asset, http
from running import HASTY, KEY, SECRET, account, content, here
from stores import variables

DAYS = [date(2024, 6, day) for day in (3, 4, 5)]


def row(symbol: str, status: str = "active", exchange: str = "NYSE") -> dict[str, str]:
    return {"symbol": symbol, "status": status, "exchange": exchange}


FIRST = [
    row("AAPL"),
    row("IBM"),
    row("GONE"),
    row("3USL"),
    row("TCEHY", exchange="OTC"),
    row("OLD", "inactive"),
    row("Q", "inactive", "OTC"),
]
SECOND = [row("AAPL"), row("IBM"), row("NEW"), row("OLD"), row("GONE", "inactive"), row("OLD", "inactive")]


def answers(*rows: object) -> bytes:
    return http(body=json.dumps(rows).encode())


def stored(base: Path, name: str) -> list[str]:
    """Return the members in the file of an index, as another reader sees them."""
    file = base / "metadata" / "indices" / f"{name}.csv"
    return [one for (one,) in duckdb.sql(f"SELECT symbol FROM read_csv('{file}') ORDER BY 1").fetchall()] if file.exists() else []


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_the_lists_serve_as_indices(store: Path) -> None:
    where = ("--base-path", store)
    with Sandbox(SimulatedMarket(), assets=Assets(rows=FIRST), keys={KEY: SECRET}) as server:
        ran = here("universe", "update", "--json", *where, url=server.url)
        assert (ran.code, [one["added"] for one in ran.json["indices"]]) == (0, [["AAPL", "GONE", "IBM"], ["OLD"]])
        assert ran.json["unfetchable"] == ["3USL"], "the sandbox refuses bars of it, as Alpaca does"
        assert ran.json["requests"] == len(server.requests) == 2
        assert (stored(store, "us_active"), stored(store, "us_inactive")) == (["AAPL", "GONE", "IBM"], ["OLD"])
        assert (stored(store, "us_active_otc"), stored(store, "us_inactive_otc")) == ([], [])

        assert here("universe", "update", "--feed", "otc", *where, url=server.url).code == 0
        assert (stored(store, "us_active_otc"), stored(store, "us_inactive_otc")) == (["TCEHY"], ["Q"])
        assert stored(store, "us_active") == ["AAPL", "GONE", "IBM"]

        words = ("ingest", "--index", "us_active", "--start", "2024-06-03", "--end", "2024-06-04", "--timeframe", "1Day")
        assert here(*words, *where, url=server.url).code == 0
        early = here(*words, "--ever", *where, url=server.url)
        assert (early.code, "us_active" in early.err, "2024-06-03" in early.err) == (2, True, True)
    status = here("status", "--index", "us_active", "--json", *where, env={})
    assert [(one["members"], one["without_bars"]) for one in status.json["index"]["datasets"]] == [(3, [])]
    with pytest.raises(InputError):
        ParquetStorage(store).load(index="us_active", start="2024-06-03", end="2024-06-04", timeframe="1Day")
    shown = here("universe", "show", "--json", *where, env={})
    assert [(one["index"], one["members"]) for one in shown.json["indices"]] == [
        ("us_active", 3),
        ("us_inactive", 1),
        ("us_active_otc", 1),
        ("us_inactive_otc", 1),
    ]
    assert here("universe", "show", "--on", "2020-01-02", *where, env={}).code == 2


def test_each_change_has_the_day_on_which_it_was_seen(store: Path) -> None:
    """On the second day GONE has left, NEW has come, and OLD is the ticker of another company: its former owner is not listed."""
    reports = []
    for day, rows in zip(DAYS, (FIRST, SECOND, SECOND), strict=True):
        lists = MetadataStore(store, today=lambda day=day: day)
        with (
            Sandbox(SimulatedMarket(), assets=Assets(rows=rows)) as server,
            AssetsClient(KEY, SECRET, server.url, policy=HASTY) as client,
        ):
            reports.append(update_universe(lists, client))

    assert list(lists.members("us_active", DAYS[0])) == ["AAPL", "GONE", "IBM"]
    assert sorted(lists.members("us_active")) == ["AAPL", "IBM", "NEW", "OLD"]
    assert lists.members("us_inactive") == {"GONE": DAYS[1]}
    assert [(event.day, event.action, event.symbol) for event in lists.history("us_active") if event.day > DAYS[0]] == [
        (DAYS[1], "removed", "GONE"),
        (DAYS[1], "added", "NEW"),
        (DAYS[1], "added", "OLD"),
    ]
    assert reports[1].lists.reassigned == ("OLD",)
    assert [(one.added, one.removed) for one in reports[2].changes] == [((), ()), ((), ())]
    with pytest.raises(InputError):
        lists.members("us_active", "2024-06-02")


def test_a_dry_run_writes_nothing_and_quiet_is_one_line(store: Path) -> None:
    with Sandbox(SimulatedMarket(), assets=Assets(rows=FIRST)) as server:
        dry = here("universe", "update", "--dry-run", "--json", "--base-path", store, url=server.url)
        assert (dry.code, dry.json["stored"], dry.json["indices"][0]["members"], store.exists()) == (0, False, 3, False)
        assert here("universe", "show", "--base-path", store, env={}).code == 4
        quiet = here("universe", "update", "--quiet", "--base-path", store, url=server.url)
        assert (quiet.code, quiet.out.count("\n"), quiet.err) == (0, 1, "")
    for file in (store / "metadata" / "indices").glob("us_*.csv"):
        file.unlink()
    assert here("universe", "show", "--base-path", store, env={}).code == 2


def test_a_list_that_is_not_whole_is_refused_unless_it_is_forced(store: Path) -> None:
    """Of ten members three are in neither list; what only moved to the other list, or over the counter, is not lost."""
    names = [f"A{letter}" for letter in "ABCDEFGHIJ"]
    where = ("--base-path", store)
    moved = [row(names[0], "inactive"), row(names[1], exchange="OTC"), *map(row, names[2:])]
    with Hostile(answers(*map(asset, names)), answers()) as server:
        assert here("universe", "update", *where, url=server.url).code == 0
    with Sandbox(SimulatedMarket(), assets=Assets(rows=moved)) as server:
        assert here("universe", "update", "--dry-run", *where, url=server.url).code == 0
    for words, code in (((), 2), (("--force",), 0)):
        with Hostile(answers(*map(asset, names[3:])), answers()) as server:
            assert here("universe", "update", *words, *where, url=server.url).code == code
        assert stored(store, "us_active") == (names if code else names[3:])


@pytest.mark.parametrize(
    ("key", "environ", "url"),
    [
        ("PKABC", {}, "https://paper-api.alpaca.markets"),
        ("AKABC", {}, "https://api.alpaca.markets"),
        ("pkabc", {}, "https://api.alpaca.markets"),
        ("PKABC", {"APCA_API_BASE_URL": "https://api.alpaca.markets/v2/"}, "https://api.alpaca.markets"),
        ("AKABC", {"APCA_API_BASE_URL": " http://127.0.0.1:9/ "}, "http://127.0.0.1:9"),
        ("AKABC", {"APCA_API_DATA_URL": "https://data.example.com"}, "https://api.alpaca.markets"),
        ("AKABC", {"APCA_API_BASE_URL": "http://api.example.com"}, None),
        ("AKABC", {"APCA_API_BASE_URL": "https://user:secret@example.com"}, None),
        ("AKABC", {"APCA_API_BASE_URL": "https://example.com?key=secret"}, None),
        ("AKABC", {"APCA_API_DATA_URL": "http://127.0.0.1:9"}, None),
    ],
)
def test_keys_go_to_the_host_of_their_account(key: str, environ: dict[str, str], url: str | None) -> None:
    with variables({"ALPACA_API_KEY": key, "ALPACA_SECRET_KEY": SECRET, **environ}):
        if url is None:
            with pytest.raises(ConfigError) as refused:
                AssetsClient()
            assert "secret" not in str(refused.value)
        else:
            assert AssetsClient().base_url == url


def test_an_address_that_would_send_the_keys_unencrypted_is_refused_before_anything_is_written(store: Path) -> None:
    environ = account(None, APCA_API_BASE_URL="http://api.example.com")
    assert here("universe", "update", "--base-path", store, env=environ).code == 2
    assert here("universe", "update", "--base-path", store, env={}).code == 2
    assert not store.exists()


def test_refused_keys_end_with_3_and_no_server_with_6(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "RetryPolicy", lambda: HASTY)
    with Sandbox(SimulatedMarket(), keys={"other": "pair"}) as server:
        assert here("universe", "update", "--base-path", store, url=server.url).code == 3
    assert here("universe", "update", "--base-path", store, url=server.url).code == 6
    assert stored(store, "us_active") == []


GOOD = [asset(f"A{letter}") for letter in "ABCDEFGHIJKLMNOPQRST"]

ROWS: dict[str, Any] = {
    "no-object": 7,
    "no-symbol": asset("X", symbol=...),
    "no-exchange": asset("X", exchange=...),
    "no-status": asset("X", status=...),
    "null-symbol": asset("X", symbol=None),
    "another-status": asset("X", status="inactive"),
    "another-class": asset("BTCUSD", **{"class": "crypto"}),
    "a-path": asset("../../x"),
    "lower-case": asset("aapl"),
    "a-day": asset("S@2020-03-31"),
    "an-escape": asset("\x1b[31mX"),
    "long": asset("X" * 100_000),
}


def test_a_member_whose_row_cannot_be_used_stays_until_all_rows_can(store: Path) -> None:
    names = [f"A{letter}" for letter in "BCDEFGHIJKLM"]
    gone, broken = row("GONE", "inactive"), {"symbol": names[0], "exchange": "NYSE"}
    lists = [[row(name) for name in names], [broken, *(row(name) for name in names[1:-1])], [row(name) for name in names[1:-1]]]
    found = []
    for number, active in enumerate(lists):
        inactive = [gone] if number == 0 else [gone, row(names[-1], "inactive")]
        with Hostile(*(http(body=json.dumps(rows).encode()) for rows in (active, inactive))) as server:
            update_universe(MetadataStore(store), AssetsClient(KEY, SECRET, server.url, policy=HASTY))
        found.append((stored(store, "us_active"), stored(store, "us_inactive")))

    assert found == [(names, ["GONE"]), (names[:-1], [names[-1], "GONE"]), (names[1:-1], [names[-1], "GONE"])]


@pytest.mark.parametrize("bad", ROWS.values(), ids=ROWS)
def test_a_row_that_cannot_be_used_is_named_and_the_others_are_stored(store: Path, bad: object) -> None:
    with Hostile(answers(*GOOD, GOOD[0], bad), answers()) as server:
        ran = here("universe", "update", "--base-path", store, url=server.url)
        told = here("universe", "update", "--json", "--base-path", store, url=server.url)  # both responses are empty now

    assert (ran.code, stored(store, "us_active")) == (1, [one["symbol"] for one in GOOD])
    assert "row 22" in ran.err
    assert len(ran.text) < 3000
    assert not set(ran.text) & {"\x1b", "\x07"}
    assert told.code == 1


ESCAPED = "".join(f"\\u{ord(char):04x}" for char in SECRET)

BODIES: dict[str, tuple[bytes, int]] = {
    "an-object": (http(body=b'{"assets":[]}'), 1),
    "nested": (http(body=b"[" * 200_000), 1),
    "half": (http(body=b'[{"symbol":'), 1),
    "web-page": (http(body=b"<html>", kind="text/html"), 1),
    "not-a-number": (http(body=b"[NaN]"), 1),
    "nothing-usable": (answers(*[asset("X", symbol=...)] * 5), 1),
    "empty": (answers(), 1),
    "a-key": (answers(*GOOD, asset("Z", name=f"x {KEY}")), 1),
    "a-secret-as-symbol": (answers(*GOOD, asset(SECRET)), 1),
    "a-secret-escaped": (http(body=json.dumps([*GOOD, asset("Z", name="?")]).replace("?", ESCAPED).encode()), 1),
    "key-twice": (http(body=b'[{"symbol":"A","symbol":"B","status":"active","exchange":"NYSE"}]'), 1),
    "too-long": (http(body=b"[" + b" " * (9 << 20) + b"]"), 6),
    "redirect": (http(302, headers=[("Location", f"http://127.0.0.1:9/{SECRET}")]), 1),
    "not-found": (http(404, b'{"message":"\\u001b[2Jendpoint not found."}'), 1),
    "unauthorized": (http(401, b'{"code":40110000,"message":"request is not authorized"}'), 3),
}  # fmt: skip


@pytest.mark.parametrize(("body", "code"), BODIES.values(), ids=BODIES)
def test_a_response_that_cannot_be_trusted_stores_nothing(
    store: Path, body: bytes, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = RetryPolicy(tries=2, base=0.001, cap=0.002, give_up_after=5.0)
    monkeypatch.setattr(http_client, "RetryPolicy", lambda: policy)
    monkeypatch.setattr(http_client, "_BAD_PAGE_TRIES", 1)
    monkeypatch.setattr(transport, "_MOST_BYTES", 8 << 20)
    with Hostile(body) as server:
        ran = here("universe", "update", "--base-path", store, url=server.url)

    assert ran.code == code, ran.text
    assert not any(secret in ran.text for secret in (KEY, SECRET, "\x1b", "Traceback", "internal error"))
    assert (stored(store, "us_active"), stored(store, "us_inactive"), content(store)) == ([], [], {})
