"""What things are: time, series, sessions, bars, corporate actions. Pure."""
