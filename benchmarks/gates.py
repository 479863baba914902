"""What a run must reach."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from diffusion_labs.files import write_json


def check(report: Mapping[str, float], gates: Mapping[str, tuple[float, float]], path: Path) -> None:
    """Write a report as JSON, print it, and exit with an error if a value is outside of its gate, ``(low, high)``."""
    write_json(path, report)
    print(json.dumps(report, indent=2))
    missed = {name: report[name] for name, (low, high) in gates.items() if not low <= report[name] <= high}
    if missed:
        sys.exit(f"missed: {missed}; the gates are {dict(gates)}")
