"""Measurements of a model: bits per byte, and recall of a planted note by distance."""
