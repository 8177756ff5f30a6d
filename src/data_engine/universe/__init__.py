"""Who: symbol lists, and the members of an index on any day."""
