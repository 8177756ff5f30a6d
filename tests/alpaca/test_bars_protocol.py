"""The bars protocol: what is sent, letter by letter, and what is made of the responses, good, odd and hostile."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from urllib.parse import parse_qsl

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data_engine.alpaca import bars_protocol
from data_engine.alpaca.bars_protocol import BarsRequest, read_any, read_page
from data_engine.alpaca.page_decoder import read_plain
from data_engine.alpaca.page_decoder_native import library, read_compiled
from data_engine.alpaca.refusals import error_message, refused_symbol
from data_engine.alpaca.transport import Response
from data_engine.errors import BadAnswer
from data_engine.market.bars import BAR_SCHEMA
from data_engine.market.bars_page import BarsPage
from data_engine.market.series import Adjustment, Dataset, Feed, Timeframe
from data_engine.market.time_range import TimeRange
from real_data import FOLDER

SAMPLES = FOLDER / "alpaca" / "samples"
KEYS = ("c", "h", "l", "n", "o", "t", "v", "vw")
COLUMNS = ("timestamp", "open", "high", "low", "close", "volume", "trade_count", "vwap")


def dataset(timeframe: str = "1Min", adjustment: str = "raw", feed: str = "sip") -> Dataset:
    return Dataset(Timeframe.parse(timeframe), Adjustment.parse(adjustment), Feed.parse(feed))


JUNE_3 = TimeRange(datetime(2024, 6, 3, tzinfo=UTC), datetime(2024, 6, 4, tzinfo=UTC))
REQUEST = BarsRequest(("AAPL", "BRK.B"), dataset(), JUNE_3)


# What is sent


def test_the_query_of_a_first_page():
    assert REQUEST.query() == (
        "symbols=AAPL,BRK.B&timeframe=1Min&start=2024-06-03T00:00:00Z&end=2024-06-03T23:59:59.999999999Z"
        "&limit=10000&adjustment=raw&feed=sip&sort=asc"
    )


def test_the_query_of_a_later_page_differs_only_in_its_token():
    assert REQUEST.query("QUFQTHxNfDE3=+/&") == REQUEST.query() + "&page_token=QUFQTHxNfDE3%3D%2B%2F%26"


def test_every_option_is_sent_in_the_words_of_the_api():
    request = BarsRequest(
        ("SPY",), dataset("5Min", "dividend,split", "iex"), JUNE_3, asof=date(2022, 6, 6), currency="MXN", limit=500
    )

    assert request.query() == (
        "symbols=SPY&timeframe=5Min&start=2024-06-03T00:00:00Z&end=2024-06-03T23:59:59.999999999Z"
        "&limit=500&adjustment=split,dividend&feed=iex&asof=2022-06-06&currency=MXN&sort=asc"
    )


@pytest.mark.parametrize(
    ("feed", "sent"),
    [("sip", "sip"), ("delayed_sip", "sip"), ("iex", "iex"), ("otc", "otc"), ("boats", "boats"), ("account", None)],
)
def test_the_feed_as_sent(feed, sent):
    query = dict(parse_qsl(BarsRequest(("SPY",), dataset(feed=feed), JUNE_3).query()))

    assert query.get("feed") == sent


def test_former_owners_of_tickers_are_requested_by_ticker_and_get_their_bars():
    """The vendor answers for tickers; S itself may be requested as of the same day, since its security left it then."""
    request = BarsRequest(("BRK.B@2020-03-31", "S", "S@2020-03-31"), dataset(), JUNE_3, asof=date(2020, 3, 31))
    bar = b'{"c":1,"h":1,"l":1,"n":1,"o":1,"t":"2024-06-03T13:30:00Z","v":1,"vw":1}'
    page = read_page(b'{"bars":{"S":[' + bar + b']},"next_page_token":null}', request)

    assert dict(parse_qsl(request.query()))["symbols"] == "BRK.B,S"
    assert page.slices == (("S", 0, 1), ("S@2020-03-31", 0, 1))
    with pytest.raises(BadAnswer, match="'T', which was not requested"):
        read_page(b'{"bars":{"T":[' + bar + b']},"next_page_token":null}', request)


def test_no_symbol_mapping_is_a_dash():
    assert "&asof=-&" in BarsRequest(("META",), dataset(), JUNE_3, asof="-").query()


@given(
    symbols=st.lists(st.text("ABZ019.-/^_=+$*", min_size=1, max_size=8), min_size=1, max_size=5),
    start=st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC)),
    length=st.timedeltas(timedelta(microseconds=1), timedelta(days=4000)),
    token=st.none() | st.text(min_size=1),
)
def test_a_server_reads_what_was_meant(symbols, start, length, token):
    """The standard library's parser reads the query back; the inclusive end is one nanosecond before ours."""
    query = dict(parse_qsl(BarsRequest(tuple(symbols), dataset(), TimeRange(start, start + length)).query(token)))

    last = start + length - timedelta(microseconds=1)
    assert symbols == query["symbols"].split(",")
    assert start == datetime.fromisoformat(query["start"])
    assert (last.replace(tzinfo=None).isoformat(timespec="microseconds") + "999Z") == query["end"]
    assert token == query.get("page_token")


