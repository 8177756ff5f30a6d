"""A store held against its claims, the calendar, sanity and the vendor; and what is done about it."""
