"""``diffusion-labs demo``: see ``diffusion_labs.recipes.demo``."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import tyro

from diffusion_labs.cli import UserError
from diffusion_labs.recipes.demo import demo
from diffusion_labs.training import CheckpointError, Stopped


def run(words: Sequence[str]) -> None:
    """Run the command with these arguments."""
    tyro.cli(carry_out, args=words, prog="diffusion-labs demo")


def carry_out(run_dir: Path = Path("runs/demo")) -> None:
    """Train on 1,500 handwritten digits, draw some, and say how many are recognised: about two minutes.

    Args:
        run_dir: folder for the pictures, the report, the log and the checkpoints.
    """
    torch.set_num_threads(1)  # for tensors this small a second thread gains little, and on a busy machine it costs
    try:
        demo(run_dir)
    except Stopped as stop:
        print(f"\n{stop}: run the same command again", file=sys.stderr)
        sys.exit(128 + stop.signal)
    except (CheckpointError, OSError, FloatingPointError) as error:
        raise UserError(str(error)) from error
