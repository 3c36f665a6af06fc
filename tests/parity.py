"""The largest difference to somebody else's implementation: asserted, and written down if asked."""

import json
import os


def record_parity(check: str, error: float, tolerance: float) -> None:
    """Asserts error <= tolerance (NaN fails), after adding a row to the file for the results' page.

    The file is named by the environment variable GRIFFIN_PARITY_JSON; without it nothing is
    written. One JSON object a line: {"check", "error", "tolerance"}. tests/make_parity_page.py
    makes docs/results/parity.md of it.
    """
    path = os.environ.get("GRIFFIN_PARITY_JSON")
    if path:
        row = {"check": check, "error": error, "tolerance": tolerance}
        with open(path, "a", encoding="utf-8") as rows:
            rows.write(json.dumps(row) + "\n")
    assert error <= tolerance, f"{check}: off by {error:.2e}, more than {tolerance:.0e}"
