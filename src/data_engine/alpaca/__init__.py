"""The vendor: how it is asked, how often, and how its answers read."""
