"""Fetch and store splits, dividends and ticker changes, and adjust prices for them."""
