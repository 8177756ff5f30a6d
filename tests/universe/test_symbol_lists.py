"""Lists of symbols load whole or not at all, and say everything that is wrong with them."""

from __future__ import annotations

import re
import string
from datetime import date
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.errors import InputError, MissingFileError, SymbolListError
from data_engine.market.symbol import asof_day, at_day, check_symbol, suggestion, ticker_of
from data_engine.universe.symbol_lists import SymbolLoader
from real_data import FOLDER

UNIVERSE = FOLDER / "universe"
needs_universe = pytest.mark.skipif(not UNIVERSE.is_dir(), reason="the real lists are not at ../shared/data/universe")


@pytest.fixture
def written(tmp_path):
    """Write a file and return its path."""

    def write(content: str | bytes, name: str = "list.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def message(error: pytest.ExceptionInfo[BaseException]) -> str:
    return str(error.value)


# One symbol


@pytest.mark.parametrize(
    "text",
    [
        "AAPL",
        "BRK.B",
        "BRK-B",
        "BRK/B",
        "NA",
        "TRUE",
        "NAN",
        "NULL",
        "CON",
        "INF",
        "2330",
        "ABR^D",
        "ETD_USD",
        "A=B",
        "A+",
        "A$B",
        "A*",
    ],
)
def test_what_could_be_a_symbol_somewhere_is_accepted_and_not_rewritten(text):
    assert text == check_symbol(text)


@pytest.mark.parametrize(("text", "symbol"), [(" aapl\t", "AAPL"), ("Brk.b", "BRK.B"), ("\xa0msft\r\n", "MSFT"), ("na", "NA")])
def test_a_symbol_is_trimmed_and_upper_cased(text, symbol):
    assert symbol == check_symbol(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("", "is empty", id="nothing"),
        pytest.param("  ", "is empty", id="only-space"),
        pytest.param("../../x", "contains '..'|begins with '.'", id="a-way-out-of-the-folder"),
        pytest.param("A..B", r"contains '\.\.'", id="two-dots"),
        pytest.param("A B", "contains a space", id="a-space"),
        pytest.param("A\tB", "contains a tab", id="a-tab"),
        pytest.param("A\nB", "contains a line break", id="a-line-break"),
        pytest.param("AAPL;MSFT", "contains ';'", id="two-symbols"),
        pytest.param("A\0B", r"contains '\\x00'", id="a-nul"),
        pytest.param("\N{ROCKET}", "contains", id="an-emoji"),
        pytest.param("A\\B", "contains", id="a-backslash"),
        pytest.param("A%2FB", "contains '%'", id="a-percent-sign"),
        pytest.param("?", "contains '?'", id="a-question-mark"),
        pytest.param("stra\N{LATIN SMALL LETTER SHARP S}e", "contains", id="upper-case-would-make-it-ascii"),
        pytest.param("\N{LATIN SMALL LETTER DOTLESS I}bm", "contains", id="upper-case-would-make-it-ibm"),
        pytest.param("\N{FULLWIDTH LATIN CAPITAL LETTER A}", "contains", id="full-width"),
        pytest.param("AAPL\N{ZERO WIDTH SPACE}", "contains", id="an-invisible-character"),
        pytest.param("X" * 33, "is longer than 32 characters", id="33-characters"),
        pytest.param("X" * 300, "is longer than 32 characters", id="300-characters"),
        pytest.param("-", "has no letter or digit", id="a-placeholder"),
        pytest.param(".", "has no letter or digit", id="a-dot"),
        pytest.param("-A", "begins with '-'", id="an-option"),
        pytest.param("^GSPC", r"begins with '\^'", id="an-index-of-yahoo"),
        pytest.param("A.", r"ends with '\.'", id="a-trailing-dot"),
        pytest.param("A/", "ends with '/'", id="a-trailing-slash"),
    ],
)
def test_what_cannot_be_a_symbol_is_refused_with_the_reason(text, why):
    with pytest.raises(InputError, match=why) as error:
        check_symbol(text)

    assert "not a symbol: " in message(error)
    assert len(message(error)) < 200


