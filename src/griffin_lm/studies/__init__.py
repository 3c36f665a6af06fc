"""Architectures side by side: `griffin compare`. One file per study, one row in registry.py."""