def test_a_request_for_many_symbols_is_named_shortly():
    request = BarsRequest(("A", "B", "C", "D", "E"), dataset("1Day"), JUNE_3)

    assert str(request) == "1Day bars of A, B, C and 2 more, 2024-06-03T00:00:00Z .. 2024-06-04T00:00:00Z"


# What comes back: three decoders, one meaning

CODE = library()
FAST = {"plain": read_plain} if CODE is None else {"plain": read_plain, "compiled": lambda body: read_compiled(body, CODE)}


@pytest.fixture(params=["compiled", "plain"])
def decoder(request, monkeypatch):
    """Which decoder `read_page` tries first: the compiled one, and the one of an installation that has no compiled code."""
    if request.param == "plain":
        monkeypatch.setattr(bars_protocol, "library", lambda: None)
    elif CODE is None:
        pytest.skip("there is no compiled decoder: no C compiler where this was installed")


def written(bars: dict[str, list[dict[str, object]]], token: str | None = None, **how: object) -> bytes:
    return json.dumps({"bars": bars, "next_page_token": token}, **{"separators": (",", ":"), **how}).encode()


def meaning(page: BarsPage) -> object:
    """Each symbol's bars in order of symbol; where in the table they stand is the decoder's own affair."""
    return contents(page), page.token, page.size, page.unknown


def contents(page: BarsPage) -> list[tuple[str, dict[str, list[object]]]]:
    return [(symbol, bars.to_pydict()) for symbol, bars in page.bars()]


def expected(bars: dict[str, list[dict[str, object]]]) -> list[tuple[str, dict[str, list[object]]]]:
    """The contents by plain Python."""
    made = []
    for symbol, rows in sorted(bars.items()):
        columns: dict[str, list[object]] = {"timestamp": [datetime.fromisoformat(row["t"]) for row in rows]}
        for name, key in zip(COLUMNS[1:], ("o", "h", "l", "c", "v", "n", "vw"), strict=True):
            columns[name] = [float(row[key]) for row in rows]
        made.append((symbol, columns))
    return made


def fast_equals_general(body: bytes) -> list[BarsPage | None]:
    """Hold the decoders against each other; return the pages of the fast ones, None where one did not take it on."""
    pages = [read(body) for read in FAST.values()]
    for page in pages:
        if page is not None:
            assert meaning(page) == meaning(read_any(body))
    return pages


a_symbol = st.from_regex(r"[A-Z]{1,5}(\.[A-Z]{1,2})?", fullmatch=True)
a_price = st.decimals(0, 10**7, places=4).map(float) | st.integers(0, 10**10) | st.floats(0, 1e12, allow_nan=False)
an_odd_number = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**25), 10**25) | st.just(1e-7)
a_whole_second = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)).map(lambda t: t.isoformat(timespec="seconds") + "Z")
an_odd_time = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)).map(
    lambda t: t.isoformat(timespec="microseconds") + "+00:00"
)
a_token = st.none() | st.from_regex(r"[A-Za-z0-9+/]{1,40}={0,2}", fullmatch=True) | st.text("ab:[]{},.-TZ0123456789", min_size=1)


@st.composite
def pages(draw, number=a_price, time=a_whole_second):
    keys = draw(st.permutations(KEYS))
    rows = st.lists(
        st.fixed_dictionaries({key: time if key == "t" else number for key in KEYS}).map(lambda row: {k: row[k] for k in keys}),
        min_size=1,
        max_size=4,
    )
    symbols = draw(st.lists(a_symbol, max_size=4, unique=True))
    return {symbol: draw(rows) for symbol in symbols}


@settings(deadline=None)
@given(bars=pages(), token=a_token)
def test_plain_pages_mean_what_the_json_module_says(bars, token):
    body = written(bars, token)

    assert meaning(read_any(body))[0] == expected(bars)
    fast_equals_general(body)


@given(
    bars=pages(number=st.decimals(0, 10**6, places=4).map(float).filter(lambda x: "e" not in repr(x)) | st.integers(0, 10**10)),
    token=a_token,
)
def test_the_fast_decoders_take_on_the_usual_page_in_any_order_of_keys(bars, token):
    for page in fast_equals_general(written(bars, token)):
        assert page is not None
        assert page.table.schema == BAR_SCHEMA
        assert contents(page) == expected(bars)


@given(bars=pages(number=a_price | an_odd_number, time=a_whole_second | an_odd_time), token=a_token, spaces=st.booleans())
def test_odd_numbers_times_and_spaces_change_no_meaning(bars, token, spaces):
    """Exponents, signs, fractions of seconds, indentation: legal JSON all of it."""
    body = written(bars, token, **({"indent": 2, "separators": None} if spaces else {}))

    assert meaning(read_any(body))[0] == expected(bars)
    fast_equals_general(body)


