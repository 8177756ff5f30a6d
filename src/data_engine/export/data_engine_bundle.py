"""Register the daily bars and corporate actions in this folder as a bundle of zipline-reloaded.

`data-engine export --to zipline` wrote this folder. Put into ``~/.zipline/extension.py``::

    import sys
    sys.path.insert(0, "/path/of/this/folder")
    import data_engine_bundle
    data_engine_bundle.register()

Then run ``zipline ingest -b data-engine``, again after each export. It needs nothing but zipline-reloaded and this folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

FOLDER = Path(__file__).resolve().parent

NAME = "data-engine"


def register(name: str = NAME, folder: Path | str = FOLDER) -> None:
    """Register the bundle with zipline.

    Args:
        name: The name of the bundle.
        folder: The folder of the export.
    """
    from zipline.data.bundles import register as register_bundle

    register_bundle(name, lambda *arguments: _ingest(Path(folder), *arguments), calendar_name="XNYS")


def _ingest(
    folder: Path,
    environ: Any,
    asset_db_writer: Any,
    minute_bar_writer: Any,
    daily_bar_writer: Any,
    adjustment_writer: Any,
    calendar: Any,
    start_session: Any,
    end_session: Any,
    cache: Any,
    show_progress: Any,
    output_dir: Any,
) -> None:
    """Read the folder, and give it to the writers of zipline, a symbol at a time."""
    import pandas as pd

    symbols = {
        unquote(path.name[len("symbol=") : -len(".csv")]): path for path in sorted((folder / "daily").glob("symbol=*.csv"))
    }
    sids = {symbol: sid for sid, symbol in enumerate(sorted(symbols))}
    assets: list[dict[str, Any]] = []

    def bars() -> Iterator[tuple[int, Any]]:
        for symbol, sid in sids.items():
            frame = pd.read_csv(symbols[symbol], dtype=str).set_index("date").astype("float64")  # text is read exactly
            frame.index = pd.to_datetime(frame.index)
            frame = frame[(frame.index >= start_session) & (frame.index <= end_session)]
            if frame.empty:
                continue
            first, last = frame.index[0], frame.index[-1]
            # A session without a bar has no price and the volume 0.
            frame = frame.reindex(calendar.sessions_in_range(first, last))
            frame["volume"] = frame["volume"].fillna(0.0)
            assets.append(
                {
                    "sid": sid,
                    "symbol": symbol,
                    "start_date": first,
                    "end_date": last,
                    "auto_close_date": last + pd.Timedelta(days=1),
                }
            )
            yield sid, frame.fillna(0.0)

    daily_bar_writer.write(bars(), show_progress=show_progress)
    equities = pd.DataFrame(assets).set_index("sid").assign(exchange="NYSE")
    exchanges = pd.DataFrame({"exchange": ["NYSE"], "canonical_name": ["NYSE"], "country_code": ["US"]})
    asset_db_writer.write(equities=equities, exchanges=exchanges)
    files = {sid: folder / "actions" / symbols[symbol].name for symbol, sid in sids.items() if sid in equities.index}
    splits, dividends = _actions(files)
    adjustment_writer.write(splits=splits, dividends=dividends)


def _actions(files: dict[int, Path]) -> tuple[Any, Any]:
    """Return the splits and the dividends of the symbols with these files, as zipline names their columns."""
    import pandas as pd

    days = ["ex_date", "record_date", "pay_date"]
    parts = [
        frame.assign(sid=sid) for sid, path in files.items() if path.is_file() and len(frame := pd.read_csv(path, dtype=str))
    ]
    if not parts:
        return None, None
    every = pd.concat(parts, ignore_index=True)
    for name in days:
        every[name] = pd.to_datetime(every[name]).astype("datetime64[ns]")
    every["value"] = every["value"].astype("float64")
    splits = every[every["kind"] == "split"].rename(columns={"ex_date": "effective_date", "value": "ratio"})
    dividends = every[every["kind"] == "dividend"].rename(columns={"value": "amount"})
    # Without a day of payment, zipline would never pay the dividend.
    dividends = dividends.assign(
        pay_date=dividends["pay_date"].fillna(dividends["ex_date"]),
        declared_date=pd.Series(pd.NaT, dividends.index, "datetime64[ns]"),
    )
    return (
        splits[["sid", "effective_date", "ratio"]].reset_index(drop=True),
        dividends[["sid", "amount", "ex_date", "record_date", "declared_date", "pay_date"]].reset_index(drop=True),
    )
