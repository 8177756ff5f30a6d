"""The undo log as values: records, differences, chains. A model that knows what a file was tells what each must say."""

from __future__ import annotations

import random
import zlib
from base64 import b85decode
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.market.bar_parquet import to_parquet
from data_engine.market.bars import VALUES, make_table, merge, numbers, timestamps_us
from data_engine.store.file_count import Fingerprint
from data_engine.store.history.bar_changes import ChangedBars
from data_engine.store.history.bar_undo import bars_undo, counts_of, old_bars, replaces_most
from data_engine.store.history.chain import NEVER, Chain, Link, walk
from data_engine.store.history.head import Actor, Replaced, found_at_beginning
from data_engine.store.history.head import entries_of as recorded
from data_engine.store.history.old_rows import pack_rows, unpack_rows
from data_engine.store.history.pack import Pack, pack
from data_engine.store.history.record import Entry, dump, is_cut_off, load
from data_engine.store.history.revert import earlier
from data_engine.store.history.text_edits import edited_text, text_edits
from data_engine.store.history.undo import ABSENT, Edited, Kind, Undo, undo_of

KEY = "metadata/coverage/equities_1min/symbol=A.json"

BARS_KEY = "equities_1min/symbol=A/year=2024/month=06/data.parquet"

T0 = datetime(2024, 6, 3, 12, tzinfo=UTC)


def at(minute: int) -> datetime:
    return T0 + timedelta(minutes=minute)


def table(rows):
    """Return sorted bars from pairs of a minute and a value."""
    rows = dict(rows)
    times = np.array(sorted(rows), np.int64) * 60_000_000
    values = np.array([rows[minute] for minute in sorted(rows)], np.float64)
    return make_table(times, [values + number for number, _ in enumerate(VALUES)])


some_bars = st.dictionaries(st.integers(0, 40), st.integers(1, 3), max_size=30)


# ------------------------------------------------------------------------------------------------------------ differences


@settings(max_examples=200, deadline=None)
@given(st.lists(some_bars, min_size=2, max_size=5))
def test_bars_become_what_they_were_byte_for_byte(states):
    tables = [table(state) for state in states]
    contents = [to_parquet(one) if one.num_rows else None for one in tables]
    steps = [
        undo_of(old, Edited.of(new or b"", bars_undo(before, after) if old else None, None))
        for old, new, before, after in zip(contents, contents[1:], tables, tables[1:], strict=False)
    ]

    for number, expected in enumerate(contents):
        assert earlier(contents[-1], reversed(steps[number:])) == expected


any_float = st.floats() | st.sampled_from([0.0, -0.0, 1e-5, 5e-324, 1.7e308, float(1 << 53), float((1 << 53) + 2)])
a_price = st.integers(-(10**7), 10**7).flatmap(
    lambda number: st.sampled_from([number / 10**digits for digits in (0, 1, 2, 4, 6)])
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(*([any_float | a_price] * len(VALUES))) | st.tuples(*([a_price] * len(VALUES))), min_size=1, max_size=8)
)
def test_rows_that_are_kept_are_the_same_bits(rows):
    kept = make_table(np.arange(len(rows)) * 60_000_000, [np.array(column, np.float64) for column in zip(*rows, strict=True)])
    digits, packed = pack_rows(kept)
    found = unpack_rows(packed, len(rows), digits)
    for name in VALUES:
        assert numbers(found.column(name)).view(np.int64).tolist() == numbers(kept.column(name)).view(np.int64).tolist()
    assert timestamps_us(found).tolist() == timestamps_us(kept).tolist()


def test_prices_of_few_digits_take_a_part_of_their_bits():
    draw = random.Random(1)
    rows = []
    price = 100.0
    for _ in range(250):
        price = round(price + draw.uniform(-2, 2), 4)
        near = [round(price + draw.uniform(-1, 1), 4) for _ in range(len(VALUES) - 3)]
        rows.append([near[0], near[1], near[2], price, float(draw.randrange(10**6)), float(draw.randrange(10**4)), near[3]])
    kept = make_table(np.arange(250) * 86_400_000_000, [np.array(column) for column in zip(*rows, strict=True)])
    bits = np.stack([numbers(kept.column(name)).view(np.int64) for name in VALUES]).tobytes()
    assert len(pack_rows(kept)[1]) < len(zlib.compress(bits, 9)) / 2


