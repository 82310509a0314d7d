"""What times fastnn beside its own command: asv, pytest-benchmark, and the ladder."""
