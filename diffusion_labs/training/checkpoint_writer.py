"""Checkpoints that are written while training goes on."""

import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from diffusion_labs.training.checkpoint import CheckpointError, snapshot, write_checkpoint


class CheckpointWriter:
    """Copies a state at once, and writes it in a thread, see ``save_checkpoint``; one at a time.

    One that cannot be written is warned of when the next one is saved. On leaving, what is still being written is
    waited for.

    Args:
        folder: where the checkpoints of a run are.
        keep: see ``save_checkpoint``.
        keep_every: see ``save_checkpoint``.
        failures: checkpoints in a row that may fail.
        thread: that of another writer, so that what either saves first is written first; an own one if ``None``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        keep_every: int | None,
        failures: int,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.keep_every = keep_every
        self.failures = failures
        self.failed = 0
        self.thread = thread or ThreadPoolExecutor(1, "checkpoint")
        self.pending: Future[Path] | None = None

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.thread.shutdown()

    def save(self, step: int, state: dict[str, Any], *, keep: bool = True) -> None:
        """Copy a state when the one before is written, and begin to write it; all processes call it, and one keeps it.

        Raises:
            CheckpointError: if too many in a row could not be written.
        """
        self.finish()
        copied = snapshot(state, keep=keep)
        if keep:
            self.pending = self.thread.submit(
                write_checkpoint, self.folder, step, copied, self.keep, keep_every=self.keep_every
            )

    def finish(self, *, needed: bool = False) -> None:
        """Wait until everything is written.

        Raises:
            CheckpointError: if too many in a row could not be written, or this one, if it is needed.
        """
        if self.pending is None:
            return
        pending, self.pending = self.pending, None
        try:
            pending.result()
            self.failed = 0
        except CheckpointError as error:
            self.failed += 1
            if needed or self.failed > self.failures:
                raise
            warnings.warn(f"{error}; training goes on without it", stacklevel=3)
