"""Stored bars as pandas, Arrow, Polars and DuckDB give them."""
