"""What is owned: bar files, and the coverage that says what was requested and answered."""
