"""``python -m data_engine``: the command line."""

from __future__ import annotations

from data_engine.cli import run

run()

run()