def test_32_characters_are_not_too_long():
    assert check_symbol("x" * 32) == "X" * 32


@given(st.text(max_size=40))
def test_an_accepted_symbol_is_plain_and_stays_as_it_is(text):
    try:
        symbol = check_symbol(text)
    except InputError:
        return

    assert re.fullmatch(r"[A-Z0-9][-A-Z0-9./^_=+$*]{0,31}(@\d{4}-\d\d-\d\d)?", symbol)
    assert symbol == check_symbol(symbol)


@given(st.text(string.ascii_letters + string.digits, min_size=1, max_size=32), st.booleans())
def test_letters_of_one_case_and_digits_are_always_a_symbol(text, small):
    assert text.upper() == check_symbol(text.lower() if small else text.upper())


@pytest.mark.parametrize(
    ("written_as", "meant"),
    [
        *[(text, "BAC.PRB") for text in ("BACpB", " BACpB ")],
        *[("GEp", "GE.PR"), ("Tp", "T.PR"), ("TpA", "T.PRA"), ("IRRXws", "IRRX.WS"), ("Aws", "A.WS"), ("IRRXu", "IRRX.U")],
        *[("IRRXw", None), ("Ar", None), ("aAPL", None), ("brk.B", None)],
    ],
)
def test_capitals_with_small_letters_are_refused_with_alpacas_notation(written_as, meant):
    """As capitals, BACpB would be BACPB, another security's ticker: nothing is folded onto it."""
    with pytest.raises(InputError, match="mixes capitals and small letters") as error:
        check_symbol(written_as)

    assert str(error.value).partition("did you mean ")[2] == (f"{meant}?" if meant else "")
    with pytest.raises(InputError):
        SymbolLoader.from_list(["AAPL", written_as])


@pytest.mark.parametrize(("text", "symbol"), [("Aapl", "AAPL"), ("None", "NONE"), ("Brk.b", "BRK.B"), ("bacpb", "BACPB")])
def test_a_word_is_no_vendors_notation(text, symbol):
    assert check_symbol(text) == symbol


def test_a_former_owner_is_named_by_its_last_day():
    symbol = check_symbol(" s@2020-04-01 ")

    assert (symbol, ticker_of(symbol), asof_day(symbol)) == ("S@2020-04-01", "S", date(2020, 4, 1))
    assert (ticker_of("S"), asof_day("S"), at_day("S", date(2020, 4, 1))) == ("S", None, symbol)
    assert at_day(symbol, date(2020, 4, 1)) == symbol
    with pytest.raises(InputError, match="names another day"):
        at_day(symbol, date(2020, 4, 2))


@pytest.mark.parametrize("text", ["S@", "S@2020-4-1", "S@20200401", "S@2020-02-30", "S@@2020-04-01", "S@2020-04-01@2020-04-01"])
def test_a_day_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="no day YYYY-MM-DD after '@'"):
        check_symbol(text)


# What was meant


@pytest.mark.parametrize(
    ("written_as", "meant"),
    [
        *[(text, "BRK.B") for text in ("BRK-B", "BRK/B", "BRK_B", "BRK B", "BRKB", "brk-b", " brkb ")],
        ("BF-B", "BF.B"),
        ("BFB", "BF.B"),
        ("BFA", "BF.A"),
        ("LENB", "LEN.B"),
        ("HEIA", "HEI.A"),
        ("CWENA", "CWEN.A"),
        ("UHALB", "UHAL.B"),
        ("MOGA", "MOG.A"),
        ("ACHR-WS", "ACHR.WS"),
        *[(text, "BAC.PRB") for text in ("BAC-PB", "BAC-PRB", "BAC/PRB", "BAC PRB", "BAC.PB", "BAC^B", "bac-pb")],
        *[(text, "IRRX.WS") for text in ("IRRX-WT", "IRRX/WS", "IRRX WS", "IRRX+", "IRRX-W")],
        *[(text, "IRRX.U") for text in ("IRRX-UN", "IRRX/U", "IRRX=")],
        ("ABC-U", "ABC.U"),
        ("ABC/R", "ABC.R"),
    ],
)
def test_a_share_class_written_another_way_has_a_suggestion(written_as, meant):
    assert meant == suggestion(written_as)
    assert meant == check_symbol(meant)


