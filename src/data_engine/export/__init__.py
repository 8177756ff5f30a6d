"""Write bars in the formats of backtest engines, and bring such a folder up to date."""
