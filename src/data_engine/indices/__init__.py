"""Named lists of symbols, and who was on them on which day."""