def test_bars_that_the_first_format_kept_are_read():
    body = b85decode(r"TU%Q)EHhnQEHYgRc${Nk;A>Z(%+Ab!1&A;>I3V*SI8gaA0;qfi5mdgC1S(%e29>X-;NSoNi!=r<")
    assert old_bars(body, table({1: 1, 2: 7, 4: 2})) == table({1: 1, 2: 5, 3: 2})


@pytest.mark.parametrize("head", [b"[[],1,[9,9,9,9,9,9,9]]", b"[[],1,[0]]", b"[[],2,[0,0,0,0,0,0,0]]"])
def test_rows_of_a_damaged_head_are_refused(head):
    packed = pack_rows(table({1: 1}))[1]
    with pytest.raises(ValueError, match="damaged"):
        old_bars(head + b"\n" + packed, table({1: 1}))


@settings(max_examples=60, deadline=None)
@given(some_bars, some_bars)
def test_a_difference_tells_which_bars_changed_by_their_timestamps_alone(old, new):
    before, after = table(old), table(new)
    times = np.array(sorted(new), np.int64) * 60_000_000
    changed, earlier_times = ChangedBars.undone(bars_undo(before, after).body, times)
    expected = (
        [minute for minute in sorted(new) if minute not in old],
        [minute for minute in sorted(new) if minute in old and old[minute] != new[minute]],
        [minute for minute in sorted(old) if minute not in new],
    )

    for found in (changed, ChangedBars.between(before, after)):
        assert (
            tuple([at // 60_000_000 for at in part.tolist()] for part in (found.added, found.revised, found.removed)) == expected
        )
    assert (earlier_times // 60_000_000).tolist() == sorted(old)


def test_bars_that_are_added_keep_no_row():
    before = table(dict.fromkeys(range(390), 1))
    after = merge(before, table(dict.fromkeys(range(400, 800), 2))).table
    undo = bars_undo(before, after)

    assert counts_of(undo.body) == (400, 0)
    assert len(undo.body) < 20


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.binary(min_size=1, max_size=200), st.binary(max_size=60))
def test_text_becomes_what_it_was(old, new, shared):
    old, new = shared + old + shared, shared + new + shared
    assert earlier(new, [undo_of(old, new)]) == old


LINES = [b"[", b"],", b'"bars": 1,', b'"bars": 12,', b'"until": "2024-01-02",', b"", b"\xff\r"]

some_lines = st.lists(st.sampled_from(LINES), max_size=40)


@settings(max_examples=300, deadline=None)
@given(some_lines, some_lines, st.booleans())
def test_lines_become_what_they_were(old, new, ended):
    """Each text is made of few different lines, so that they are found in wrong places, too."""
    before, after = (b"\n".join(lines) + b"\n" * ended for lines in (old, new))
    assert edited_text(text_edits(before, after), after) == before


@settings(max_examples=200, deadline=None)
@given(some_lines, some_lines, st.data())
def test_edits_that_are_damaged_or_of_another_text_are_refused_or_make_a_text(old, new, data):
    edits = text_edits(b"\n".join(old), b"\n".join(new))
    place = data.draw(st.integers(0, max(len(edits) - 1, 0)))
    damaged = edits[:place] + data.draw(st.binary(max_size=2)) + edits[place + 1 :]
    for body, text in ((damaged, b"\n".join(new)), (edits, b"\n".join(old[:1])), (edits[:place], b"\n".join(new))):
        try:
            assert isinstance(edited_text(body, text), bytes)
        except ValueError:
            assert body != edits or text != b"\n".join(new)


def test_a_line_that_is_added_costs_less_than_a_line():
    old = b"\n".join(b'["2024-01-%02dT05:00:00Z", "2024-01-%02dT20:00:00Z"]' % (day, day) for day in range(1, 28))
    new = old + b'\n["2024-01-28T05:00:00Z", "2024-01-28T20:00:00Z"]'
    assert len(undo_of(old, new).body) < 20


# ---------------------------------------------------------------------------------------------------------------- records


def entries_of(replaced):
    return recorded(replaced, Actor())


def entries():
    replaced = [
        Replaced(KEY, None, b"first"),
        Replaced(BARS_KEY, b"same\n" * 20 + b"before", b"same\n" * 20 + b"after"),
        Replaced("metadata/actions/A.json", b"gone", b""),
        Replaced.unread("equities_1min/symbol=B/year=2024/month=06/data.parquet"),
    ]
    return entries_of(replaced)


def test_a_record_is_read_as_it_was_written():
    record = load(7, dump(at(1), "update of 2024-06-03", 5, entries()))
    assert (record.number, record.instant, record.actor, record.base) == (7, at(1), "update of 2024-06-03", 5)
    assert list(record.entries) == entries()
    assert [one.undo.kind for one in record.entries] == [Kind.ABSENT, Kind.EDITS, Kind.WHOLE, Kind.LOST]


FIRST_RECORD = (
    # A record of the first format: the last of those of FIRST_PACK. Written by the version that had it.
    r"WMOn+EoE+JX>Mg8XlZkFZ*qAcF(5HFFf=kWFfcGMFfcGMFfbryIW;n5V>mZ8Ic8*GG%+~}TOxIEWMOn=ATuH?ATnJFc$_85K@P$o"
    r"5CA~WjgK&UCZ({n;K2j$AjGUdO&eRHph>^y%WUFxGNLn$bFidJkt*?!Kj}sH#MARV)hU&$h_vytEw}u*SZmw4<Q161fq^2a4enu-"
    r"F-7db|J`UERIhM|n#>sF?ofe=&inHT8~nEG@$ds>wImM"
)

FIRST_PACK = (
    # A pack of the first format.
    r"WMOn+EoE+JX>Mg8XlZkFZ*qAcaA9L>ATb~@GBhA&IWaIbIWjjmWim7~G-"
    r"fgic${U;!4AS85CqU)F`PGL7m%Jj@EwGh)ox6U6%}gIzb~oYI>*VIOpK9$dUWV}ga3e<UjtV;kOE8)%_it*{Z1GK)P&uHafmx%6`"
    r"0gWRFhP073*vM%7<^F<vovelyatl7hRU=k{_oKLU%9u*}i{E@-"
    r"C$nUZXD|c$}Tgu?mAQ6op}jPSS@cnL{);(df{@=MX8^Bo>QCT4TZ2D}Au0Lh0^y;QV}$%ebz|XgwPAnCR(gA9%Hiy)V7*?R?<|*J"
    r"NJDb{fuARk7PVIYLwFmSLc^$SEnat~H!XNVQgF3Z$U~L(<S4Fc0*mN(5Di5OrXz5!qMu;orx?k1dqaGLs@V3X4v|pKZ#Mh{c<^L$"
    r"s|IbI0fdF?CpI"
)


def test_records_and_packs_of_the_first_format_are_read():
    texts = [b'{"bars": %d,\n "until": "2024-01-%02d"}\n' % (number, number + 1) for number in (1, 2, 3)]
    records = Pack(b85decode(FIRST_PACK)).records()
    assert load(3, b85decode(FIRST_RECORD)) == records[2]
    assert [(one.number, one.instant, one.actor, one.base) for one in records] == [
        (number, datetime(2024, 1, number, tzinfo=UTC), f"update {number}", number - 1) for number in (1, 2, 3)
    ]
    undone = [one.entries[0].undo for one in reversed(records)]
    assert [earlier(texts[2], undone[:count]) for count in range(4)] == [*reversed(texts), None]
    assert [one.entries[0].after for one in records] == [Fingerprint.of(text) for text in texts]
    assert Pack(pack(records)).records() == records  # and so they are packed again


def test_a_record_that_is_not_whole_is_refused():
    """A killed writer leaves any beginning of it; a disk may change any byte."""
    content = dump(at(1), "store", 0, entries())
    for size in range(len(content)):
        with pytest.raises(ValueError, match=r"incomplete|damaged|no record"):
            load(1, content[:size])
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        with pytest.raises(ValueError):
            load(1, bytes(changed))


def test_what_a_killed_writer_of_an_earlier_version_left_is_told_from_damage_of_its_head():
    content = b85decode(FIRST_RECORD)
    assert all(is_cut_off(content[:size]) for size in range(len(content)))
    for place in range(content.index(b"\n")):
        changed = bytearray(content)
        changed[place] ^= 1
        assert not is_cut_off(bytes(changed))


def test_what_changes_nothing_or_has_no_history_is_not_recorded():
    same, drafts = Replaced(KEY, b"a", b"a"), Replaced("metadata/drafts/x", None, b"a")
    assert entries_of([same, drafts, Replaced(KEY, None, b"")]) == []


# ----------------------------------------------------------------------------------------------------------------- chains


@dataclass
class Life:
    """A file, those who change it, and what it was after each step.

    Writers read it, and some time later make a record; then they are killed, find that it has changed meanwhile, or replace it:
    perhaps after others have changed it and changed it back. Numbers of records are minutes.
    """

    random: random.Random
    content: bytes | None = None
    was: list[tuple[datetime, bytes | None]] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    beside: list[tuple[datetime, datetime]] = field(default_factory=list)
    by_hand: datetime | None = None
    late: float = 0.0  # how often somebody changes the file between a record and its replacement
    now: int = 1
    made: int = 0

    def new(self) -> bytes | None:
        old = [content for _, content in self.was if content is not None]
        if self.random.random() < 0.3 and old:
            return self.random.choice(old)  # a revision that is taken back
        self.made += 1
        return None if self.random.random() < 0.2 else b"content %d" % self.made

    def step(self) -> None:
        self.now += 1
        read, base = self.content, self.now - 1 - self.random.choice([0, 0, 0, 2])
        new = self.new()
        if read != new:
            while self.random.random() < 0.25:  # somebody was faster
                self.replace(new if self.random.random() < 0.4 else self.new())
                self.now += 1
            is_killed = self.random.random() < 0.2
            self.links += [
                Link(self.now, at(self.now), "writer", base, one) for one in entries_of([Replaced(KEY, read, new or b"")])
            ]
            while self.random.random() < self.late:
                self.now += 1
                self.replace(read if self.random.random() < 0.6 else self.new())
            self.now += bool(self.late)
            self.beside.append((at(base), at(self.now)))
            if self.content == read and not is_killed:
                self.content = new
        self.was.append((at(self.now), self.content))

    def replace(self, new: bytes | None) -> None:
        if new == self.content:
            return
        self.links += [
            Link(self.now, at(self.now), "other", self.now - 1, one)
            for one in entries_of([Replaced(KEY, self.content, new or b"")])
        ]
        self.content = new
        self.was.append((at(self.now), new))

    def hand(self) -> None:
        self.now += 1
        self.made += 1
        self.content, self.by_hand = b"by hand %d" % self.made, at(self.now)
        self.was.append((at(self.now), self.content))

    def chain(self) -> Chain:
        return walk(None if self.content is None else Fingerprint.of(self.content), self.links[::-1])


def past(life: Life, chain: Chain, instant: datetime) -> bytes | None:
    return earlier(life.content, [link.entry.undo for link in chain.later_than(instant)])


@pytest.mark.parametrize("seed", range(60))
def test_a_file_is_known_at_each_instant_whoever_was_killed(seed):
    life = Life(random.Random(seed), late=0.3 if seed % 4 == 1 else 0.0)
    if seed % 3 == 0:  # it was there when the history began
        life.content = b"long ago"
        life.links = [Link(0, at(0), "beginning", 0, one) for one in found_at_beginning([(KEY, len(b"long ago"))])]
    life.was.append((at(1), life.content))
    for _ in range(30):
        life.step()
    chain = life.chain()
    live = {link.number for link in chain.links}
    lost = [link.number for link in life.links if link.number not in live]

    assert life.late or not (chain.unknown or chain.begins)
    for instant, content in life.was:
        if chain.known_at(instant):
            assert past(life, chain, instant) == content
        elif not life.late:
            last = max((link.number for link in chain.links if link.instant <= instant), default=0)
            later = min((link.number for link in chain.links if link.instant > instant), default=1 << 30)
            assert any(start < instant < end for start, end in life.beside) or any(last < number < later for number in lost)


@pytest.mark.parametrize("seed", range(60))
def test_what_a_file_was_before_somebody_else_changed_it_is_not_known(seed):
    """It is known again from the first record after that, and never told wrongly."""
    life = Life(random.Random(f"hand {seed}"), late=0.3 if seed % 4 == 1 else 0.0)
    life.was.append((at(1), None))
    for number in range(30):
        if number == 12:
            life.hand()
        life.step()
    chain = life.chain()

    for instant, content in life.was:
        if chain.known_at(instant):
            assert past(life, chain, instant) == content
    assert chain.unknown or (chain.begins is not None and life.by_hand is not None and chain.begins > life.by_hand)


def test_a_file_whose_content_was_not_kept_is_known_from_then_on():
    links = [
        Link(3, at(3), "remove", 2, entries_of([Replaced.unread(KEY)])[0]),
        Link(2, at(2), "store", 1, entries_of([Replaced(KEY, None, b"a")])[0]),
    ]
    chain = walk(None, links)
    assert chain.begins == at(3)
    assert [chain.known_at(at(minute)) for minute in (2, 3, 4)] == [False, True, True]


def test_a_file_that_was_there_at_the_beginning_and_is_gone_without_a_record_is_not_known():
    (seen,) = found_at_beginning([(KEY, 4)])
    assert walk(None, [Link(1, at(0), "beginning", 0, seen)]).unknown
    assert not walk(Fingerprint.of(b"four"), [Link(1, at(0), "beginning", 0, seen)]).unknown
    assert walk(Fingerprint.of(b"five!"), [Link(1, at(0), "beginning", 0, seen)]).unknown


def test_an_undo_says_no_more_than_it_must():
    assert undo_of(None, b"new") == Undo(Kind.ABSENT)


def test_a_late_write_that_nobody_has_changed_since_leaves_an_open_end():
    """One writes A; another, who knows of that record, has read what was before: so A was written later."""
    old, new, other = (Fingerprint.of(content) for content in (b"old", b"new", b"other"))
    links = [
        Link(2, at(2), "other", 1, Entry(KEY, old, other, ABSENT)),
        Link(1, at(1), "late", 0, Entry(KEY, old, new, ABSENT)),
        Link(0, at(0), "first", 0, Entry(KEY, None, old, ABSENT)),
    ]
    chain = walk(new, links)

    assert chain.gaps == ((at(1), NEVER),)
    assert [chain.known_at(at(minute)) for minute in (0, 1, 3)] == [True, False, False]
    assert chain.why_unknown(at(3)) == "two processes changed it at the same time, and nobody since"


# ----------------------------------------------------------------------------------------------------- whole files of bars


@settings(max_examples=100, deadline=None)
@given(some_bars.filter(bool), some_bars)
def test_a_file_of_bars_that_is_replaced_or_removed_becomes_what_it_was(old, new):
    old, new = to_parquet(table(old)), to_parquet(table(new)) if new else b""
    (entry,) = entries_of([Replaced(BARS_KEY, old, new)]) or [None]

    assert entry is None or earlier(new or None, [entry.undo]) == old


def test_a_year_of_adjusted_days_that_a_dividend_replaces_takes_a_part_of_their_file():
    draw = np.random.default_rng(1)
    raw = [np.round(100 + draw.normal(0, 2, 250).cumsum() + shift, 2) for shift in (0.1, 0.6, -0.6, 0)]
    others = [draw.integers(10**5, 10**6, 250).astype(float), draw.integers(10**3, 10**4, 250).astype(float)]

    def file(factor: float) -> bytes:
        prices = [np.round(column * factor, 4) for column in raw]
        return to_parquet(make_table(np.arange(250) * 86_400_000_000, [*prices, *others, prices[3]]))

    key = "equities_1day_all/symbol=A/year=2024/data.parquet"
    (entry,) = entries_of([Replaced(key, file(0.996), file(0.992))])

    assert entry.undo.kind is Kind.BARS
    assert replaces_most(entry.undo.body)
    assert len(entry.undo.body) < len(file(0.996)) / 2


@pytest.mark.parametrize("old", [b"no bars", to_parquet(table({1: 1})) + b" ", to_parquet(table({1: 1}).slice(0, 0))])
def test_what_is_no_file_of_ours_is_kept_as_it_is(old):
    (entry,) = entries_of([Replaced(BARS_KEY, old, b"")])

    assert earlier(None, [entry.undo]) == old