@pytest.mark.parametrize(
    "text",
    [
        "BRK.B",
        "AAPL",
        "GOOGL",
        "NWSA",
        "FOXA",
        "HUBB",
        "ETD_USD",
        "GOOGLE INC",
        "SPR",
        "EXPRB",
        "BAC.PRB",
        "IRRX.WS",
        "",
        "-B",
        "BRK-",
        "1-A",
    ],
)
def test_anything_else_is_not_guessed_at(text):
    assert suggestion(text) is None


# Lists in Python


def test_a_list_is_folded_in_order():
    assert SymbolLoader.from_list(["msft", " AAPL", "MSFT ", "NA", "aapl"]) == ["MSFT", "AAPL", "NA"]


def test_a_bare_string_is_one_symbol():
    assert SymbolLoader.from_list("aapl") == ["AAPL"]


def test_any_iterable_of_strings_is_a_list():
    assert SymbolLoader.from_list(text for text in ("a", "b")) == ["A", "B"]


@pytest.mark.parametrize("nothing", [[], (), iter(())])
def test_an_empty_list_is_refused(nothing):
    with pytest.raises(SymbolListError, match="no symbol"):
        SymbolLoader.from_list(nothing)


@pytest.mark.parametrize("wrong", [None, 7, b"AAPL", 1.5], ids=repr)
def test_what_is_no_list_is_refused(wrong):
    with pytest.raises(InputError, match="list of strings") as error:
        SymbolLoader.from_list(wrong)

    assert repr(wrong) in message(error)


def test_all_problems_of_a_list_are_in_one_error():
    with pytest.raises(InputError) as error:
        SymbolLoader.from_list(["AAPL", None, "A;B", True, "BRK B", float("nan")])

    assert message(error) == "\n".join([
        "5 of the given symbols cannot be used:",
        "  item 2: None    is not a string",
        "  item 3: 'A;B'   contains ';'",
        "  item 4: True    is not a string",
        "  item 5: 'BRK B' contains a space; did you mean BRK.B?",
        "  item 6: nan     is not a string",
    ])  # fmt: skip


# CSV files: which column


@pytest.mark.parametrize(
    ("header", "column", "expected"),
    [
        pytest.param("Symbol,x", None, "LEFT", id="symbol-is-the-default"),
        pytest.param("x,SYMBOL", None, "RIGHT", id="in-any-case"),
        pytest.param("symbol,Symbol", None, "RIGHT", id="an-exact-match-comes-first"),
        pytest.param("x,Ticker", None, "RIGHT", id="ticker"),
        pytest.param("x,ticker", None, "RIGHT", id="ticker-in-lower-case"),
        pytest.param("Ticker,symbol", None, "RIGHT", id="symbol-goes-before-ticker"),
        pytest.param("x, Symbol ", None, "RIGHT", id="names-are-trimmed"),
        pytest.param('x,"Symbol"', None, "RIGHT", id="names-may-be-quoted"),
        pytest.param("Symbol,Identifier", "Identifier", "RIGHT", id="a-named-column"),
        pytest.param("Symbol,IDENTIFIER", "identifier", "RIGHT", id="a-named-column-in-any-case"),
        pytest.param("Symbol,Ticker", "Ticker", "RIGHT", id="a-named-ticker"),
        pytest.param("Symbol,", "Symbol", "LEFT", id="a-column-without-a-name"),
    ],
)
def test_the_column_is_found(written, header, column, expected):
    path = written(f"{header}\nleft,right\n")

    assert [expected] == SymbolLoader.from_csv(path, symbol_column=column)


