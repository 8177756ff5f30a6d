"""A bot of alpaca-py's style: two moving averages of minute bars say whether to be in a stock. It places no orders.

One run judges the session that is open, or the last one.
Keys come from ALPACA_API_KEY and ALPACA_SECRET_KEY. Nothing in this file knows of a sandbox.
"""

import os
import sys
from datetime import timedelta

from alpaca.data.enums import DataFeed
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.requests import StockBarsRequest, StockLatestBarRequest
from alpaca.data.timeframe import TimeFrame
from alpaca.trading.client import TradingClient
from alpaca.trading.requests import GetCalendarRequest

FAST, SLOW = 20, 60

keys = os.environ["ALPACA_API_KEY"], os.environ["ALPACA_SECRET_KEY"]
trading = TradingClient(*keys, paper=True)
data = StockHistoricalDataClient(*keys)


def judge(symbols):
    """Print the last session, and one line per symbol: the latest bar, and what the averages say."""
    clock = trading.get_clock()
    week = GetCalendarRequest(start=clock.timestamp.date() - timedelta(days=10), end=clock.timestamp.date())
    now = clock.timestamp.replace(tzinfo=None)
    session = [day for day in trading.get_calendar(week) if day.open <= now][-1]
    print(f"{'open' if clock.is_open else 'closed'}; session {session.date}, {session.open:%H:%M} to {session.close:%H:%M}")
    latest = data.get_stock_latest_bar(StockLatestBarRequest(symbol_or_symbols=symbols, feed=DataFeed.SIP))
    request = StockBarsRequest(symbol_or_symbols=symbols, timeframe=TimeFrame.Minute, start=session.date, feed=DataFeed.SIP)
    bars = data.get_stock_bars(request).df
    for symbol in symbols:
        closes = bars.loc[symbol, "close"]
        fast, slow = (closes.tail(count).mean() for count in (FAST, SLOW))
        signal = "long" if fast > slow else "flat"
        print(f"{symbol} {latest[symbol].timestamp:%Y-%m-%d %H:%M} {latest[symbol].close:.2f}: {signal}")


if __name__ == "__main__":
    judge(sys.argv[1:] or ["AAPL", "MSFT"])
