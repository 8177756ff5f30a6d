"""A store checked against its claims, the calendar and sanity. Asks the vendor nothing."""
