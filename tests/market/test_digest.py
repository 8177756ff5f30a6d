"""One digest of a store's bars: equal for equal rows however they lie in files, and for nothing else."""

from __future__ import annotations

import itertools
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine import ParquetStorage
from data_engine.market.bars import BAR_SCHEMA, VALUES
from data_engine.market.digest import series_digest, store_digest
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.sandbox import Replay, Sandbox
from running import here, pipeline_of, write_minutes

MINUTES, DAYS = (Dataset(Timeframe.parse(text)) for text in ("1Min", "1Day"))
START = datetime(2024, 6, 3, 14, tzinfo=UTC)


def table(*prices: float, first: datetime = START) -> pa.Table:
    """Return a bar a minute, each with one price in all columns."""
    times = [first + timedelta(minutes=number) for number in range(len(prices))]
    return pa.table([times, *[list(prices)] * len(VALUES)], schema=BAR_SCHEMA)


BARS = table(1.0, 2.0, 3.0, 4.0)


# One series


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=30), st.lists(st.integers(0, 30)))
def test_it_does_not_matter_where_a_file_ends(prices, cuts):
    whole = table(*prices)
    edges = sorted({0, len(prices), *(cut for cut in cuts if cut <= len(prices))})
    pieces = [whole.slice(start, end - start) for start, end in itertools.pairwise(edges)]

    assert series_digest(pieces) == series_digest([whole])


def test_empty_pieces_count_for_nothing():
    assert series_digest([]) == series_digest([BARS.slice(0, 0)])
    assert series_digest([BARS.slice(0, 0), BARS, BARS.slice(4)]) == series_digest([BARS])


@pytest.mark.parametrize("column", VALUES)
@pytest.mark.parametrize("value", [2.0000000000000004, -2.0, 0.0, 1e300])
def test_one_other_value_is_another_digest(column, value):
    at = BAR_SCHEMA.get_field_index(column)
    changed = BARS.set_column(at, BAR_SCHEMA.field(at), pa.array([1.0, value, 3.0, 4.0]))

    assert series_digest([changed]) != series_digest([BARS])


def test_one_bar_more_or_fewer_or_elsewhere_is_another_digest():
    others = [
        BARS.slice(1),
        BARS.slice(0, 3),
        table(1.0, 2.0, 3.0, 4.0, 5.0),
        table(1.0, 2.0, 3.0, 4.0, first=START + timedelta(1)),
    ]
    digests = {series_digest([one]) for one in [BARS, *others]}

    assert len(digests) == 5


def test_values_do_not_wander_between_columns():
    at, beside = BAR_SCHEMA.get_field_index("open"), BAR_SCHEMA.get_field_index("high")
    one = BARS.set_column(at, BAR_SCHEMA.field(at), pa.array([9.0] * 4))
    other = BARS.set_column(beside, BAR_SCHEMA.field(beside), pa.array([9.0] * 4))

    assert series_digest([one]) != series_digest([other])


def test_zero_has_one_sign():
    assert series_digest([table(0.0, 1.0)]) == series_digest([table(-0.0, 1.0)])


# Many series


def test_the_order_of_the_series_does_not_matter_and_their_names_do():
    one, other = series_digest([BARS]), series_digest([BARS.slice(1)])
    a, b, days = Series("A", MINUTES), Series("B", MINUTES), Series("A", DAYS)
    digest = store_digest({a: one, b: other})

    assert digest == store_digest({b: other, a: one})
    assert len({digest, store_digest({a: other, b: one}), store_digest({a: one, days: other}), store_digest({a: one})}) == 4


def test_a_series_without_bars_is_no_difference():
    a, b = Series("A", MINUTES), Series("B", MINUTES)

    assert store_digest({a: series_digest([BARS]), b: series_digest([])}) == store_digest({a: series_digest([BARS])})


# Stores


@pytest.fixture
def source(tmp_path: Path) -> Replay:
    days = [date(2024, 5, 31), date(2024, 6, 3), date(2024, 6, 4)]
    return Replay(write_minutes(tmp_path / "bars.parquet", ["AAPL", "MSFT"], days))


def digest_of(base: Path) -> str:
    ran = here("status", "--digest", "--json", "--base-path", base)
    assert ran.code == 0, ran.text
    return str(ran.json["digest"])


def test_stores_filled_in_other_pieces_and_order_have_one_digest(source, tmp_path):
    with Sandbox(source) as server:
        pipeline_of(server, tmp_path / "whole").ingest_symbols(["AAPL", "MSFT"], "2024-05-31", "2024-06-04")
        for symbol, day in (("MSFT", "2024-06-04"), ("AAPL", "2024-06-03"), ("MSFT", "2024-05-31"), ("AAPL", "2024-06-04")):
            pipeline_of(server, tmp_path / "pieces", workers=1).ingest_symbols([symbol], day, day)
        before = digest_of(tmp_path / "pieces")
        pipeline_of(server, tmp_path / "pieces").ingest_symbols(["AAPL", "MSFT"], "2024-05-31", "2024-06-04")

    assert before != digest_of(tmp_path / "whole")
    assert digest_of(tmp_path / "pieces") == digest_of(tmp_path / "whole")
    assert (
        here("status", "--digest", "--base-path", tmp_path / "whole").out.splitlines().count(digest_of(tmp_path / "whole")) == 1
    )


def test_frames_that_were_stored_have_the_digest_of_bars_that_were_ingested(source, tmp_path):
    with Sandbox(source) as server:
        pipeline_of(server, tmp_path / "one").ingest_symbols(["AAPL", "MSFT"], "2024-05-31", "2024-06-04")
    frame = ParquetStorage(tmp_path / "one").load(["AAPL", "MSFT"], "2024-05-31", "2024-06-04")
    other = ParquetStorage(tmp_path / "other")
    other.store(frame.iloc[70:])
    other.store(frame.iloc[:80])
    digest = digest_of(tmp_path / "other")

    assert digest == digest_of(tmp_path / "one")
    frame.iloc[17, 3] += 1e-9
    other.store(frame)
    assert digest_of(tmp_path / "other") != digest


def test_bars_count_whether_their_coverage_is_there_or_not(source, tmp_path):
    with Sandbox(source) as server:
        pipeline_of(server, tmp_path / "store").ingest_symbols(["AAPL", "MSFT"], "2024-05-31", "2024-06-04")
    before = digest_of(tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "metadata" / "coverage")

    assert digest_of(tmp_path / "store") == before