@given(bars=pages(), data=st.data())
def test_rows_of_different_shapes_are_no_trap(bars, data):
    """Each row has its own order of keys: the proof must fail or be right."""
    shuffled = {s: [{k: row[k] for k in data.draw(st.permutations(KEYS))} for row in rows] for s, rows in bars.items()}

    assert meaning(read_any(written(shuffled)))[0] == expected(bars)
    fast_equals_general(written(shuffled))


a_plain_value = (
    st.integers(-9, 10**6)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.none()
    | st.booleans()
    | st.text("aZ5 .,:-{}[]", max_size=6)
)
an_unknown_field = st.tuples(
    st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,5}", fullmatch=True).filter(lambda key: key not in KEYS),
    a_plain_value,
    st.integers(0, 8),
)


@settings(deadline=None)
@given(bars=pages(), fields=st.lists(an_unknown_field, max_size=3, unique_by=lambda field: field[0].lower()))
def test_unknown_fields_change_no_meaning(bars, fields):
    """At any place of the row, of any plain value, those that could be taken for the end of a row among them."""
    for rows in bars.values():
        for number, row in enumerate(rows):
            items = list(row.items())
            for name, value, at in fields:
                items.insert(at, (name, value))
            rows[number] = dict(items)
    body = written(bars)

    assert meaning(read_any(body))[0] == expected(bars)
    assert read_any(body).unknown == tuple(sorted(name for name, _, _ in fields if any(bars.values())))
    fast_equals_general(body)


@pytest.mark.parametrize("value", [b"5", b"-0.25e-3", b"null", b"true", b'"A,B: c"'])
@pytest.mark.parametrize("place", [b'{"c"', b',"n"', b"}"], ids=["first", "middle", "last"])
def test_a_ninth_field_in_every_bar_is_passed_over_at_full_speed(value, place, decoder, monkeypatch):
    """Two fields were added to every bar overnight: each symbol failed."""
    monkeypatch.setattr(bars_protocol, "read_any", lambda *_: pytest.fail("the general decoder"))
    field = b'"vw2":' + value
    text = {b'{"c"': b"{" + field + b',"c"', b',"n"': b"," + field + b',"n"', b"}": b"," + field + b"}"}[place]
    lists, rest = TWO_SYMBOLS.split(b"]}", 1)
    body = b"]}".join((lists.replace(place, text).replace(b'"bars":{' + field + b",", b'"bars":{'), rest))

    assert body.count(field) == 3
    page = read_page(body, REQUEST)
    assert contents(page) == contents(read_page(TWO_SYMBOLS, REQUEST))
    assert (page.unknown, page.size) == (("vw2",), len(body))


def test_an_unknown_field_that_is_a_list_is_passed_over_too():
    body = TWO_SYMBOLS.replace(b"}", b',"x":[1,{"y":2}]}', 1)

    assert contents(read_page(body, REQUEST)) == contents(read_page(TWO_SYMBOLS, REQUEST))
    assert read_page(body, REQUEST).unknown == ("x",)


TWO_SYMBOLS = written(
    {
        "AAPL": [
            dict(zip(KEYS, (194.03, 195, 193.5, 812, 194, "2024-06-03T08:00:00Z", 3376, 194.2518), strict=True)),
            dict(zip(KEYS, (194.1, 194.2, 194.0, 31, 194.05, "2024-06-03T08:01:00Z", 1028, 194.1), strict=True)),
        ],
        "BRK.B": [dict(zip(KEYS, (412.5, 413, 412.5, 9, 413, "2024-06-03T13:30:00Z", 250, 412.75), strict=True))],
    },
    "QlJLLkJ8TXwxNzE3",
)


def survives(body: bytes) -> None:
    """Whatever the general decoder accepts means the same to the fast ones, or they leave it alone.

    What it refuses the compiled one leaves alone, too; for the plain one `LENIENT` has all that is known.
    """
    try:
        general: object = meaning(read_any(body))
    except BadAnswer:
        general = None
    for name, read in FAST.items():
        page = read(body)
        if page is not None and (general is not None or name != "plain" or not page.slices):
            assert meaning(page) == general, name


@settings(max_examples=2000, deadline=None)
@given(at=st.integers(0, len(TWO_SYMBOLS) - 1), byte=st.integers(0, 127))
def test_one_wrong_byte_never_makes_the_decoders_differ(at, byte):
    """Where the general decoder accepts a page, the fast one means the same or leaves it alone."""
    survives(TWO_SYMBOLS[:at] + bytes([byte]) + TWO_SYMBOLS[at + 1 :])


