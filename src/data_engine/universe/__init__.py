"""Read lists of symbols, and read and write the members of an index on any day."""
