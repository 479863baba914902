"""What a run must reach."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path


def check(report: Mapping[str, float], gates: Mapping[str, tuple[float, float]], path: Path) -> None:
    """Write a report as JSON, print it, and exit with an error if a value is outside of its gate, ``(low, high)``."""
    text = json.dumps(report, indent=2)
    path.write_text(text + "\n")
    print(text)
    missed = {name: report[name] for name, (low, high) in gates.items() if not low <= report[name] <= high}
    if missed:
        sys.exit(f"missed: {missed}; the gates are {dict(gates)}")
