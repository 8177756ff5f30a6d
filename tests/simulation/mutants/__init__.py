"""Deliberate breaks of the engine, one patch a file, and what runs the worlds against each: see `__main__`."""