@pytest.mark.parametrize(
    ("header", "column"),
    [
        pytest.param("Name,Identifier", None, id="no-usual-name"),
        pytest.param("Ticker,Name", "Symbol", id="a-named-column-has-no-substitute"),
        pytest.param("Symbols,Name", None, id="part-of-a-name-is-not-the-name"),
    ],
)
def test_a_missing_column_names_the_columns_there_are(written, header, column):
    path = written(f"{header}\nAAPL,Apple\n")

    with pytest.raises(ValueError) as error:
        SymbolLoader.from_csv(path, symbol_column=column)

    assert isinstance(error.value, SymbolListError)
    assert all(repr(name) in message(error) for name in header.split(","))
    assert str(path) in message(error)
    assert "--column" in message(error)


def test_below_a_preamble_the_columns_are_those_of_the_table(written):
    path = written("Holdings of\nas of,May 1\n\nName,Code,Weight\nApple,AAPL,7\n")

    with pytest.raises(SymbolListError, match="'Name', 'Code', 'Weight'"):
        SymbolLoader.from_csv(path)


@pytest.mark.parametrize("header", ["Symbol,Symbol", "SYMBOL,symbol", "Ticker,Ticker"])
def test_two_columns_of_one_name_are_refused(written, header):
    path = written(f"{header}\nA,B\n")

    with pytest.raises(SymbolListError, match="line 1 has 2 columns"):
        SymbolLoader.from_csv(path)


@pytest.mark.parametrize("column", ["", "  ", 2])
def test_a_column_needs_a_name(written, column):
    with pytest.raises(InputError, match="symbol column"):
        SymbolLoader.from_csv(written("Symbol\nA\n"), symbol_column=column)


# CSV files: the bytes


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"Symbol,Name\nAAPL,Apple\nMSFT,Microsoft\n", id="utf-8"),
        pytest.param(b"\xef\xbb\xbfSymbol,Name\nAAPL,Apple\nMSFT,Microsoft", id="utf-8-with-its-mark-and-no-last-line-end"),
        pytest.param(b"Symbol,Name\r\nAAPL,Apple\r\nMSFT,Microsoft\r\n", id="line-ends-of-windows"),
        pytest.param(b"Symbol,Name\rAAPL,Apple\rMSFT,Microsoft\r", id="line-ends-of-old-macs"),
        pytest.param("Symbol\tName\r\nAAPL\tApple\r\nMSFT\tMicrosoft\r\n".encode("utf-16"), id="unicode-text-of-excel"),
        pytest.param("Symbol,Name\nAAPL,Apple\nMSFT,M\n".encode("utf-16-be").join([b"\xfe\xff", b""]), id="utf-16-big-endian"),
        pytest.param("Symbol,Name\nAAPL,\xc4pple\nMSFT,x\n".encode("cp1252"), id="windows-1252"),
        pytest.param(b"Symbol;Name\nAAPL;Apple\nMSFT;x,y\n", id="semicolons"),
        pytest.param(b"sep=;\nSymbol;Name\nAAPL;Apple\nMSFT;x,y\n", id="semicolons-announced-for-excel"),
        pytest.param(b"Symbol|Name\nAAPL|Apple\nMSFT|x\n", id="bars"),
        pytest.param(b"Symbol,Name\nAAPL,Apple\nMSFT,Microsoft\n\x1a", id="end-mark-of-dos"),
        pytest.param(b'Symbol,Name\nAAPL,"Apple, Inc."\nMSFT,"a ""quoted"" name"\n', id="quoted-commas"),
        pytest.param(b'Symbol,Name\nAAPL,"two\nlines"\nMSFT,\n', id="a-cell-of-two-lines"),
        pytest.param(b"Symbol,Name\n aapl ,Apple\nmsft,x\nAAPL,again\n", id="untidy-and-twice"),
        pytest.param(b"Symbol,Name\nAAPL,Apple,\nMSFT,x,,,\n", id="empty-cells-too-many"),
        pytest.param(b"Symbol,Name\n\nAAPL,Apple\n,\nMSFT,x\n,\n\n", id="empty-rows"),
    ],
)
def test_files_as_people_have_them_load(written, content):
    assert SymbolLoader.from_csv(written(content)) == ["AAPL", "MSFT"]


