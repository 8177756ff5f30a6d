"""``index``, ``status --index`` and ``ingest --ever``: an index and its past on the command line and in `MetadataStore`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest

from data_engine import MetadataStore
from data_engine.errors import InputError, UnknownIndexError
from data_engine.market.time_range import TimeRange, new_york_days
from data_engine.sandbox import Sandbox, SimulatedMarket
from real_data import real
from running import here

CHANGES = "date,action,symbol\n2024-03-04,removed,MSFT\n2024-03-04,added,NVDA\n2024-03-06,removed,NVDA\n2024-03-06,added,TSLA\n"


@pytest.fixture
def server() -> Iterator[Sandbox]:
    with Sandbox(SimulatedMarket()) as sandbox:
        yield sandbox


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A store with a list of today, and a file of changes beside it."""
    MetadataStore(tmp_path / "store").store("tech", ["AAPL", "TSLA"])
    (tmp_path / "changes.csv").write_text(CHANGES)
    return tmp_path / "store"


def lists(base: Path) -> MetadataStore:
    return MetadataStore(base)


# ---------------------------------------------------------------------------------------------------------- MetadataStore


def test_a_stored_list_and_changes_give_it_a_past(base: Path) -> None:
    made = lists(base).import_history("tech", base.parent / "changes.csv")

    assert (made.since, made.members, made.warnings) == (date(2024, 3, 4), 2, ())
    assert [sorted(lists(base).members("tech", day)) for day in ("2024-03-04", "2024-03-05", "2024-03-06")] == [
        ["AAPL", "NVDA"],
        ["AAPL", "NVDA"],
        ["AAPL", "TSLA"],
    ]
    with pytest.raises(InputError, match=r"2024-03-04.*2024-03-03"):
        lists(base).members("tech", "2024-03-03")


def test_the_same_import_again_changes_no_file(base: Path) -> None:
    lists(base).import_history("tech", base.parent / "changes.csv")
    files = {path: path.read_bytes() for path in base.rglob("*.csv")}

    lists(base).import_history("tech", base.parent / "changes.csv")

    assert {path: path.read_bytes() for path in base.rglob("*.csv")} == files


def test_a_list_goes_on_being_stored_after_an_import(base: Path) -> None:
    store = lists(base)
    store.import_history("tech", base.parent / "changes.csv")
    store.store("tech", ["AAPL", "AMD"])
    again = store.import_history("tech", base.parent / "changes.csv")

    assert (again.members, again.warnings) == (2, ())
    assert list(store.members("tech")) == ["AAPL", "AMD"]
    assert sorted(store.members("tech", "2024-03-05")) == ["AAPL", "NVDA"]


def test_changes_of_days_to_come_wait(base: Path) -> None:
    (base.parent / "changes.csv").write_text(CHANGES + "2024-06-03,added,AMD\n")
    store = MetadataStore(base, today=lambda: date(2024, 6, 1))
    with pytest.raises(InputError, match="as_of 2024-06-02"):
        store.import_history("new", members=base.parent / "changes.csv", as_of="2024-06-02")

    made = store.import_history("tech", base.parent / "changes.csv", force=False)

    assert (made.to_come, "AMD" in store.members("tech")) == (1, False)


def test_an_import_that_would_drop_a_fifth_of_the_list_needs_force(base: Path) -> None:
    (base.parent / "list.txt").write_text("IBM\n")
    store = MetadataStore(base, today=lambda: date(2024, 6, 1))
    store.store("old", ["A", "B"], on=date(2024, 1, 1))
    words = {"members": base.parent / "list.txt", "as_of": "2024-02-01"}
    with pytest.raises(InputError, match="20 %"):
        store.import_history("old", **words)

    store.import_history("old", **words, force=True)

    assert list(store.members("old")) == ["IBM"]


def test_memberships_are_those_of_the_span_and_a_span_before_the_first_list_is_refused(base: Path) -> None:
    lists(base).import_history("tech", base.parent / "changes.csv")
    span = new_york_days(date(2024, 3, 5), date(2024, 3, 6))

    assert lists(base).memberships("tech", span) == {
        "AAPL": (span,),
        "NVDA": (new_york_days(date(2024, 3, 5), date(2024, 3, 5)),),
        "TSLA": (new_york_days(date(2024, 3, 6), date(2024, 3, 6)),),
    }
    with pytest.raises(InputError, match=r"2024-03-03.*`data-engine index import tech"):
        lists(base).memberships("tech", TimeRange(datetime(2024, 3, 4, 4, tzinfo=UTC), span.end))
    with pytest.raises(UnknownIndexError, match="tech"):
        lists(base).memberships("tec", span)


def test_a_list_written_by_hand_has_memberships_since_its_last_day(tmp_path: Path) -> None:
    (tmp_path / "metadata/indices").mkdir(parents=True)
    (tmp_path / "metadata/indices/mine.csv").write_text("symbol,added_date\nA,2024-01-02\nB,2024-01-03\n")
    known = new_york_days(date(2024, 1, 3), date(2024, 1, 4))

    assert lists(tmp_path).memberships("mine", known) == {"A": (known,), "B": (known,)}
    with pytest.raises(InputError, match="known since 2024-01-03"):
        lists(tmp_path).memberships("mine", new_york_days(date(2024, 1, 2), date(2024, 1, 4)))


# ---------------------------------------------------------------------------------------------------------------- the commands


