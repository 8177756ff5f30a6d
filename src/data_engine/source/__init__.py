"""The vendor: how Alpaca is asked, how often, and how its answers read."""
