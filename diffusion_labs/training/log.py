"""What a run writes while it trains."""

import json
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_labs.training.trackers import Tracking


class RunLog:
    """Scalars to ``metrics.jsonl``, to TensorBoard where it is installed, and to trackers; a progress bar.

    Args:
        run_dir: the run's folder.
        steps: updates of the whole run.
        start: updates already done; later lines of an interrupted run are removed.
        tracking: by trackers.
    """

    def __init__(self, run_dir: Path, steps: int, start: int, tracking: Tracking) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.path = run_dir / "metrics.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        kept = [line for line in lines if _step(line) <= start]
        self.path.write_text("".join(f"{line}\n" for line in kept))
        self.tracking = tracking
        tracking.start(start, [json.loads(line) for line in kept])
        self.file = self.path.open("a")
        self.writer = _tensorboard(run_dir / "tensorboard", start)
        self.progress = progress_bar("train", "step", steps, start)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.close()
        self.file.close()
        if self.writer is not None:
            self.writer.close()
        self.tracking.finish(complete=error[0] is None)

    def advance(self, step: int) -> None:
        """So many updates are done."""
        self.progress.update(step - self.progress.n)

    def scalars(self, step: int, **values: float) -> None:
        """Write numbers of a step, and show them beside the progress bar."""
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()
        shown = {"loss": f"{values['loss']:.4f}", "images/s": f"{values['images_per_second']:.0f}"}
        self.progress.set_postfix(shown, refresh=False)
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)
        self.tracking.scalars(step, values)

    def picture(self, step: int, image: Tensor) -> None:
        """Show a picture, uint8 ``[h, w, 3]``, in TensorBoard and to trackers."""
        if self.writer is not None:
            self.writer.add_image("samples", image, step, dataformats="HWC")
        self.tracking.picture(step, image)


class SilentLog:
    """What the other processes of a distributed run write: nothing.

    Args:
        run_dir: as of ``RunLog``, as all that follows.
        steps: not read.
        start: not read.
        tracking: not begun.
    """

    def __init__(self, run_dir: Path, steps: int, start: int, tracking: Tracking) -> None:
        pass

    def __enter__(self) -> "SilentLog":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def advance(self, step: int) -> None:
        """Nothing."""

    def scalars(self, step: int, **values: float) -> None:
        """Nothing."""

    def picture(self, step: int, image: Tensor) -> None:
        """Nothing."""


def progress_bar(name: str, unit: str, total: int, start: int = 0, *, disable: bool = False) -> Any:
    """A bar of what a run does, which moves seldom where it is written to a file."""
    from tqdm.auto import tqdm  # not needed to import the library

    return tqdm(
        total=total,
        initial=start,
        disable=disable,
        desc=name,
        unit=unit,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else 10.0,
    )


def read_metrics(run_dir: Path) -> list[dict[str, float]]:
    """The lines of a run's ``metrics.jsonl``."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # the half-written last line of a killed run


def _tensorboard(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=start + 1)