@settings(max_examples=1000, deadline=None)
@given(at=st.integers(0, len(TWO_SYMBOLS) - 1), gone=st.integers(0, 3), new=st.text('0123456789.,:"{}[]TZ-', max_size=3))
def test_a_little_text_too_much_or_too_little_never_makes_the_decoders_differ(at, gone, new):
    survives(TWO_SYMBOLS[:at] + new.encode() + TWO_SYMBOLS[at + gone :])


@pytest.mark.parametrize("byte", range(256))
def test_what_follows_a_page_is_white_space_or_refused(byte):
    survives(TWO_SYMBOLS + bytes([byte]))
    survives(b'{"bars":{},"next_page_token":null}' + bytes([byte]))


@pytest.mark.parametrize("byte", [0x80, 0xC3, 0xFF])
def test_a_token_that_is_no_text_is_refused(byte, decoder):
    with pytest.raises(BadAnswer):
        read_page(TWO_SYMBOLS.replace(b"QlJL", b"Ql" + bytes([byte]) + b"L"), REQUEST)


@pytest.mark.parametrize("name", ["h2", "2h", "v7", "o1", "vw0", "v0w"])
def test_a_field_whose_name_holds_a_digit_is_refused(name, decoder):
    """Valid JSON, and no bar: the skeleton, which drops digits, does not show it."""
    known = "".join(letter for letter in name if letter.isalpha())

    with pytest.raises(BadAnswer, match=f"fields .*{name}"):
        read_page(one().replace(f'"{known}"'.encode(), f'"{name}"'.encode()), REQUEST)


def test_a_digit_beside_a_key_is_refused(decoder):
    with pytest.raises(BadAnswer, match="JSON"):
        read_page(one().replace(b'"o":', b'"o"9:'), REQUEST)


LENIENT = {
    "leading-zero": (b"194.03", b"0194.03"),
    "no-digit-before-the-point": (b"194.03", b".03"),
    "no-digit-after-the-point": (b"194.03", b"194."),
    "one-digit-of-a-minute": (b"T08:01:00Z", b"T08:1:00Z"),
    "three-digits-of-a-second": (b"T08:01:00Z", b"T08:01:000Z"),
    "line-break-in-a-token": (b"QlJL", b"QlJ\nL"),
}


OBVIOUS = {"no-digit-before-the-point": 0.03, "no-digit-after-the-point": 194.0}


@pytest.mark.parametrize(("name", "there", "instead"), [pytest.param(name, *case, id=name) for name, case in LENIENT.items()])
def test_where_the_plain_decoder_is_more_lenient_than_json_it_reads_the_obvious_value(name, there, instead):
    """Numbers and clocks that JSON would write otherwise: never another bar, never another value. The compiled one refuses."""
    body = TWO_SYMBOLS.replace(there, instead, 1)
    with pytest.raises(BadAnswer):
        read_any(body)
    if CODE is not None:
        assert read_compiled(body, CODE) is None
    page = read_plain(body)
    if page is None:
        return

    expected = TWO_SYMBOLS.replace(there, f"{OBVIOUS[name]}".encode(), 1) if name in OBVIOUS else TWO_SYMBOLS
    assert [(symbol, bars.to_pylist()) for symbol, bars in page.bars()] == [
        (symbol, bars.to_pylist()) for symbol, bars in read_any(expected).bars()
    ]


def test_no_bars_at_all_is_a_page():
    body = b'{"bars":{},"next_page_token":null}'

    assert None not in fast_equals_general(body)
    assert (read_page(body, REQUEST).slices, read_page(body, REQUEST).token) == ((), None)


def test_an_empty_list_of_bars_is_no_slice(decoder):
    body = b'{"bars":{"AAPL":[]},"next_page_token":"abc"}'

    assert (read_page(body, REQUEST).slices, read_page(body, REQUEST).token) == ((), "abc")


def test_symbols_are_read_in_ascending_order_whatever_the_order_of_keys(decoder):
    """Seen in the field: AKAM, ALB, AFL, AMAT."""
    row = dict(zip(KEYS, (1, 2, 0.5, 3, 1.5, "2024-06-03T08:00:00Z", 100, 1.25), strict=True))
    names = ("AKAM", "ALB", "AFL", "AMAT")
    body = written({name: [{**row, "c": number}] for number, name in enumerate(names)})

    page = read_page(body, BarsRequest(names, dataset(), JUNE_3))
    assert [(symbol, bars["close"]) for symbol, bars in contents(page)] == [
        ("AFL", [2.0]), ("AKAM", [0.0]), ("ALB", [1.0]), ("AMAT", [3.0]),
    ]  # fmt: skip


def test_further_keys_of_a_page_are_ignored(decoder):
    body = TWO_SYMBOLS.replace(b'"next_page_token"', b'"currency":"USD","next_page_token"')

    assert meaning(read_page(body, REQUEST))[:2] == meaning(read_page(TWO_SYMBOLS, REQUEST))[:2]