def test_words_for_missing_values_are_tickers(written):
    path = written("Symbol\nNA\nTRUE\nNAN\nNULL\nNone\n1E5\n007\n")

    assert SymbolLoader.from_csv(path) == ["NA", "TRUE", "NAN", "NULL", "NONE", "1E5", "007"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(b"Symbol\nA\0B\n", "is not a text file", id="a-nul"),
        pytest.param(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not a text file", id="a-picture"),
        pytest.param(b"PAR1\x15\x04\x15", "is not a text file", id="parquet"),
        pytest.param(b"PK\x03\x04\x14\0\x06\0", "Excel workbook", id="a-workbook"),
        pytest.param("Symbol\nAAPL\n".encode("utf-16-le"), "is not a text file", id="utf-16-without-its-mark"),
        pytest.param(b"Symbol\nA\x81\n", "is not a text file in UTF-8", id="no-known-encoding"),
        pytest.param(b"\xff\xfeA", "is not a text file", id="half-a-character"),
    ],
)
@pytest.mark.parametrize("load", [SymbolLoader.from_csv, SymbolLoader.from_text_file])
def test_a_binary_file_is_one_clear_error(written, content, why, load):
    path = written(content)

    with pytest.raises(SymbolListError, match=why) as error:
        load(path)

    assert str(path) in message(error)
    assert "\n" not in message(error)


def test_an_enormous_file_is_refused_before_it_fills_the_memory(tmp_path):
    path = tmp_path / "big.csv"
    with path.open("wb") as file:
        file.truncate(65 * 2**20)  # sparse: takes no space

    with pytest.raises(SymbolListError, match="64 MB"):
        SymbolLoader.from_csv(path)


@pytest.mark.parametrize("load", [SymbolLoader.from_csv, SymbolLoader.from_text_file])
class TestAPath:
    def test_may_be_text(self, written, load):
        assert load(str(written("AAPL\n"))) == ["AAPL"]

    def test_to_nothing_is_a_missing_file(self, tmp_path, load):
        path = tmp_path / "absent.csv"

        with pytest.raises(FileNotFoundError, match=r"absent\.csv") as error:
            load(path)
        assert isinstance(error.value, MissingFileError)

    def test_to_a_folder_says_so(self, tmp_path, load):
        with pytest.raises(SymbolListError, match="folder"):
            load(tmp_path)

    def test_through_a_file_says_so(self, written, load):
        with pytest.raises(SymbolListError, match="cannot be read"):
            load(written("AAPL\n") / "x")

    def test_with_a_nul_says_so(self, load):
        with pytest.raises(SymbolListError, match="cannot be read"):
            load("a\0b")


# CSV files: preamble, table, footer


def test_text_around_the_table_is_passed_over(written):
    path = written(
        'A Fund\nas of,"May 1, 2024"\nStock,"-"\n\xa0\nTicker,Name,Weight\n"AAPL","APPLE, INC","7"\n"MSFT","x","6"\n\xa0\n'
        '"Two lines, \nof disclaimer"\nNot a promise, nor an offer\n\xa92024\n'
    )

    assert SymbolLoader.from_csv(path) == ["AAPL", "MSFT"]


