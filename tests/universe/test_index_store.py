"""Named lists of symbols keep what they were."""

from __future__ import annotations

import re
import threading
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.errors import DamagedFile, InputError, SymbolListError, UnknownIndexError
from data_engine.market.time_range import new_york_days
from data_engine.store.file_store import Change
from data_engine.universe.index_names import check_index_name, index_name_of
from data_engine.universe.index_store import IndexChange, MetadataStore
from real_data import FOLDER
from stores import Place

DAY1, DAY2, DAY3, DAY4 = (date(2024, 1, day) for day in (2, 10, 20, 30))
UNIVERSE = FOLDER / "universe"


class Clock:
    """A calendar whose page is turned by hand."""

    def __init__(self, day: date) -> None:
        self.day = day

    def __call__(self) -> date:
        return self.day


class Content(MutableMapping):
    """The files of a place, by key; what is put there passes the program by."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def __getitem__(self, key: str) -> bytes:
        return self.place.content()[key]

    def __setitem__(self, key: str, content: bytes) -> None:
        self.place.put(key, content)

    def __delitem__(self, key: str) -> None:
        raise NotImplementedError

    def __iter__(self):
        return iter(self.place.content())

    def __len__(self) -> int:
        return len(self.place.content())

    def __eq__(self, other: object) -> bool:
        return self.place.content() == (other.place.content() if isinstance(other, Content) else other)

    __hash__ = None


class Witness:
    """The files of a place, watched: how often they are written to, and what may happen between two writes."""

    def __init__(self, place: Place) -> None:
        self._files = place.files
        self.location = place.base
        self.content = Content(place)
        self.writes: list[str] = []
        self.killed_at: str | None = None
        self.between: list[object] = []

    def __getattr__(self, name: str):
        return getattr(self._files, name)

    def update(self, key: str, change: Change) -> bool:
        def watched(content: bytes | None) -> bytes | None:
            made = change(content)
            if made is not None and key == self.killed_at:
                raise KeyboardInterrupt
            return made

        written = self._files.update(key, watched)
        if written:
            self.writes.append(key)
            for action in self.between:
                self.between = []
                action()
        return written


one_kind_is_enough = pytest.mark.parametrize("new_place", ["disk"], indirect=True)


@pytest.fixture
def memory(place):
    return Witness(place)


@pytest.fixture
def clock():
    return Clock(DAY1)


@pytest.fixture
def store(memory, clock):
    return MetadataStore(files=memory, today=clock)


def rows(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return symbols and the New York days on which they were added; these are stored as days, so that no time is lost."""
    local = frame.added_date.dt.tz_convert("America/New_York")
    assert (local == local.dt.normalize()).all()
    return list(zip(frame.symbol, local.dt.strftime("%Y-%m-%d"), strict=True))


LIST, HISTORY = "metadata/indices/tech.csv", "metadata/indices/history/tech.csv"


# Storing and loading


def test_a_list_comes_back_in_its_order_with_the_day_it_was_stored(store):
    change = store.store("tech", ["MSFT", "AAPL"])

    frame = store.load("tech")
    assert change == IndexChange("tech", 2, ("MSFT", "AAPL"), ())
    assert list(frame.columns) == ["symbol", "added_date"]
    assert rows(frame) == [("MSFT", "2024-01-02"), ("AAPL", "2024-01-02")]


def test_a_symbol_has_the_instant_at_which_it_was_added(memory):
    first, second = datetime(2024, 1, 2, 20, 30, 0, 123456, UTC), datetime(2024, 1, 3, 2, 15, tzinfo=UTC)  # one day in New York
    instants = iter([first, second])
    store = MetadataStore(files=memory, today=Clock(DAY1), now=lambda: next(instants))
    store.store("tech", ["MSFT"])
    store.store("tech", ["MSFT", "AAPL"])

    frame = store.load("tech")
    assert str(frame.added_date.dtype) == "datetime64[ns, UTC]"
    assert dict(zip(frame.symbol, frame.added_date, strict=True)) == {"MSFT": first, "AAPL": second}
    assert memory.content[LIST] == (b"symbol,added_date\nMSFT,2024-01-02T20:30:00.123456Z\nAAPL,2024-01-03T02:15:00Z\n")
    assert store.members("tech") == {"MSFT": DAY1, "AAPL": DAY1}


