"""Request historical bars and corporate actions from Alpaca, within its rate limit, and read its responses."""
