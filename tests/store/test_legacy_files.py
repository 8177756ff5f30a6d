"""Files of the legacy pipeline are seen wherever a store is, and by their folders alone."""

from __future__ import annotations

import pyarrow as pa
import pytest

from data_engine.errors import ForeignFiles
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.store.bar_store import BarStore
from data_engine.store.legacy_files import foreign_files, is_legacy, is_legacy_store, journal_key, legacy_keys
from data_engine.store.local_files import LocalFiles

AAPL = Series("AAPL", Dataset(Timeframe(1, "Min")))
FOLDER = "equities_1min/symbol=AAPL"


@pytest.mark.parametrize(
    ("key", "legacy"),
    [
        ("equities_1min/symbol=AAPL/year=2024/month=1/data_0.parquet", True),
        ("equities_1min/symbol=AAPL/year=2024/month=12/data_0.parquet", True),
        ("equities_1min/symbol=AAPL/year=2024/month=1/data_17.parquet", True),
        ("equities_1min/symbol=AAPL/year=2024/month=1/data0.parquet", True),
        ("equities_1min/symbol=AAPL/year=2024/month=1/data.parquet", False),
        ("equities_1min_iex/symbol=A%2FB/year=2024/month=9/data_0.parquet", True),
        ("equities_1min/symbol=AAPL/year=2024/month=01/data.parquet", False),
        ("equities_1min/symbol=AAPL/year=2024/month=12/data.parquet", False),
        ("equities_1min/symbol=AAPL/year=2024/month=13/data_0.parquet", False),
        ("equities_1min/symbol=AAPL/year=2024/data_0.parquet", False),
        ("equities_1min/symbol=AAPL/year=2024/month=1/notes.txt", False),
        ("metadata/legacy/equities_1min/symbol=AAPL/year=2024/month=1/data_0.parquet", False),
    ],
)
def test_a_legacy_file_is_known_by_its_path(key, legacy):
    assert is_legacy(key) is legacy


@pytest.fixture
def store(place):
    return BarStore(place.files)


def test_a_place_with_legacy_files_and_no_coverage_is_refused_whole(place, store):
    place.put(f"{FOLDER}/year=2024/month=1/data_0.parquet", b"PAR1")
    place.put("metadata/indices/sp500.csv", b"symbol,added_date\nAAPL,2024-01-01\n")

    assert is_legacy_store(place.files)
    with pytest.raises(ForeignFiles, match=r"1 symbol.*import --in-place"):
        store.check_exists()
    store.check_exists(legacy=True)


def test_a_store_with_coverage_is_not_refused_whole_and_its_series_are(place, store):
    place.put(f"{FOLDER}/year=2023/month=10/data_0.parquet", b"PAR1")
    place.put(f"{FOLDER}/year=2023/month=10/data.parquet", b"PAR1")
    place.put(f"{FOLDER}/year=2024/month=1/data_0.parquet", b"PAR1")
    place.put("metadata/coverage/equities_1min/symbol=MSFT.json", b"{}")

    store.check_exists()
    assert list(legacy_keys(place.files, FOLDER)) == [
        f"{FOLDER}/year=2023/month=10/data_0.parquet",
        f"{FOLDER}/year=2024/month=1/data_0.parquet",
    ]
    before = place.content()
    with pytest.raises(ForeignFiles, match="2 files") as error:
        store.add(AAPL, pa.table({}))
    assert error.value.exit_code == 4
    assert place.content() == before
    assert foreign_files(place.files, Series("MSFT", AAPL.dataset)) is None


def test_an_import_that_was_not_finished_keeps_its_series_from_being_written(tmp_path):
    files = LocalFiles(tmp_path)
    files.update(journal_key("equities_1min", "symbol=AAPL"), lambda _: b"{}")

    assert "not finished" in str(foreign_files(files, AAPL))


def test_other_months_of_the_store_are_not_listed(tmp_path):
    """Of a series with ten years, twelve folders of months a year would take longer than its update."""
    listed = []

    class Watched(LocalFiles):
        def _scan(self, folder):
            listed.append(folder)
            return super()._scan(folder)

    files = Watched(tmp_path)
    for month in range(1, 13):
        files.update(f"{FOLDER}/year=2024/month={month:02d}/data.parquet", lambda _: b"PAR1")
    listed.clear()

    assert list(legacy_keys(files, FOLDER)) == []
    assert len(listed) == 2 + 3, "the series, the year, and October to December, which the legacy pipeline calls the same"
    listed.clear()
    assert foreign_files(files, AAPL) is None
    assert len(listed) == 2, "of these, a file of its name is looked for"