@pytest.mark.parametrize("index", [False, True])
def test_a_list_that_pandas_wrote_is_read_with_its_instants(store, memory, index):
    """As the legacy pipeline writes it."""
    added = [pd.Timestamp("2025-01-15 14:30:00.123456", tz="UTC"), pd.Timestamp("2025-01-16 03:00", tz="UTC")]
    table = pd.DataFrame({"symbol": ["AAPL", "NA"], "added_date": added})
    memory.content[LIST] = table.to_csv(index=index).encode()

    pd.testing.assert_series_equal(store.load("tech").added_date, table.added_date.astype("datetime64[ns, UTC]"))
    assert store.members("tech") == {"AAPL": date(2025, 1, 15), "NA": date(2025, 1, 15)}


def test_a_list_with_a_derived_name_never_changes_an_index_that_was_stored_by_name(store, memory):
    store.store("tech", ["A", "B", "C", "D"])
    before = dict(memory.content)

    assert store.store("tech", ["A"], force=False, derived=True).kept
    assert not store.store("tech", ["D", "C", "B", "A"], derived=True).kept, "the same members"
    assert memory.content == before


def test_a_list_with_a_derived_name_replaces_its_own_whatever_it_drops_and_keeps_its_history(store, clock):
    store.store("tech", ["A", "B", "C", "D"], force=False, derived=True)
    clock.day = DAY2
    store.store("tech", ["A"], force=False, derived=True)

    assert list(store.members("tech")) == ["A"]
    assert list(store.members("tech", as_of=DAY1)) == ["A", "B", "C", "D"]
    store.store("tech", ["A", "B"])
    assert store.store("tech", ["C"], derived=True).kept, "it was stored by name since"


def test_symbols_are_made_canonical(store):
    store.store("tech", [" msft", "brk-b", "MSFT", "na", "true"])

    assert list(store.load("tech").symbol) == ["MSFT", "BRK-B", "NA", "TRUE"]


def test_words_for_missing_values_stay_text(store):
    store.store("odd", ["NA", "NAN", "NULL", "TRUE", "INF", "2330", "1E5"])

    frame = store.load("odd")
    assert list(frame.symbol) == ["NA", "NAN", "NULL", "TRUE", "INF", "2330", "1E5"]
    assert all(type(value) is str for value in frame.symbol)
    assert not frame.isna().any(axis=None)


def test_the_files_are_plain_csv(store, memory, clock):
    store.store("tech", ["MSFT", "AAPL"])
    clock.day = DAY2
    store.store("tech", ["AAPL", "NVDA", "MSFT"])

    assert memory.content == {
        LIST: b"symbol,added_date\nAAPL,2024-01-02\nNVDA,2024-01-10\nMSFT,2024-01-02\n",
        HISTORY: b"date,action,symbol\n2024-01-02,added,MSFT\n2024-01-02,added,AAPL\n2024-01-10,added,NVDA\n",
    }


def test_duckdb_reads_the_list_from_disk(place):
    MetadataStore(files=place.files, today=Clock(DAY1)).store("s_and_p_500", ["NA", "AAPL"])

    with duckdb.connect() as db:
        path = (place.copy() / "metadata" / "indices" / "s_and_p_500.csv").as_posix()
        assert db.execute(f"FROM read_csv('{path}', nullstr='')").fetchall() == [("NA", DAY1), ("AAPL", DAY1)]


