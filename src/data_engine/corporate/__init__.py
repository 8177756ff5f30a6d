"""Corporate actions: brought, kept, and worked into raw bars as they are read; tickers that change hands."""
