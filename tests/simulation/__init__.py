"""A world that knows the truth: a vendor, files, threads and commands from one seed, and checks after every step."""