def test_a_symbol_already_listed_keeps_its_day(store, clock):
    store.store("tech", ["AAPL", "MSFT"])
    clock.day = DAY2
    change = store.store("tech", ["NVDA", "MSFT", "AAPL"])

    assert rows(store.load("tech")) == [("NVDA", "2024-01-10"), ("MSFT", "2024-01-02"), ("AAPL", "2024-01-02")]
    assert change == IndexChange("tech", 3, ("NVDA",), ())


def test_storing_a_list_again_writes_nothing(store, memory, clock):
    store.store("tech", ["AAPL", "MSFT"])
    before, memory.writes = dict(memory.content), []
    clock.day = DAY2

    assert store.store("tech", ["AAPL", "MSFT"]) == IndexChange("tech", 2, (), ())
    assert (memory.content, memory.writes) == (before, [])


def test_a_symbol_that_returns_gets_a_new_day(store, clock):
    for clock.day, symbols in ((DAY1, ["AAPL", "MSFT"]), (DAY2, ["AAPL"]), (DAY3, ["AAPL", "MSFT"])):
        store.store("tech", symbols, force=True)

    assert rows(store.load("tech")) == [("AAPL", "2024-01-02"), ("MSFT", "2024-01-20")]


def test_a_day_is_given_as_date_text_or_midnight(store, clock):
    clock.day = DAY4
    for n, day in enumerate(["2024-01-03", date(2024, 1, 4), datetime(2024, 1, 5), pd.Timestamp("2024-01-06")]):
        store.store(f"i{n}", ["AAPL"], on=day)

    assert [rows(store.load(name))[0][1] for name in store.names()] == ["2024-01-03", "2024-01-04", "2024-01-05", "2024-01-06"]


@pytest.mark.parametrize(
    "day", ["yesterday", "01/02/2024", 20240102, datetime(2024, 1, 2, 12), datetime(2024, 1, 2, tzinfo=UTC), ""], ids=repr
)
@one_kind_is_enough
def test_what_is_no_day_is_refused(store, memory, day):
    with pytest.raises(InputError, match=re.escape(f"on {day!r}")):
        store.store("tech", ["AAPL"], on=day)
    with pytest.raises(InputError, match=re.escape(f"as_of {day!r}")):
        store.load("tech", as_of=day)
    assert memory.content == {}


@pytest.mark.parametrize(
    ("symbols", "why"), [([], "no symbol"), (["AAPL", "A B", ""], "2 of the given symbols(.|\n)*item 2: 'A B'(.|\n)*item 3: ''")]
)
@one_kind_is_enough
def test_a_bad_list_is_refused_and_nothing_is_written(store, memory, symbols, why):
    with pytest.raises(SymbolListError, match=why):
        store.store("tech", symbols)
    assert memory.content == {}


# As it was


@pytest.fixture
def moving(store, clock):
    """A list that changed twice, on days after the first."""
    clock.day = DAY4
    store.store("tech", ["A", "B", "C", "D", "E"], on=DAY1)
    store.store("tech", ["F", "E", "D", "C", "B"], on=DAY2)
    store.store("tech", ["A", "F", "E", "D", "C"], on=DAY3)
    return store


@pytest.mark.parametrize(
    ("as_of", "expected"),
    [
        pytest.param(DAY1, "A1 B1 C1 D1 E1", id="the-first-day"),
        pytest.param(DAY2 - timedelta(days=1), "A1 B1 C1 D1 E1", id="the-day-before-a-change"),
        pytest.param(DAY2, "B1 C1 D1 E1 F2", id="the-day-of-a-change"),
        pytest.param("2024-01-19", "B1 C1 D1 E1 F2", id="a-day-as-text"),
        pytest.param(DAY3, "A3 F2 E1 D1 C1", id="the-last-change-in-the-order-stored"),
        pytest.param(date(2100, 1, 1), "A3 F2 E1 D1 C1", id="a-day-to-come"),
        pytest.param(None, "A3 F2 E1 D1 C1", id="now"),
    ],
)
def test_a_list_is_known_as_it_was(moving, as_of, expected):
    days = {"1": "2024-01-02", "2": "2024-01-10", "3": "2024-01-20"}

    assert rows(moving.load("tech", as_of=as_of)) == [(symbol, days[n]) for symbol, n in expected.split()]


