"""``python -m data_engine.cli``, where the console script is not on PATH."""

from data_engine.cli import run

run()