@pytest.mark.parametrize("time", ["2024-06-03T08:00:00.000000000Z", "2024-06-03T04:00:00-04:00", "2024-06-03T08:00:00+00:00"])
def test_an_instant_may_be_written_in_several_ways(time, decoder):
    body = TWO_SYMBOLS.replace(b"2024-06-03T08:00:00Z", time.encode())

    assert meaning(read_page(body, REQUEST))[:2] == meaning(read_page(TWO_SYMBOLS, REQUEST))[:2]


# Hostile pages

GOOD = dict(zip(KEYS, (10.5, 11, 10, 7, 10.25, "2024-06-03T08:00:00Z", 1200, 10.4), strict=True))
NEXT = {**GOOD, "t": "2024-06-03T08:01:00Z"}


def one(**changed: object) -> bytes:
    return written({"AAPL": [{**GOOD, **changed}]})


HOSTILE = {
    "nan": (one(c=math.nan), "NaN"),
    "infinity": (one(h=math.inf), "Infinity"),
    "minus-infinity": (one(l=-math.inf), "-Infinity"),
    "a-number-beyond-floats": (one().replace(b"10.5", b"1e999"), "not a number"),
    "a-whole-number-beyond-floats": (one().replace(b"10.5", b"1" * 400), "number"),
    "a-whole-number-beyond-floats-among-spaces": (one().replace(b'"c":10.5', b'"c": ' + b"1" * 400), "too large"),
    "null-price": (one(o=None), "open of a bar of AAPL is None"),
    "null-time": (one(t=None), "time of a bar is None"),
    "text-price": (one(o="10.25"), "open of a bar of AAPL is '10.25'"),
    "true-price": (one(o=True), "open of a bar of AAPL is True"),
    "empty-price": (one().replace(b'"c":10.5', b'"c":'), "JSON"),
    "two-points": (one().replace(b"10.5", b"10.5.1"), "JSON"),
    "missing-field": (written({"AAPL": [{k: GOOD[k] for k in KEYS if k != "vw"}]}), "fields c, h, l, n, o, t, v"),
    "missing-field-in-a-later-row": (written({"AAPL": [GOOD, {k: NEXT[k] for k in KEYS if k != "n"}]}), "fields"),
    "another-field-in-place-of-one": (written({"AAPL": [{**{k: GOOD[k] for k in KEYS if k != "c"}, "x": 1}]}), "fields h, l"),
    "unknown-field-twice": (one(x=1).replace(b'"x":1', b'"x":1,"x":2'), "twice"),
    "unknown-field-without-a-value": (one(x=1).replace(b'"x":1', b'"x":'), "JSON"),
    "unknown-field-with-a-sign-before-a-word": (one(x=1).replace(b'"x":1', b'"x":-true'), "JSON"),
    "unknown-field-that-is-no-number": (one(x=1).replace(b'"x":1', b'"x":01'), "JSON"),
    "unknown-field-of-very-many-digits": (one(x=1).replace(b'"x":1', b'"x":' + b"1" * 5000), "JSON"),
    "unknown-field-between-rows": (written({"AAPL": [GOOD, NEXT]}).replace(b"},{", b'},"x":1,{'), "JSON"),
    "unknown-field-beside-the-symbols": (one().replace(b'"AAPL"', b'"x":1,"AAPL"'), "int, not a list"),
    "unknown-field-inside-a-time": (one().replace(b'08:00:00Z"', b'08:00:00Z,"x":1"'), "JSON"),
    "field-of-another-name": (one().replace(b'"c"', b'"k"'), "fields"),
    "bar-is-a-list": (written({"AAPL": [[1, 2]]}), "fields [1, 2]"),
    "bars-of-a-symbol-null": (written({"AAPL": None}), "NoneType, not a list"),
    "time-without-zone": (one(t="2024-06-03T08:00:00"), "'2024-06-03T08:00:00'"),
    "time-is-a-number": (one(t=1717401600), "time of a bar is 1717401600"),
    "thirteenth-month": (one(t="2024-13-03T08:00:00Z"), "'2024-13-03T08:00:00Z'"),
    "hour-24": (one(t="2024-06-03T24:00:00Z"), "'2024-06-03T24:00:00Z'"),
    "minute-60": (one(t="2024-06-03T08:60:00Z"), "'2024-06-03T08:60:00Z'"),
    "second-60": (one(t="2024-06-03T08:00:60Z"), "'2024-06-03T08:00:60Z'"),
    "finer-than-a-microsecond": (one(t="2024-06-03T08:00:00.000000001Z"), "finer than a microsecond"),
    "bar-twice": (written({"AAPL": [GOOD, GOOD]}), "a second bar"),
    "unsorted": (written({"AAPL": [NEXT, GOOD]}), "not after"),
    "before-the-range": (one(t="2024-06-02T23:59:00Z"), "AAPL: the bar at 2024-06-02T23:59:00.000000Z"),
    "at-the-excluded-end": (one(t="2024-06-04T00:00:00Z"), "AAPL: the bar at 2024-06-04T00:00:00.000000Z"),
    "far-outside": (one(t="0001-01-01T00:00:00Z"), "AAPL: the bar at 0001-01-01T00:00:00.000000Z"),
    "between-two-minutes": (one(t="2024-06-03T08:00:30Z"), "AAPL: the bar at 2024-06-03T08:00:30.000000Z does not start"),
    "symbol-not-requested": (written({"MSFT": [GOOD]}), "'MSFT'"),
    "symbol-in-another-case": (written({"aapl": [GOOD]}), "'aapl'"),
    "comma-after-the-last-symbol": (one().replace(b"]},", b"],},"), "JSON"),
    "no-comma-between-symbols": (written({"AAPL": [GOOD], "MSFT": [GOOD]}).replace(b"],", b"]"), "JSON"),
    "symbol-twice": (one().replace(b'"AAPL":', b'"AAPL":[],"AAPL":'), "twice"),
    "symbol-twice-with-bars": (written({"AAPL": [GOOD], "BAPL": [NEXT]}).replace(b"BAPL", b"AAPL"), "twice"),
    "field-twice": (one().replace(b'"c":10.5', b'"c":10.5,"c":10.5'), "twice"),
    "empty-body": (b"", "JSON"),
    "half-a-body": (TWO_SYMBOLS[: len(TWO_SYMBOLS) // 2], "JSON"),
    "two-bodies": (one() * 2, "JSON"),
    "a-web-page": (b"<html><title>502</title></html>", "JSON"),
    "binary": (bytes(range(256)), "JSON"),
    "nested-without-end": (b"[" * 100_000, "JSON"),
    "a-list": (b"[]", "not an object"),
    "a-word": (b"null", "not an object"),
    "no-bars": (b'{"next_page_token":null}', "not an object"),
    "bars-null": (b'{"bars":null,"next_page_token":null}', "not an object"),
    "bars-a-list": (b'{"bars":[],"next_page_token":null}', "not an object"),
    "no-token": (b'{"bars":{}}', "not an object"),
    "token-empty": (b'{"bars":{},"next_page_token":""}', "next_page_token is ''"),
    "token-a-number": (b'{"bars":{},"next_page_token":7}', "next_page_token is 7"),
    "token-false": (b'{"bars":{},"next_page_token":false}', "next_page_token is False"),
}


@pytest.mark.parametrize(("body", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_page_is_refused_and_the_request_is_named(body, reason, decoder):
    with pytest.raises(BadAnswer) as caught:
        read_page(body, REQUEST)

    assert reason in str(caught.value)
    assert str(REQUEST) in str(caught.value)


@pytest.mark.parametrize(
    ("timeframe", "time", "fits"),
    [
        ("5Min", "2024-06-03T08:05:00Z", True),
        ("5Min", "2024-06-03T08:01:00Z", False),
        ("1Day", "2024-06-03T04:00:00Z", True),
        ("1Day", "2024-06-03T05:00:00Z", False),  # midnight in New York only in winter
        ("1Day", "2024-12-03T05:00:00Z", True),
        ("1Week", "2024-06-03T04:00:00Z", True),
        ("1Week", "2024-06-04T04:00:00Z", False),
        ("1Month", "2024-06-01T04:00:00Z", True),
        ("1Month", "2024-06-03T04:00:00Z", False),
    ],
)
def test_a_bar_starts_where_bars_of_its_timeframe_do(timeframe, time, fits, decoder):
    request = BarsRequest(
        ("AAPL",), dataset(timeframe), TimeRange(datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))
    )

    if fits:
        assert read_page(one(t=time), request).table.num_rows == 1
    else:
        with pytest.raises(BadAnswer, match=f"AAPL: the bar at {time[:-1]}"):
            read_page(one(t=time), request)


def test_more_bars_than_were_requested_are_refused(decoder):
    request = BarsRequest(("AAPL",), dataset(), JUNE_3, limit=1)

    with pytest.raises(BadAnswer, match=r"2 bars.* 1 per page"):
        read_page(written({"AAPL": [GOOD, NEXT]}), request)


def test_a_number_of_many_digits_is_refused_like_any_other():
    """One that the fast decoder does not take on, for the space before it."""
    with pytest.raises(BadAnswer):
        read_page(one().replace(b'"c":10.5', b'"c": ' + b"1" * 5000), REQUEST)


def test_open_outside_high_and_low_is_no_reason_to_refuse():
    """The vendor's staff confirm that such bars exist."""
    assert read_page(one(o=99, h=11, l=10), REQUEST).table.column("open").to_pylist() == [99.0]


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_page_or_our_refusal(noise):
    for body in (noise, b'{"bars":{' + noise + b'},"next_page_token":null}'):
        assume(b'},"next_page_token":' not in noise)
        try:
            read_page(body, REQUEST)
        except BadAnswer:
            continue


# Recorded responses


def sample(name: str) -> tuple[bytes, dict[str, list[dict[str, object]]]]:
    if not SAMPLES.is_dir():
        pytest.skip("the shared folder of recordings is not here")
    body = (SAMPLES / name).read_bytes()
    return body, json.loads(body)["bars"]


RECORDED = {
    "alpacapy_bars_AAPL_1Day_limit2.json": ("1Day", "AAPL"),
    "alpacapy_bars_AAPL_TSLA_1Day.json": ("1Day", "AAPL,TSLA"),
    "alpacapy_bars_empty.json": ("1Day", "AAPL"),
    "gosdk_bars_AAPL_NIO_1Day.json": ("1Day", "AAPL,NIO"),
    "gosdk_bars_AMZN_15Min_split.json": ("15Min", "AMZN"),
    "gosdk_bars_GE_1Day_adj_dividend_spinoff.json": ("1Day", "GE"),
    "gosdk_bars_META_1Day_asof_page1.json": ("1Day", "META"),
    "gosdk_bars_META_1Day_asof_page2.json": ("1Day", "META"),
    "mdp_bars_AAPL_1Min_iex_page1.json": ("1Min", "AAPL"),
    "mdp_bars_AAPL_1Min_iex_page2.json": ("1Min", "AAPL"),
    "mdp_bars_empty.json": ("1Min", "AAPL"),
    "openapi_example_multi.json": ("1Min", "AAPL"),
}


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("compact", [True, False], ids=["as-sent", "as-recorded"])
def test_recorded_responses_are_read(name, compact, decoder):
    body, bars = sample(name)
    token = json.loads(body)["next_page_token"]
    timeframe, symbols = RECORDED[name]
    everything = TimeRange(datetime(2016, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))

    page = read_page(
        written(bars, token) if compact else body, BarsRequest(tuple(symbols.split(",")), dataset(timeframe), everything)
    )
    assert (contents(page), page.token) == (expected(bars), token)


def test_a_recorded_response_in_descending_order_is_refused():
    body, _ = sample("alpacapy_bars_TSLA_1Day_desc_limit3.json")

    with pytest.raises(BadAnswer, match="TSLA: row 1 "):
        read_page(body, BarsRequest(("TSLA",), dataset("1Day"), TimeRange(datetime(2016, 1, 1, tzinfo=UTC), JUNE_3.end)))


def test_the_null_bars_of_the_single_symbol_path_are_refused():
    with pytest.raises(BadAnswer):
        read_page(b'{"bars":null,"next_page_token":null,"symbol":"TSLA"}', REQUEST)


# What a refusal says

PLAIN, HTML = "application/json; charset=utf-8", "text/html"


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b'{"message":"forbidden."}', PLAIN, "forbidden."),
        (b'{"message": "too many requests."}', "application/json", "too many requests."),
        (b"<html>\r\n<head><title>401 Authorization Required</title></head>", HTML, "401 Authorization Required"),
        (b"<TITLE> 502\n Bad  Gateway </TITLE>", HTML, "502 Bad Gateway"),
        (b"plain words\n  over lines", "text/plain", "plain words over lines"),
        (b'{"code":1}', PLAIN, '{"code":1}'),
        (b'{"message":7}', PLAIN, '{"message":7}'),
        (b"no json", PLAIN, "no json"),
        (b"", HTML, ""),
        (b"\xff" * 5000, HTML, "\ufffd" * 5000),
        (b'{"message":' + b"[" * 200_000, PLAIN, '{"message":' + "[" * 200_000),
    ],
)  # fmt: skip
def test_what_an_error_response_says_for_people(body, kind, message):
    assert error_message(Response(400, {"content-type": kind}, body, len(body))) == message


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("invalid symbol: BRK-B", "BRK-B"),
        ("code=400, message=invalid symbol: BRK-B", "BRK-B"),
        (" invalid symbol: BRK-B ", "BRK-B"),
        ("invalid symbol: OTHER", None),
        ("invalid symbol: ", None),
        ("invalid timeframe: BRK-B", None),
        ("", None),
    ],
)
def test_which_symbol_a_refusal_names(message, named):
    assert refused_symbol(message, ("AAPL", "BRK-B")) == named