def test_the_header_is_looked_for_in_the_first_50_lines(written):
    table = "Ticker,Name\nAAPL,Apple\n"

    assert SymbolLoader.from_csv(written("x\n" * 49 + table)) == ["AAPL"]
    with pytest.raises(SymbolListError, match="no column"):
        SymbolLoader.from_csv(written("x\n" * 50 + table))


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        pytest.param(
            "AAPL,Apple,1\nMSFT\nGOOG,x,3\n", "line 3: 'MSFT' has 1 cell instead of 3; add the missing cells", id="too-few-cells"
        ),
        pytest.param(
            "AAPL,Apple, Inc.,1\nGOOG,x,3\n",
            "line 2: 'AAPL,Apple,Inc.,1' has 4 cells instead of 3; quote the cell that contains a separator",
            id="one-more",
        ),
        pytest.param(
            "AAPL,Apple,1\nMSFT,Micro",
            "has 2 cells instead of 3; add the missing cell, or an empty line before text below the table",
            id="a-last-line-cut-off",
        ),
        pytest.param("AAPL,Apple,1\n\nMSFT,x\n\nGOOG,x,3\n", "line 4: 'MSFT,x' has 2 cells", id="a-gap-is-not-the-end"),
        pytest.param(
            'AAPL,"Apple,1\nMSFT,x,2\n', "line 2: '' opens a quotation mark that never closes", id="an-open-quotation-mark"
        ),
        pytest.param('AAPL,"Apple" Inc,1\nMSFT,x,2\n', "line 2: '' is broken: ", id="text-after-a-quotation"),
        pytest.param(",Apple,1\n", "line 2: '' is empty", id="an-empty-cell"),
        pytest.param("-,Cash,1\n", "line 2: '-' has no letter or digit", id="a-placeholder"),
        pytest.param("AAPL,x,1\nSymbol,Name,n\nMSFT,x,2\n", "line 3: 'Symbol' is the header again", id="two-files-in-one"),
        pytest.param(
            'AAPL,"a\nb\nc",1\nBRK B,x,2\n',
            "line 5: 'BRK B' contains a space; did you mean BRK.B?",
            id="lines-are-counted-in-the-file",
        ),
        pytest.param('AAPL,x,1\n\n"open,\n', "opens a quotation mark", id="an-open-quotation-mark-after-the-table"),
    ],
)
def test_a_broken_row_is_reported_and_never_dropped(written, rows, problem):
    with pytest.raises(SymbolListError) as error:
        SymbolLoader.from_csv(written(f"Symbol,Name,n\n{rows}"))

    assert message(error).count("\n") == 1
    assert problem in message(error)


def test_a_preamble_that_looks_like_the_header_does_not_pass_silently(written):
    with pytest.raises(SymbolListError, match="line 2: 'Ticker' is the header again"):
        SymbolLoader.from_csv(written("Ticker,IVV\nTicker,Name\nAAPL,Apple\n"))


def test_all_problems_of_a_file_are_in_one_error(written):
    path = written("Symbol,Name\nAAPL,Apple\nAAPL;MSFT,x\n,nothing\nGOOG,Alphabet\nBRK B,Berkshire\nX\nMSFT,Microsoft\n")

    with pytest.raises(SymbolListError) as error:
        SymbolLoader.from_csv(path)

    assert message(error) == "\n".join([
        f"{path}: 4 lines are not symbols",
        "  line 3: 'AAPL;MSFT' contains ';'",
        "  line 4: ''          is empty",
        "  line 6: 'BRK B'     contains a space; did you mean BRK.B?",
        "  line 7: 'X'         has 1 cell instead of 2; add the missing cell",
    ])  # fmt: skip


def test_one_problem_is_in_the_singular(written):
    with pytest.raises(SymbolListError, match="1 line is not a symbol\n"):
        SymbolLoader.from_csv(written("Symbol\n?\n"))


def test_a_file_of_nothing_but_problems_stays_readable(written):
    with pytest.raises(SymbolListError) as error:
        SymbolLoader.from_csv(written("Symbol\n" + "?\n" * 5000))

    assert "5,000 lines" in message(error)
    assert message(error).endswith("  and 4,000 more")


@pytest.mark.parametrize("content", ["", "\n\n", "Symbol\n", "Symbol,Name\n\n", "Ticker\n,\n", "\ufeff"])
@pytest.mark.parametrize("column", [None, "Symbol"])
def test_a_file_without_a_symbol_is_refused(written, content, column):
    with pytest.raises(SymbolListError, match=r"no symbol|'Symbol'"):
        SymbolLoader.from_csv(written(content), symbol_column=column)


# CSV files without a header


@pytest.mark.parametrize("first", ["AAPL", "A", "BRK.B", "BRK-B", "NA", "TRUE", "ABR^D"])
def test_a_column_without_a_header_loads_when_it_begins_with_a_ticker(written, first):
    assert [first, "MSFT", "GOOG"] == SymbolLoader.from_csv(written(f"{first}\r\nmsft\r\n\r\nGOOG,\r\n"))


