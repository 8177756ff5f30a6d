"""The work of a run done by a Dask cluster, which shares one account's limit."""
