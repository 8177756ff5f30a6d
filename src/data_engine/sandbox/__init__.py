"""Run a local server that speaks Alpaca's protocol for historical bars and corporate actions, for rehearsals, tests and the demo.

`Sandbox` serves the bars of a source: `SimulatedMarket` (any symbol, any range, all of it made up) or `Replay` (real bars from
Parquet files), under the tickers that `Listings` give them, corporate actions (`Announcements`) and the list of securities
(`Assets`). `Faults` makes it fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_engine.sandbox.assets import Assets
    from data_engine.sandbox.corporate_actions import Announcements
    from data_engine.sandbox.faults import Faults
    from data_engine.sandbox.listings import Listing, Listings
    from data_engine.sandbox.replay import Replay
    from data_engine.sandbox.server import Sandbox
    from data_engine.sandbox.simulated_market import SimulatedMarket


__all__ = ["Announcements", "Assets", "Faults", "Listing", "Listings", "Replay", "Sandbox", "SimulatedMarket"]

_HOMES = {
    "Announcements": "corporate_actions",
    "Assets": "assets",
    "Faults": "faults",
    "Listing": "listings",
    "Listings": "listings",
    "Replay": "replay",
    "Sandbox": "server",
    "SimulatedMarket": "simulated_market",
}


def __getattr__(name: str) -> object:
    # Importing numpy and pyarrow takes half a second, which only a server needs.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"data_engine.sandbox.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