# What is no JSON is refused by every decoder

NUMBERS_THAT_ARE_NONE = ["01", "00", ".5", "5.", "1.2.3", "1..2", ".", "", "0x1", "1_0", "+1", "007.5"]

LONG = "194.25184573920184555"  # more digits than the compiled decoder reads


def _row(close: str = "1", time: str = "2024-06-03T08:00:00Z") -> str:
    return f'{{"c":{close},"h":1,"l":1,"n":1,"o":1,"t":"{time}","v":1,"vw":1}}'


def _body(*rows: str) -> bytes:
    return f'{{"bars":{{"A":[{",".join(rows)}]}},"next_page_token":null}}'.encode()


MALFORMED = {
    **{f"number-{text}": _body(_row(text)) for text in NUMBERS_THAT_ARE_NONE},
    **{f"long-and-{text}": _body(_row(LONG), _row(text, "2024-06-03T08:01:00Z")) for text in NUMBERS_THAT_ARE_NONE},
    "hour-of-one-digit": _body(_row(time="2024-06-03T8:00:00Z")),
    "minute-of-one-digit": _body(_row(LONG), _row(time="2024-06-03T08:5:00Z")),
    "minute-of-three-digits": _body(_row(LONG), _row(time="2024-06-03T08:005:00Z")),
    "year-of-five-digits": _body(_row(LONG), _row(time="20024-06-03T08:05:00Z")),
    "digit-of-a-key-for-a-value": _body(_row(LONG)).replace(b'"vw":1}', b'"vw":,"9h":2}'),
    "digit-in-a-key": _body(_row(LONG)).replace(b'"vw":1', b'"v9w":1'),
    "digit-before-a-key": _body(_row(LONG)).replace(b'{"c"', b'{5"c"'),
    "digit-behind-a-value": _body(_row(LONG)).replace(b'"vw":1}', b'"vw":"1}'),
    "digits-behind-the-last-row": _body(_row(LONG)).replace(b"}]", b"}.97]"),
    "whole-digits-behind-the-last-row": _body(_row(LONG)).replace(b"}]", b"}97]"),
    "digits-between-rows": _body(_row(LONG), _row(time="2024-06-03T08:01:00Z")).replace(b"},{", b"},7{"),
    "digits-behind-the-lists": _body(_row(LONG)).replace(b"]}", b"]7}"),
    "digits-before-the-lists": _body(_row(LONG)).replace(b'{"A"', b'{7"A"'),
}  # fmt: skip


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_no_decoder_takes_what_is_no_json(body):
    with pytest.raises(BadAnswer):
        read_any(body)
    assert read_plain(body) is None
    code = library()
    assert code is None or read_compiled(body, code) is None