@pytest.mark.parametrize("first", ["Stock", "aapl", "CODE", "NAME", "Identifier", "TICKERS", "2330", "S&P 500"])
def test_a_column_that_begins_with_another_word_has_that_for_a_header(written, first):
    with pytest.raises(SymbolListError, match="'Symbol' or 'Ticker'") as error:
        SymbolLoader.from_csv(written(f"{first}\nAAPL\n"))

    assert repr(first) in message(error)


def test_several_columns_without_a_header_are_not_guessed_at(written):
    with pytest.raises(SymbolListError, match="'AAPL', 'Apple'"):
        SymbolLoader.from_csv(written("AAPL,Apple\nMSFT,Microsoft\n"))


def test_a_named_column_is_never_taken_for_a_missing_header(written):
    with pytest.raises(SymbolListError, match=r"columns.* 'AAPL'"):
        SymbolLoader.from_csv(written("AAPL\nMSFT\n"), symbol_column="Symbol")


def test_a_bad_line_in_a_list_without_a_header_is_reported(written):
    with pytest.raises(SymbolListError, match="line 3: 'A B'"):
        SymbolLoader.from_csv(written("AAPL\nMSFT\nA B\n"))


# Text files


def test_a_text_file_holds_one_symbol_a_line(written):
    path = written("\ufeff# my list\r\n\r\n aapl # the fruit\r\nMSFT\r\n\t\r\nAAPL\r\n#GOOG\r\nNA", "list.txt")

    assert SymbolLoader.from_text_file(path) == ["AAPL", "MSFT", "NA"]


def test_all_problems_of_a_text_file_are_in_one_error(written):
    path = written("AAPL\n\nAAPL;MSFT\n# x\n?\nGOOGLE INC\nA,B\n", "list.txt")

    with pytest.raises(SymbolListError) as error:
        SymbolLoader.from_text_file(path)

    assert message(error) == "\n".join([
        f"{path}: 4 lines are not symbols",
        "  line 3: 'AAPL;MSFT'  contains ';'",
        "  line 5: '?'          contains '?'",
        "  line 6: 'GOOGLE INC' contains a space",
        "  line 7: 'A,B'        contains ','",
    ])  # fmt: skip


@pytest.mark.parametrize("heading", ["Symbol", "ticker", "SYMBOLS"])
def test_the_heading_of_a_csv_file_is_not_a_symbol(written, heading):
    with pytest.raises(SymbolListError, match=r"line 2: '.*' .* CSV"):
        SymbolLoader.from_text_file(written(f"\n{heading}\nAAPL\n"))


@pytest.mark.parametrize("content", ["", "\n \n", "# nothing\n"])
def test_a_text_file_without_a_symbol_is_refused(written, content):
    with pytest.raises(SymbolListError, match="no symbol"):
        SymbolLoader.from_text_file(written(content))


# The real lists, with DuckDB as the judge


def by_duckdb(name: str, column: str, options: str = "") -> list[str]:
    """Read a column with another program: trimmed, upper-cased, each symbol once, in the order of the file."""
    path = (UNIVERSE / name).as_posix()
    with duckdb.connect() as db:
        rows = db.execute(
            f"SELECT upper(trim({column})) FROM read_csv('{path}', all_varchar=true, nullstr='\\N' {options})"
        ).fetchall()
    return list(dict.fromkeys(symbol for (symbol,) in rows))


