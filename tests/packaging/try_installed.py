"""Use the data-engine that is installed, from the sandbox to a query: what each wheel is tried with, on each system and Python.

It needs no checkout, no network beyond the loopback interface and no tools of tests.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import data_engine
from data_engine import AlpacaClient, IngestionPipeline, ParquetStorage
from data_engine.alpaca.native_library import library
from data_engine.sandbox import Sandbox, SimulatedMarket


def main() -> None:
    """Ingest two sessions, load them, and have the commands check and query them."""
    home = Path(data_engine.__file__).parent
    compiled = library() is not None
    print(f"{sys.platform}, Python {sys.version.split()[0]}, {home}, decoder {'compiled' if compiled else 'pure Python'}")
    if compiled != (home / "alpaca" / "page_decoder_native.native").exists():
        raise SystemExit("FAILED: the compiled decoder of the wheel cannot be loaded")
    if not (home / "docs" / "index.md").exists():
        raise SystemExit("FAILED: the documentation is not in the wheel")
    with tempfile.TemporaryDirectory() as folder, Sandbox(SimulatedMarket()) as server:
        client = AlpacaClient("any", "any", base_url=server.url)
        pipeline = IngestionPipeline(base_path=folder, client=client, progress=False)
        result = pipeline.ingest_symbols(["AAPL", "CON"], "2024-07-02", "2024-07-03")
        if result["failed"]:
            raise SystemExit(f"FAILED: {result['failed']}")
        bars = ParquetStorage(folder).load(["AAPL", "CON"], "2024-07-02", "2024-07-03", incomplete="raise")
        for words in (["verify"], ["query", "SELECT count(*) AS bars FROM bars_1min"], ["status"]):
            command = [sys.executable, "-m", "data_engine", *words, "--base-path", folder]
            done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
            if done.returncode or (words[0] == "query" and str(len(bars)) not in done.stdout):
                raise SystemExit(f"FAILED: {words[0]} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    print(f"ok: {len(bars)} bars")


if __name__ == "__main__":
    main()
