"""Check a store: files, coverage, calendar and prices. Sends no request."""