def test_the_real_index_is_imported_shown_and_listed(base: Path) -> None:
    folder = "universe/pitindex/sp500_"
    words = ("--changes", real(f"{folder}changes.csv"), "--members", real(f"{folder}seed.csv"), "--base-path", base, "--json")
    ran = here("index", "import", "sp500", *words)
    then = here("index", "show", "sp500", "--on", "2010-06-30", "--base-path", base, "--json").json
    found = here("index", "list", "--base-path", base, "--json").json["indices"]

    assert ran.json == {
        "index": "sp500",
        "known_since": "2004-12-30",
        "last_change": "2026-06-30",
        "members": 503,
        "warnings": [],
        "to_come": 0,
    }
    # DuckDB counts: the seed, and each symbol's last change until that day.
    last = f"""SELECT ticker, arg_max(action, n) AS action FROM (SELECT *, row_number() OVER () AS n
               FROM read_csv('{real(f"{folder}changes.csv")}')) WHERE date <= '2010-06-30' GROUP BY ticker"""
    expected = duckdb.sql(
        f"SELECT ticker FROM ({last}) WHERE action = 'added' UNION SELECT ticker FROM read_csv('{real(f'{folder}seed.csv')}') "
        f"WHERE ticker NOT IN (SELECT ticker FROM ({last}))"
    ).fetchall()
    assert sorted(one["symbol"] for one in then["members"]) == sorted(symbol for (symbol,) in expected)
    assert [one["index"] for one in found] == ["sp500", "tech"]
    assert found[0]["known_since"] == "2004-12-30"


def test_a_contradiction_is_a_warning_with_its_line(base: Path) -> None:
    (base.parent / "changes.csv").write_text(CHANGES + "2024-03-07,added,TSLA\n2024-03-08,removed,IBM\n2024-03-09,added,IBM\n")

    ran = here("index", "import", "tech", "--changes", base.parent / "changes.csv", "--base-path", base)

    assert (ran.code, "2 of 7 changes" in ran.err) == (2, True)
    assert here("index", "import", "tech", "--changes", base.parent / "changes.csv", "--base-path", base, "--force").code == 0
    more = "".join(f"2024-04-01,added,A{n}\n2024-04-02,removed,A{n}\n" for n in range(9))
    (base.parent / "changes.csv").write_text(CHANGES + "2024-03-07,added,TSLA\n" + more)
    ran = here("index", "import", "tech", "--changes", base.parent / "changes.csv", "--base-path", base)
    assert ran.code == 0
    assert "Warning: changes.csv: line 5: TSLA added on 2024-03-06" in ran.err


def test_the_commands_want_a_store(tmp_path: Path) -> None:
    for words in (("list",), ("show", "x"), ("import", "x", "--changes", "f.csv")):
        ran = here("index", *words, "--base-path", tmp_path / "nowhere")

        assert (ran.code, "no store at" in ran.err, ran.out) == (4, True, "")
    assert not (tmp_path / "nowhere").exists()


def test_ever_ingests_all_that_were_members_at_any_time_in_the_range(base: Path, server: Sandbox) -> None:
    here("index", "import", "tech", "--changes", base.parent / "changes.csv", "--base-path", base)
    words = ("ingest", "--index", "tech", "--start", "2024-03-04", "--timeframe", "1Day", "--base-path", base)

    ran = here(*words, "--end", "2024-03-05", "--ever", url=server.url)

    assert ran.code == 0, ran.text
    bars = [one.query for one in server.requests if "timeframe" in one.query]
    assert {(one["symbols"], one.get("asof")) for one in bars} == {
        ("AAPL", None),
        ("NVDA", "2024-03-05"),
    }  # TSLA came the day after
    ran = here(*words, "--end", "2024-03-06", "--ever", "--json", url=server.url)
    assert ran.json["successful"] == ["AAPL", "NVDA@2024-03-05", "TSLA"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("AAPL", "--ever", "--start", "2024-03-04"), "--index"),
        (("--index", "tech", "AAPL", "--ever", "--start", "2024-03-04"), "--index"),
        (("--index", "tech", "--ever"), "--start"),
        (("--index", "tech", "--ever", "--start", "2020-01-01"), "known since"),
    ],
    ids=["no-index", "a-list-too", "no-start", "before-the-first-list"],
)
def test_ever_is_refused_where_it_means_nothing(base: Path, server: Sandbox, words: tuple[str, ...], said: str) -> None:
    ran = here("ingest", *words, "--base-path", base, url=server.url)

    assert (ran.code, said in ran.err.splitlines()[-1], server.requests) == (2, True, [])


def test_status_names_members_without_bars_and_those_that_were_members_then(base: Path, server: Sandbox) -> None:
    here("index", "import", "tech", "--changes", base.parent / "changes.csv", "--base-path", base)
    store = ("--base-path", base)
    here("ingest", "AAPL", "IBM", "--start", "2024-03-01", "--end", "2024-03-08", "--timeframe", "1Day", *store, url=server.url)

    before = here("status", "--index", "tech", "--json", *store).json
    told = here("status", "--index", "tech", *store).out
    here("ingest", "NVDA", "--start", "2024-03-01", "--end", "2024-03-08", "--timeframe", "1Day", *store, url=server.url)
    after = here("status", "--index", "tech", "--json", *store).json

    assert [one["symbol"] for one in before["series"]] == ["AAPL"]  # IBM is no member
    assert before["index"]["datasets"] == [
        {
            "dataset": "equities_1day",
            "stored": ["2024-03-01T05:00:00Z", "2024-03-09T05:00:00Z"],
            "members": 2,
            "without_bars": ["TSLA"],
            "former_members": 1,
            "former_without_bars": ["NVDA"],
        }
    ]
    assert "tech in equities_1day: 1 of 2 members have bars\n  without: TSLA\n" in told
    assert after["index"]["datasets"][0]["former_without_bars"] == []
    assert (here("status", "AAPL", "--index", "tech", *store).code, here("status", "--index", "nix", *store).code) == (2, 2)
