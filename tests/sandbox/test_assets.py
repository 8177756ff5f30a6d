"""The list of securities of the sandbox, judged by alpaca-py: its models, its filters, and the oddities of the real list."""

from __future__ import annotations

import json
import warnings
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from alpaca.common.exceptions import APIError

from data_engine.errors import DataEngineError
from data_engine.sandbox import Assets, Listing, Listings, Replay, Sandbox, SimulatedMarket
from running import Clock, write_minutes

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of the websockets that alpaca-py imports beside
    from alpaca.trading.client import TradingClient
    from alpaca.trading.enums import AssetClass, AssetExchange, AssetStatus
    from alpaca.trading.models import Asset
    from alpaca.trading.requests import GetAssetsRequest

RENAMED = Listings(
    [
        Listing("FB", "FACEBOOK", None, date(2022, 6, 8)),
        Listing("META", "FACEBOOK", date(2022, 6, 9)),
        Listing("META", "FUND", None, date(2022, 1, 31)),
    ]
)


def listed(server: Sandbox, **wanted: Any) -> list[Asset]:
    client = TradingClient("key", "secret", url_override=server.url)
    found = client.get_all_assets(GetAssetsRequest(**wanted) if wanted else None)
    assert isinstance(found, list)
    return found


def rows_of(found: list[Asset]) -> set[tuple[str, str]]:
    return {(one.symbol, one.status.value) for one in found}


def test_alpacas_client_reads_the_simulated_list_and_its_filters_hold() -> None:
    with Sandbox(SimulatedMarket()) as server:
        everything = listed(server)
        parts = [listed(server, status=status, asset_class=AssetClass.US_EQUITY) for status in AssetStatus]
        otc = listed(server, exchange=AssetExchange.OTC)

        assert sorted(map(str, everything)) == sorted(str(one) for part in parts for one in part)
        assert rows_of(everything) >= {("AAPL", "active"), ("META", "active"), ("META", "inactive"), ("FB", "inactive")}
        assert rows_of(otc) == {("TCEHY", "active"), ("LEHMQ", "inactive")}
        assert listed(server, asset_class=AssetClass.CRYPTO) == []
        assert len({one.id for one in everything}) == len(everything)
        with pytest.raises(APIError) as refused:
            TradingClient("key", "secret", url_override=server.url).get("/assets", {"status": "gone"})
        assert refused.value.status_code == 422


def test_the_days_of_the_listings_say_who_is_active_and_an_id_does_not_survive_a_rename(tmp_path: Path) -> None:
    clock = Clock(datetime(2022, 6, 8, 16, tzinfo=UTC))
    source = Replay(write_minutes(tmp_path / "bars.parquet", ["FACEBOOK", "FUND", "IBM"], [date(2022, 6, 7)]))
    with Sandbox(source, clock=clock, listings=RENAMED) as server:
        before = listed(server)
        clock.now = datetime(2022, 6, 9, 16, tzinfo=UTC)
        after = listed(server)

    assert rows_of(before) == {("FB", "active"), ("META", "inactive"), ("IBM", "active")}
    assert rows_of(after) == {("FB", "inactive"), ("META", "active"), ("META", "inactive"), ("IBM", "active")}
    company = {one.id for one in before if one.symbol == "FB"}
    assert company.isdisjoint({one.id for one in after if (one.symbol, one.status.value) == ("META", "active")})


def test_the_list_has_a_rate_limit_of_its_own() -> None:
    with Sandbox(SimulatedMarket(), rate=60, burst=1) as server:
        assert all(listed(server) for _ in range(3))
        assert server.counts[429] == 0


def test_a_file_is_served_as_it_is_and_what_its_rows_lack_is_made_up(tmp_path: Path) -> None:
    file = tmp_path / "assets.json"
    file.write_text(json.dumps([{"symbol": "IBM", "exchange": "NYSE"}, {"symbol": "GONE", "status": "inactive"}]))
    with Sandbox(SimulatedMarket(), assets=Assets.read(file)) as server:
        found = listed(server)
        assert [(one.symbol, one.exchange.value, one.tradable) for one in found] == [
            ("IBM", "NYSE", True),
            ("GONE", "NASDAQ", False),
        ]


@pytest.mark.parametrize("content", ['{"a": 1}', "[1]", "[{}]", '[{"symbol": "A", "status": "gone"}]', "no"])
def test_a_file_that_is_no_list_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "assets.json").write_text(content)
    with pytest.raises(DataEngineError) as refused:
        Assets.read(tmp_path / "assets.json")
    assert refused.value.exit_code == 2
