"""Measurements: commands that write a table, never timed tests."""
