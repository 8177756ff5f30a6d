"""Splits, dividends and ticker changes: fetched, kept, worked into prices."""
