"""`griffin verify`: proof, on a model's own weights, that this installation computes it rightly."""

from .report import Report
from .run import verify

__all__ = ["Report", "verify"]
