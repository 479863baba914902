"""What a run writes while it trains."""

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from diffusion_labs.files import whole_file
from diffusion_labs.training.trackers import Tracking

METRICS = "metrics.jsonl"


class Lines:
    """Lines of a file, each of which is written whole. What cannot be written, as on a full disk, is tried again later.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("ab", buffering=0)
        self.end = path.stat().st_size
        self.waiting = b""
        self.failed = False

    def append(self, line: str) -> None:
        """Write a line, and those that could not be written before it."""
        self.waiting += f"{line}\n".encode()
        try:
            if self.failed:
                self.file.truncate(self.end)  # part of a line may be there
            rest = memoryview(self.waiting)
            while rest:
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            if not self.failed:
                warnings.warn(f"{self.path} cannot be written ({error}); training goes on without it", stacklevel=4)
            self.failed = True
            return
        self.end += len(self.waiting)
        self.waiting, self.failed = b"", False

    def close(self) -> None:
        """Leave nothing but whole lines."""
        with suppress(OSError):
            if self.failed:
                self.file.truncate(self.end)
        with suppress(OSError):
            self.file.close()


class RunLog:
    """Scalars to ``metrics.jsonl``, to TensorBoard where it is installed, and to trackers; a progress bar.

    What cannot be written while the run goes on is warned of, and does not end it.

    Args:
        run_dir: the run's folder.
        steps: updates of the whole run.
        start: updates already done; later lines of an interrupted run are removed.
        tracking: by trackers.
    """

    def __init__(self, run_dir: Path, steps: int, start: int, tracking: Tracking) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        path = run_dir / METRICS
        text = _text(path)
        lines = text.splitlines()
        kept = [line for line in lines if _step(line) <= start]
        if kept != lines or not text.endswith("\n"):
            with whole_file(path) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept))
        self.tracking = tracking
        tracking.start(start, [json.loads(line) for line in kept])
        self.lines = Lines(path)
        self.writer: Any = None
        with self._spared():
            self.writer = _tensorboard(run_dir / "tensorboard", start)
        self.progress = progress_bar("train", "step", steps, start)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self.progress.close()
        self.lines.close()
        with self._spared():
            if self.writer is not None:
                self.writer.close()
        self.tracking.finish(complete=error[0] is None)

    def advance(self, step: int) -> None:
        """So many updates are done."""
        with suppress(OSError):  # the bar may go to a file
            self.progress.update(step - self.progress.n)

    def scalars(self, step: int, **values: float) -> None:
        """Write numbers of a step, and show them beside the progress bar."""
        self.lines.append(json.dumps({"step": step, **values}))
        shown = {"loss": f"{values['loss']:.4f}", "images/s": f"{values['images_per_second']:.0f}"}
        self.progress.set_postfix(shown, refresh=False)
        with self._spared():
            if self.writer is not None:
                for name, value in values.items():
                    self.writer.add_scalar(name, value, step)
        self.tracking.scalars(step, values)

    def picture(self, step: int, image: Tensor) -> None:
        """Show a picture, uint8 ``[h, w, 3]``, in TensorBoard and to trackers."""
        with self._spared():
            if self.writer is not None:
                self.writer.add_image("samples", image, step, dataformats="HWC")
        self.tracking.picture(step, image)

    @contextmanager
    def _spared(self) -> Iterator[None]:
        """What is written for TensorBoard, by a thread, whose errors come with a later call."""
        try:
            yield
        except Exception as error:
            self.writer = None
            warnings.warn(
                f"TensorBoard's file cannot be written ({type(error).__name__}: {error}); training goes on without it",
                stacklevel=4,
            )


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
    """The lines of a run's ``metrics.jsonl`` that are whole: all but the last, if it is being written."""
    return [json.loads(line) for line in _text(run_dir / METRICS).splitlines() if _step(line) < float("inf")]


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


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
