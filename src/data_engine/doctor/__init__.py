"""Check that data-engine can work here, and that Alpaca's service is what data-engine assumes."""
