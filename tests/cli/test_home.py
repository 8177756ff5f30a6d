"""`data-engine` without a command says what the store holds, as `status` does."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from data_engine.market.exchange_calendar import sessions
from data_engine.market.time_range import new_york_days
from data_engine.read.parquet_storage import ParquetStorage
from pages import DAYS, put
from running import here


def two_series(base: Path) -> None:
    may = new_york_days(date(2024, 5, 1), date(2024, 5, 31))
    for symbol in ("AAPL", "MSFT"):
        put(
            ParquetStorage(base),
            symbol,
            DAYS,
            list(sessions(date(2024, 5, 1), date(2024, 5, 31))),
            50,
            wanted=(may,),
            covered=(may,),
        )


def said(base: Path) -> tuple[int, str]:
    ran = here(env={"DATA_ENGINE_BASE_PATH": str(base)})
    return ran.code, ran.out.splitlines()[1].strip()


def test_bars_of_a_file_that_is_gone_are_not_counted(tmp_path: Path) -> None:
    two_series(tmp_path)
    assert said(tmp_path) == (0, "equities_1day: 2 series, 44 bars")

    (tmp_path / "equities_1day/symbol=MSFT/year=2024/data.parquet").unlink()
    assert said(tmp_path) == (0, "equities_1day: 2 series, 22 bars")


def test_a_damaged_coverage_file_hides_no_other_series(tmp_path: Path) -> None:
    two_series(tmp_path)
    (tmp_path / "metadata/coverage/equities_1day/symbol=MSFT.json").write_text("nope")

    assert said(tmp_path) == (0, "equities_1day: 2 series, 22 bars, 1 damaged")
