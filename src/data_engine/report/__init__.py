"""Write an HTML report of a store."""
