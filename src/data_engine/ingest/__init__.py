"""Plan, fetch, keep, remember, report."""
