"""From which checkpoint all processes go on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusion_labs.files import sha256
from diffusion_labs.training.checkpoint import MANIFEST, CheckpointError, load_checkpoint, load_newest
from diffusion_labs.training.world import World


def load_together(folder: Path, world: World) -> dict[str, Any] | None:
    """What is in the newest whole checkpoint that the first process finds; ``None`` if there is no checkpoint.

    The others read that one and no other: a shared disk may list another as the newest, or fail to give it, on some
    machines alone.

    Raises:
        CheckpointError: on all processes, if one of them cannot read it.
    """
    newest, chosen, error = None, None, None
    if world.main:
        try:
            newest = load_newest(folder)
            chosen = None if newest is None else (newest[0], sha256(newest[0] / MANIFEST))
        except (CheckpointError, OSError) as failed:
            error = str(failed)
    chosen, error = world.from_first((chosen, error))
    if not world.main and chosen is not None:
        path, digest = chosen
        try:
            if sha256(path / MANIFEST) != digest:
                raise CheckpointError(f"{path} is another checkpoint here than where the first process has read it")
            newest = path, load_checkpoint(path)
        except (CheckpointError, OSError) as failed:
            error = f"process {world.rank} cannot go on from where the first does: {failed}"
    failures = [failure for failure in replace(world, tensor=1).gather(error) if failure is not None]
    if failures:
        raise CheckpointError(failures[0])
    return None if newest is None else newest[1]
