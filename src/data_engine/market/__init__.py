"""Define time ranges, series, sessions, bars and corporate actions: values and functions without side effects."""