def test_what_a_list_was_before_it_was_stored_is_not_known(moving):
    with pytest.raises(InputError, match=r"'tech'.*2024-01-02.* 2024-01-01; run `data-engine index import tech"):
        moving.load("tech", as_of="2024-01-01")


def test_several_changes_of_one_day_leave_the_last(store):
    for symbols in ("AB", "BC", "AB"):
        store.store("tech", list(symbols), on=DAY1, force=True)

    assert sorted(store.members("tech", as_of=DAY1)) == ["A", "B"]


def test_days_do_not_go_back(moving, memory):
    before = dict(memory.content)

    with pytest.raises(InputError, match=r"2024-01-19: index 'tech'.* 2024-01-20"):
        moving.store("tech", ["A", "F", "E", "D", "X"], on="2024-01-19")
    assert memory.content == before


def test_days_to_come_are_refused(store, memory):
    with pytest.raises(InputError, match="2024-01-04"):
        store.store("tech", ["A"], on=DAY1 + timedelta(days=2))
    assert memory.content == {}
    assert store.store("tech", ["A"], on=DAY1 + timedelta(days=1)).members == 1  # it is tomorrow in Tokyo


def test_a_clock_that_went_back_does_not_spoil_the_history(moving, clock):
    clock.day = DAY1
    moving.store("tech", ["A", "F", "E", "D", "G"])

    assert moving.members("tech")["G"] == DAY3
    assert list(moving.members("tech", as_of=DAY2)) == ["B", "C", "D", "E", "F"]


a_list = st.lists(st.sampled_from("ABCDEFGH"), min_size=1, unique=True)


def test_every_day_gives_back_the_list_stored_last(new_place):
    @settings(max_examples=60 if new_place().on_disk else 10, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 3), a_list), min_size=1, max_size=8))
    def check(changes):
        gives_back_every_list(MetadataStore(files=new_place().files, today=Clock(date(2024, 12, 31))), changes)

    check()


def gives_back_every_list(store, changes):
    day, lists, since = DAY1, {}, {}
    for pause, symbols in changes:
        day += timedelta(days=pause)
        store.store("x", symbols, on=day, force=True)
        since = {symbol: since.get(symbol, day) for symbol in symbols}
        lists[day] = since

    for n in range((day - DAY1).days + 2):
        known = [lists[stored] for stored in lists if stored <= DAY1 + timedelta(days=n)]
        if known:
            assert store.members("x", as_of=DAY1 + timedelta(days=n)) == known[-1]
    assert list(store.members("x").items()) == list(since.items())


@pytest.mark.skipif(not UNIVERSE.is_dir(), reason="the real lists are not at ../shared/data/universe")
@one_kind_is_enough
def test_twenty_years_of_a_real_index_come_back_day_by_day(store, clock):
    """The changes are counted by DuckDB: who is in on a day is whose last action up to it was ``added``."""
    changes, seed = ((UNIVERSE / "pitindex" / name).as_posix() for name in ("sp500_changes.csv", "sp500_seed.csv"))
    clock.day = date(2100, 1, 1)
    with duckdb.connect() as db:
        db.execute(f"CREATE TABLE seed AS SELECT ticker FROM read_csv('{seed}', all_varchar=true, nullstr='')")
        columns = "date::DATE AS day, action, ticker, row_number() OVER () AS n"
        db.execute(
            f"CREATE TABLE changes AS SELECT {columns} FROM read_csv('{changes}', all_varchar=true, nullstr='', parallel=false)"
        )
        db.execute("INSERT INTO changes SELECT DATE '2004-12-30', 'added', ticker, 0 FROM seed")
        query = "SELECT ticker FROM changes WHERE day <= ? GROUP BY ticker HAVING arg_max(action, n) = 'added'"
        days = [day for (day,) in db.execute("SELECT DISTINCT day FROM changes ORDER BY day").fetchall()]
        lists = {day: {symbol for (symbol,) in db.execute(query, [day]).fetchall()} for day in days}

    sample = days[::25]
    for day in sample:
        store.store("sp500", sorted(lists[day]), on=day, force=True)

    assert [set(store.load("sp500", as_of=day).symbol) for day in sample] == [lists[day] for day in sample]
    assert len(sample) > 10


