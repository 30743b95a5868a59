"""A run's models for other tools."""