@needs_universe
@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("datasets_2018-04-02_1c802b91_SymbolNameSector.csv", "Symbol"),
        ("hanshof_2023-05-07_dc573639.csv", "symbol"),
        ("hanshof_2023-12-20_295aec6c.csv", "symbol"),
        ("homeguard_sp500-2025.csv", "Symbol"),
        ("nasdaq100_Ticker_col_20260125.csv", "Ticker"),
        ("sp500_wikipedia_20251116.csv", "Symbol"),
        ("pitindex/sp500_current.csv", "ticker"),
        ("pitindex/sp500_seed.csv", "ticker"),
        ("pitindex/sp500_changes.csv", "ticker"),
    ],
)
def test_real_lists_with_a_header_load(name, column):
    expected = by_duckdb(name, column, ", header=true, delim=',', quote='\"'")

    assert expected == SymbolLoader.from_csv(UNIVERSE / name)
    assert len(expected) > 100


@needs_universe
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("homeguard_sp500-2025.csv", 503),
        ("sp500_wikipedia_20251116.csv", 503),
        ("nasdaq100_Ticker_col_20260125.csv", 101),
        ("ishares_IVV_holdings_20241206.csv", 508),
        ("russell1000_tickers_noheader.csv", 1007),
    ],
)
def test_real_lists_have_the_length_that_was_counted_by_hand(name, count):
    assert count == len(SymbolLoader.from_csv(UNIVERSE / name))


@needs_universe
def test_the_holdings_of_a_fund_load_between_their_preamble_and_their_disclaimers():
    name = "ishares_IVV_holdings_20241206.csv"
    lines = (UNIVERSE / name).read_text("utf-8-sig").splitlines()
    header = next(n for n, line in enumerate(lines) if line.startswith("Ticker,"))
    # Its rows are quoted, the line after them is a space that does not break.
    expected = [line.split('"')[1] for line in lines[header + 1 :] if line.startswith('"') and line.count('","') >= 14]

    assert expected == SymbolLoader.from_csv(UNIVERSE / name)
    assert {"AAPL", "ETD_USD", "ESZ4", "BRKB"} <= set(expected)


@needs_universe
def test_the_real_list_without_a_header_loads():
    expected = by_duckdb("russell1000_tickers_noheader.csv", "column0", ", header=false")

    assert expected == SymbolLoader.from_csv(UNIVERSE / "russell1000_tickers_noheader.csv")
    assert [suggestion(symbol) for symbol in expected if "-" in symbol] == [
        "BRK.B",
        "BF.A",
        "BF.B",
        "CWEN.A",
        "HEI.A",
        "LEN.B",
        "UHAL.B",
    ]


@needs_universe
def test_the_real_list_with_a_column_of_another_name_fails_and_loads_when_it_is_named():
    name = "rasodu_DowJones30_Identifier_2019.csv"

    with pytest.raises(SymbolListError, match="'StockExchange', 'Identifier'"):
        SymbolLoader.from_csv(UNIVERSE / name)
    assert by_duckdb(name, "Identifier") == SymbolLoader.from_csv(UNIVERSE / name, symbol_column="Identifier")


@needs_universe
def test_the_real_list_of_changes_is_not_taken_for_a_list_of_symbols():
    name = "sp500_changes_since_2019.csv"
    with duckdb.connect() as db:
        path = (UNIVERSE / name).as_posix()
        table = f"read_csv('{path}', all_varchar=true, header=true)"
        ((count,),) = db.execute(f"SELECT count(*) FROM {table} WHERE add IS NULL OR add = '' OR add LIKE '%,%'").fetchall()

    with pytest.raises(SymbolListError, match="'date', 'add', 'remove'"):
        SymbolLoader.from_csv(UNIVERSE / name)
    with pytest.raises(SymbolListError, match=f": {count:,} lines are not symbols"):
        SymbolLoader.from_csv(UNIVERSE / name, symbol_column="add")


@needs_universe
def test_the_real_text_list_loads_though_its_preferred_shares_are_split_over_lines():
    """The pieces (``ABR`` and ``D`` of ``ABR^D``) are symbols, and fold; nothing in the file says otherwise."""
    expected = by_duckdb("us_nyse_tickers_20260822.txt", "column0", ", header=false, delim=','")

    assert expected == SymbolLoader.from_text_file(UNIVERSE / "us_nyse_tickers_20260822.txt")
    assert expected == SymbolLoader.from_csv(UNIVERSE / "us_nyse_tickers_20260822.txt")