MANY = _body(
    _row("9.5"), _row("0.25", "2024-06-03T08:01:00Z"), _row("100", "2024-06-03T08:02:00Z"), _row("0", "2024-06-03T08:03:00Z")
).replace(b"]}", b'],"BRK.B":[' + _row("7.0").encode() + b'],"2330":[' + _row(LONG).encode() + b"]}")


NINE = MANY.replace(b',"h"', b',"x":"a","h"').replace(b"}", b',"yy":-1}', 6)


@settings(max_examples=300)
@given(st.data())
def test_the_decoders_agree_on_damaged_pages(data):
    """Bytes are changed, put in or taken out: what is not JSON is refused, and what still is reads the same, or is left alone."""
    body = bytearray(data.draw(st.sampled_from([MANY, NINE])))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        piece = data.draw(
            st.sampled_from(
                [b"0", b"1", b"9", b".", b",", b":", b'"', b"{", b"}", b"[", b"]", b"-", b"e", b"T", b"", b"vw", b" "]
            )
        )
        body[at : at + data.draw(st.integers(0, 2))] = piece
    damaged = bytes(body)
    try:
        expected = read_any(damaged)
    except BadAnswer:
        expected = None
    code = library()
    for found in (read_plain(damaged), read_compiled(damaged, code) if code is not None else None):
        if found is not None:
            assert expected is not None, damaged
            assert [(symbol, bars.to_pylist()) for symbol, bars in found.bars()] == [
                (symbol, bars.to_pylist()) for symbol, bars in expected.bars()
            ]
            assert found.token == expected.token


