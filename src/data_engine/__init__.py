"""Historical US stock bars from Alpaca in a plain Parquet store that always knows what it holds."""
