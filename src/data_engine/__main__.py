"""``python -m data_engine``: the command line."""

from data_engine.cli import run

run()