# Currency


@pytest.mark.parametrize(
    ("named", "requested", "fits"),
    [(None, None, True), ("USD", None, True), (None, "USD", True), ("EUR", "EUR", True),
     ("EUR", None, False), (None, "EUR", False), ("USD", "EUR", False), ("EUR", "USD", False), ("eur", "EUR", False)],
)  # fmt: skip
@pytest.mark.parametrize("spaced", [False, True])
def test_the_currency_of_the_answer_is_the_one_that_was_requested(named, requested, fits, spaced):
    body = (
        TWO_SYMBOLS
        if named is None
        else TWO_SYMBOLS.replace(b'"next_page_token"', f'"currency":"{named}","next_page_token"'.encode())
    )
    body = body.replace(b'"next_page_token"', b' "next_page_token"') if spaced else body
    request = replace(REQUEST, currency=requested)
    if fits:
        assert read_page(body, request).slices
    else:
        with pytest.raises(BadAnswer, match="prices are in"):
            read_page(body, request)


def test_a_page_with_a_currency_makes_no_object_per_bar(monkeypatch):
    monkeypatch.setattr("data_engine.alpaca.bars_protocol.read_any", lambda *_: pytest.fail("the general decoder"))
    body = TWO_SYMBOLS.replace(b'"next_page_token"', b'"currency":"EUR","next_page_token"')

    assert read_page(body, replace(REQUEST, currency="EUR")).slices
    assert read_plain(body) is not None
