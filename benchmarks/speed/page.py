"""The page of what was measured, from the sections: no figure on it is written by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.markdown import table
from benchmarks.speed.section import Claim, Section, Table


def page(sections: Sequence[Section], missing: Sequence[str], pictures: str) -> str:
    """The whole page, Markdown.

    Args:
        sections: in their order.
        missing: names of benchmarks that have not been run.
        pictures: folder of the pictures, as seen from the page.
    """
    parts = [header(sections), bars(sections, missing), *(part(section, pictures) for section in sections)]
    return "\n\n".join(parts) + "\n"


def header(sections: Sequence[Section]) -> str:
    """Where and when."""
    lines = [
        "# Performance",
        "<!-- Made by `make bench`; what is written here by hand is lost. -->",
        "`make bench` measures this library and others in turns, in one process, and compares them within each turn: "
        "figures are medians of ratios, which hold where the speed of a machine drifts. The others are in an "
        "environment of their own, `.venv-peers`. All [keep memory, in large pages](kernels.md#memory).",
        *warnings(sections),
    ]
    for machine in unlike([section.machine for section in sections]):
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        lines.append(
            f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['system']}, Python "
            f"{machine['python']}; {versions}."
        )
    return "\n\n".join(lines)


def warnings(sections: Sequence[Section]) -> list[str]:
    """Why the figures mean less than they seem to."""
    found = []
    if any("--quick" in section.command for section in sections):
        found.append("**Measured with `--quick`: these figures show that the benchmarks run, and nothing else.**")
    busy = [f"{s.title} (load {s.machine['load']})" for s in sections if s.machine["load"] > s.machine["cores"] + 0.5]
    if busy:
        found.append(f"**The machine had other work than this: {', '.join(busy)}.**")
    return found


def unlike(machines: Sequence[Any]) -> list[dict[str, Any]]:
    """The machines, without what differs between runs on one of them."""
    found: list[dict[str, Any]] = []
    for machine in machines:
        kept = {key: value for key, value in machine.items() if key not in ("date", "load", "threads")}
        if kept not in found:
            found.append(kept)
    return found


def bars(sections: Sequence[Section], missing: Sequence[str]) -> str:
    """Every claim with its bar."""
    claims = [claim for section in sections for claim in section.claims]
    held = sum(claim.holds for claim in claims)
    rows = [[claim.question, bar(claim), number(claim.figure, claim.unit), verdict(claim)] for claim in claims]
    text = f"## What must hold\n\n{held} of {len(claims)} hold.\n\n"
    text += table(["question", "bar", "figure", "holds"], rows)
    return text + (f"\n\nNot measured here: {', '.join(missing)}." if missing else "")


def bar(claim: Claim) -> str:
    """What is asked."""
    return f"at {'most' if claim.at_most else 'least'} {number(claim.bar, claim.unit)}"


def verdict(claim: Claim) -> str:
    """Whether it holds."""
    return "yes" if claim.holds else "**no**"


def number(value: float, unit: str = "") -> str:
    """Three digits."""
    return f"{value:.3g} {unit}".strip()


def part(section: Section, pictures: str) -> str:
    """A benchmark."""
    parts = [f"## {section.title}", section.text]
    parts += [f"![{plot.title}]({pictures}/{picture_name(section, i)})" for i, plot in enumerate(section.plots)]
    parts += [titled(each, alone=len(section.tables) == 1) for each in section.tables]
    threads, command = section.machine["threads"], without_places(section.command)
    parts.append(f"{section.machine['date']}, {threads} thread{'s' * (threads != 1)}: `{command}`")
    return "\n\n".join(parts)


def titled(each: Table, *, alone: bool) -> str:
    """A table below its title."""
    text = table(each.columns, [[str(cell) for cell in row] for row in each.rows])
    return text if alone else f"**{each.title}**\n\n{text}"


def picture_name(section: Section, index: int) -> str:
    """The file of a picture."""
    return f"{section.name}-{index + 1}.svg"


def without_places(command: str) -> str:
    """A command with the last name alone of each absolute path: where the rest lies is the machine's own."""
    return " ".join(Path(word).name if Path(word).is_absolute() else word for word in command.split())
