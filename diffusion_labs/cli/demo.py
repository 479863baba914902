"""``diffusion-labs demo``: see ``diffusion_labs.recipes.demo``."""

import sys
from collections.abc import Sequence
from pathlib import Path

from diffusion_labs.cli import UserError, fail
from diffusion_labs.cli.parsing import parse


def run(words: Sequence[str]) -> None:
    """Run the command with these arguments."""
    parse(carry_out, words, "diffusion-labs demo")


def carry_out(run_dir: Path = Path("runs/demo")) -> None:
    """Train on 1,500 handwritten digits, draw some, and say how many are recognised: about two minutes.

    Args:
        run_dir: folder for the pictures, the report, the log and the checkpoints.
    """
    import torch

    from diffusion_labs.cli.mistakes import MISTAKES
    from diffusion_labs.recipes.demo import demo
    from diffusion_labs.training import Stopped

    torch.set_num_threads(1)  # for tensors this small a second thread gains little, and on a busy machine it costs
    try:
        demo(run_dir)
    except Stopped as stop:
        print(file=sys.stderr)  # below the bar
        fail(f"{str(stop).partition(';')[0]}; go on with: diffusion-labs demo --run-dir {run_dir}", 128 + stop.signal)
    except (*MISTAKES, FloatingPointError) as error:
        raise UserError(str(error)) from error