# Losing members


def test_a_fifth_of_the_members_may_leave(store):
    store.store("tech", list("ABCDEFGHIJ"))

    assert store.store("tech", list("ABCDEFGH"), force=False).removed == ("I", "J")


@pytest.mark.parametrize("symbols", [list("ABCDEFG"), list("ABCDEFGXYZ"), ["X"]])
def test_more_than_a_fifth_needs_force(store, memory, symbols):
    store.store("tech", list("ABCDEFGHIJ"))
    before = dict(memory.content)
    lost = len(set("ABCDEFGHIJ") - set(symbols))

    with pytest.raises(InputError) as error:
        store.store("tech", symbols, force=False)
    assert re.search(rf"\b{len(symbols)} symbols as index 'tech'.* {lost} of its 10 members", str(error.value))
    assert "--force" in str(error.value)
    assert memory.content == before

    assert store.store("tech", symbols, force=True).members == len(symbols)
    assert list(store.load("tech").symbol) == symbols


def test_whoever_stores_a_list_by_name_means_it(store):
    """As the contract's examples do, one after the other; the question is asked where an ingestion brings the list along."""
    store.store("tech", list("ABCDEFGHIJ"))
    store.store("tech", ["A", "B"])

    assert list(store.load("tech").symbol) == ["A", "B"]


# Names


@pytest.mark.parametrize(
    "name", ["tech", "s_and_p_500", "sp500-2025", "v1.2", "A", "x" * 64, "Tech", "500", "history", "conx", "con_"]
)
@one_kind_is_enough
def test_a_name_that_is_a_file_everywhere_is_accepted(store, name):
    assert name == check_index_name(name)
    store.store(name, ["AAPL"])

    assert store.names() == [name]


@pytest.mark.parametrize(
    "name",
    [
        "", "x" * 65, ".", "..", "../x", "a/b", "a\\b", "/etc/passwd", "C:x", "a b", " a", "a.", "-x", ".hidden", "a\0b",
        "a\n", "a*",
        "CON", "nul", "Com1", "lpt9.old", "aux.x.y",
        "\N{LATIN SMALL LETTER A WITH DIAERESIS}", None, 7,
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("verb", ["store", "load"])
@one_kind_is_enough
def test_a_name_that_is_not_is_refused_and_nothing_is_written(store, memory, name, verb):
    with pytest.raises(InputError, match=r"index name ") as error:
        store.store(name, ["AAPL"]) if verb == "store" else store.load(name)

    assert repr(name) in str(error.value)
    assert memory.content == {}


def test_names_that_differ_in_case_alone_are_refused(store):
    store.store("Tech", ["AAPL"])

    with pytest.raises(InputError, match=r"'tech'.*'Tech'"):
        store.store("tech", ["AAPL"])
    assert store.names() == ["Tech"]


def test_an_unknown_index_lists_those_there_are(store):
    store.store("tech", ["AAPL"])
    store.store("dow", ["AAPL"])

    with pytest.raises(UnknownIndexError, match=r"'teck'.* dow, tech$") as error:
        store.load("teck")
    assert isinstance(error.value, KeyError)


def test_an_unknown_index_says_when_there_is_none_and_creates_nothing(tmp_path):
    store = MetadataStore(tmp_path / "absent")

    assert store.names() == []
    with pytest.raises(UnknownIndexError, match=r"'tech'.*absent"):
        store.load("tech")
    assert not (tmp_path / "absent").exists()


def test_files_that_are_no_index_have_no_name(store, memory):
    store.store("tech", ["AAPL"])
    memory.content.update(
        dict.fromkeys(["metadata/indices/my list.csv", "metadata/indices/a.txt", "metadata/indices/x/y.csv"], b"x")
    )

    assert store.names() == ["tech"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("sp500-2025.csv", "sp500_2025"),
        ("/some/where/SP500 2025.CSV", "sp500_2025"),
        ("nasdaq100_Ticker_col_20260125.csv", "nasdaq100_ticker_col_20260125"),
        ("Dow Jones (30) .txt", "dow_jones_30"),
        ("list", "list"),
        ("v1.2", "v1_2"),
        ("a.b.csv", "a_b"),
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}.csv", "caf"),
        ("con.csv", "con_list"),
        ("x" * 100 + ".csv", "x" * 64),
        (Path("lists") / "tech.tsv", "tech"),
    ],
)
def test_a_file_gives_its_index_a_name(path, name):
    assert name == index_name_of(path)
    assert name == check_index_name(name)


