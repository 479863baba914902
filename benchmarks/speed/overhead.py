"""The figures of ``sampler_overhead`` as a section of the page."""

from collections.abc import Mapping
from typing import Any

from benchmarks.speed.section import Claim, Plot, Section, Table

FILE = "sampler-overhead.json"  # that it writes
OURS = "diffusion_labs"
BARS = {"DDIM": 20.0, "DPM-Solver++ 2M": 20.0, "DDPM": 40.0}  # microseconds a step


def section(figures: Mapping[str, Any]) -> Section:
    """The section, with the bars."""
    steps: Mapping[str, Mapping[str, float]] = figures["us per step"]
    own, others = steps[OURS], {library: steps[library] for library in steps if library != OURS}
    claims = [
        Claim(f"overhead of a step, {name}", own[name], bar, at_most=True, unit="us") for name, bar in BARS.items()
    ]
    for name in own:
        beside = {library: values[name] for library, values in others.items() if name in values}
        if beside:
            least = min(beside, key=lambda library: beside[library])
            claims.append(Claim(f"overhead over that of {least}, {name}", own[name] / beside[least], 1.0, at_most=True))
    rows = [[name, *(f"{values[name]:.0f}" if name in values else "-" for values in steps.values())] for name in own]
    return Section(
        "sampler_overhead",
        "Overhead of samplers",
        "Microseconds that a sampler adds to each step of a network that is free: CPU time of the one thread. Each is "
        "compared with the lowest of the other libraries.",
        claims,
        [Table("Microseconds a step", ["", *steps], rows)],
        [Plot("Microseconds a step, DDIM", "us", "", {name: v["DDIM"] for name, v in steps.items() if "DDIM" in v})],
    )
