"""A store in a bucket: requests, conditions, locks that end by themselves, files, and views over them."""