@pytest.mark.parametrize("path", ["---.csv", "", ".csv", "\N{CJK UNIFIED IDEOGRAPH-65E5}.csv"])
def test_a_file_without_a_usable_name_needs_one(path):
    with pytest.raises(InputError, match="--index"):
        index_name_of(path)


@given(st.text(min_size=1))
def test_any_file_gives_a_good_name_or_none(path):
    try:
        name = index_name_of(path)
    except InputError:
        return

    assert name == check_index_name(name)


# Files changed by hand, killed writers, several writers


def test_what_a_spreadsheet_leaves_is_read(store, memory):
    memory.content[LIST] = b"\xef\xbb\xbfsymbol,added_date\r\nAAPL,2020-05-01\r\nMSFT,2019-01-01\r\n\r\n"

    assert rows(store.load("tech")) == [("AAPL", "2020-05-01"), ("MSFT", "2019-01-01")]


def test_a_list_without_a_history_is_known_since_the_last_day_on_which_a_symbol_was_added(store, memory):
    """Whoever left before is in no file: MSFT alone is not the index of 2019."""
    memory.content[LIST] = b"symbol,added_date\nAAPL,2020-05-01\nMSFT,2019-01-01\n"

    with pytest.raises(InputError, match=r"2020-05-01.* 2020-04-30"):
        store.load("tech", as_of="2020-04-30")
    with pytest.raises(InputError, match=r"2020-05-01.* 2019-06-03"):
        store.memberships("tech", new_york_days(date(2019, 6, 3), date(2024, 1, 2)))
    for as_of in ("2020-05-01", "2023-06-01", None):
        assert rows(store.load("tech", as_of=as_of)) == [("AAPL", "2020-05-01"), ("MSFT", "2019-01-01")]

    store.store("tech", ["AAPL", "MSFT", "NVDA"])
    assert memory.content[HISTORY] == (
        b"date,action,symbol\n2020-05-01,added,AAPL\n2020-05-01,added,MSFT\n2024-01-02,added,NVDA\n"
    )
    assert rows(store.load("tech")) == [("AAPL", "2020-05-01"), ("MSFT", "2019-01-01"), ("NVDA", "2024-01-02")]
    assert store.outdated("tech") == []


def test_a_list_changed_by_hand_does_not_change_the_members_until_it_is_stored(store, memory, clock):
    store.store("tech", ["A", "B"])
    memory.content[LIST] = b"symbol,added_date\nA,2024-01-02\nZ,2024-01-05\n"
    clock.day = DAY2

    assert store.members("tech") == store.members("tech", as_of=DAY2) == {"A": DAY1, "B": DAY1}
    assert store.outdated("tech") == ["B", "Z"]
    change = store.store("tech", ["A", "Z", "C"])
    assert (change.added, change.removed) == (("Z", "C"), ("B",))
    assert store.members("tech", as_of=DAY1) == {"A": DAY1, "B": DAY1}
    assert store.members("tech") == {"A": DAY1, "Z": DAY2, "C": DAY2}
    assert store.outdated("tech") == []


def test_a_header_alone_is_an_empty_list(store, memory):
    memory.content[LIST] = b"symbol,added_date\n"

    frame = store.load("tech")
    assert (len(frame), list(frame.columns)) == (0, ["symbol", "added_date"])
    with pytest.raises(InputError, match="2024-01-02"):
        store.load("tech", as_of=DAY1)


@pytest.mark.parametrize(
    ("key", "content", "why"),
    [
        pytest.param(LIST, b"Symbol\nAAPL\n", "line 1: .*symbol,added_date", id="another-header"),
        pytest.param(LIST, b"symbol,added_date\nA,2024-01-02\nB\n", "line 3: .*1 .*2", id="a-cell-missing"),
        pytest.param(LIST, b"symbol,added_date\nA,1/2/2024\n", "line 2: Invalid isoformat", id="a-date-of-a-spreadsheet"),
        pytest.param(LIST, b"symbol,added_date\nA B,2024-01-02\n", "line 2: .*'A B'", id="no-symbol"),
        pytest.param(LIST, b"symbol,added_date\nA,2024-01-02\na,2024-01-03\n", "line 3: a ", id="twice"),
        pytest.param(LIST, b'symbol,added_date\n"A,2024-01-02\n', "unexpected end", id="an-open-quotation-mark"),
        pytest.param(LIST, b"symbol,added_date\n\xff,2024-01-02\n", "utf-8", id="another-encoding"),
        pytest.param(HISTORY, b"date,action,symbol\n2024-01-02,bought,A\n", "line 2: .*'bought'", id="no-action"),
        pytest.param(HISTORY, b"date,action,symbol\n2024-01-02,added,A\n2024-01-01,added,B\n", "line 3: ", id="back"),
        pytest.param(HISTORY, b"x\n", "line 1: .*date,action,symbol", id="a-history-with-another-header"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_its_line_and_left_alone(store, memory, new_place, key, content, why):
    if not content and new_place().kind != "disk":
        pytest.skip("an empty object is no file")
    store.store("tech", ["A", "B"])
    memory.content[key] = content
    before = dict(memory.content)

    with pytest.raises(DamagedFile, match=why) as error:
        store.load("tech", as_of=DAY1)
    assert f"{memory.location}/{key}" in str(error.value)
    with pytest.raises(DamagedFile, match=why):
        store.store("tech", ["A", "B", "C"], force=True)
    assert memory.content == before


@pytest.mark.parametrize("key", [LIST, HISTORY])
def test_a_writer_that_was_killed_is_made_good_by_the_next(store, memory, clock, key):
    store.store("tech", ["A", "B"])
    clock.day, memory.killed_at = DAY2, key
    with pytest.raises(KeyboardInterrupt):
        store.store("tech", ["A", "B", "C"])
    written = ["A", "B", "C"] if key == LIST else ["A", "B"]  # what the history says
    assert list(store.members("tech")) == list(store.members("tech", as_of=DAY2)) == written

    clock.day, memory.killed_at = DAY3, None
    store.store("tech", ["A", "B", "C"])

    known_since = DAY2 if key == LIST else DAY3  # the day on which the change was first remembered
    assert store.members("tech") == {"A": DAY1, "B": DAY1, "C": known_since}
    assert store.members("tech", as_of=DAY3) == store.members("tech")
    assert store.members("tech", as_of=DAY1) == {"A": DAY1, "B": DAY1}


def as_lines(content: bytes) -> list[list[str]]:
    return [line.split(",") for line in content.decode().splitlines()[1:]]


@pytest.mark.parametrize("killed", [(DAY2,), (DAY3,), (DAY2, DAY3)])
def test_all_readers_agree_whichever_writer_was_killed_between_the_files(store, memory, clock, killed):
    """The lines of the history, read one by one, are the truth; a symbol that returns was not added when it first came."""
    lists = {DAY1: ["B", "A"], DAY2: ["B"], DAY3: ["A", "B"]}
    for clock.day, symbols in lists.items():
        memory.killed_at = LIST if clock.day in killed else None
        with suppress(KeyboardInterrupt):
            store.store("tech", symbols)
        inside: dict[str, str] = {}
        for day, action, symbol in as_lines(memory.content[HISTORY]):
            if action == "added":
                inside[symbol] = day
            else:
                del inside[symbol]
        assert set(inside) == set(symbols)
        assert {symbol: str(day) for symbol, day in store.members("tech").items()} == inside
        assert dict(rows(store.load("tech"))) == dict(rows(store.load("tech", as_of=clock.day))) == inside
        assert set(store.memberships("tech", new_york_days(clock.day, clock.day))) == set(inside)
        listed = {symbol: text[:10] for symbol, text in as_lines(memory.content[LIST])}
        assert bool(store.outdated("tech")) is (listed != inside)

    memory.killed_at = None
    store.store("tech", lists[DAY3])
    assert {symbol: text[:10] for symbol, text in as_lines(memory.content[LIST])} == inside
    assert store.outdated("tech") == []


def test_a_writer_between_the_two_files_of_another_leaves_them_agreeing(store, memory):
    memory.between = [lambda: store.store("tech", ["A", "C"], force=True)]
    store.store("tech", ["A", "B"])

    assert set(store.members("tech")) == {"A", "C"}
    assert memory.content[HISTORY].decode().splitlines()[1:] == [
        "2024-01-02,added,A", "2024-01-02,added,B", "2024-01-02,removed,B", "2024-01-02,added,C",
    ]  # fmt: skip


def test_writers_at_once_lose_nothing(place):
    files = place.files
    lists = [[f"S{n}", f"T{n}", "AAPL"] for n in range(8)]
    threads = [
        threading.Thread(target=MetadataStore(files=files).store, args=("x", each), kwargs={"force": True}) for each in lists
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    store = MetadataStore(files=place.open())
    history = place.content()["metadata/indices/history/x.csv"].decode().splitlines()[1:]
    inside: set[str] = set()
    for _, action, symbol in (line.split(",") for line in history):
        assert (symbol in inside) is (action == "removed")
        inside ^= {symbol}
    assert sorted(store.members("x")) == sorted(inside)
    assert sorted(inside) in [sorted(each) for each in lists]
    assert {f"{letter}{n}" for n in range(8) for letter in "ST"} <= {line.split(",")[2] for line in history}


# The place of the store


def test_the_base_path_comes_from_the_settings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_ENGINE_BASE_PATH", str(tmp_path / "bars"))
    MetadataStore().store("tech", ["AAPL"])

    assert (tmp_path / "bars" / "metadata" / "indices" / "tech.csv").is_file()
    assert MetadataStore(tmp_path / "bars").names() == ["tech"]


def test_the_base_path_may_be_any_place(shared_place, monkeypatch):
    monkeypatch.setenv("DATA_ENGINE_BASE_PATH", shared_place.base)
    MetadataStore().store("tech", ["AAPL"])

    assert set(shared_place.content()) == {HISTORY, LIST}
    assert MetadataStore(shared_place.base).names() == ["tech"]


def test_the_day_is_new_yorks(tmp_path):
    store = MetadataStore(tmp_path)
    before = pd.Timestamp.now(tz="America/New_York").date()
    store.store("tech", ["AAPL"])

    assert before <= store.members("tech")["AAPL"] <= pd.Timestamp.now(tz="America/New_York").date()
