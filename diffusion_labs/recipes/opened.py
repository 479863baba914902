"""A trained model from wherever it is kept."""

from pathlib import Path
from typing import Any

from diffusion_labs.pretrained import from_pretrained
from diffusion_labs.pretrained.hub import read_about
from diffusion_labs.recipes.kinds import sizes_of
from diffusion_labs.recipes.run import load_run
from diffusion_labs.recipes.stages import RUN_FILE
from diffusion_labs.training import find_device


def open_model(source: str | Path, device: str = "cpu") -> tuple[Any, Any]:
    """The model of a run, or of what ``diffusion-labs convert RUN FOLDER`` wrote; and its sizes.

    Args:
        source: a run's folder, a folder of ours, or one on the hub, "owner/name".
        device: where the model is to be.

    Raises:
        CheckpointError: see ``load_run``.
        FileNotFoundError: see ``from_pretrained``.
        ValueError: likewise; or if a folder does not say what its model draws.
    """
    if (Path(source) / RUN_FILE).is_file():
        return load_run(Path(source), device)
    about = read_about(source)
    if "sizes" not in about:
        raise ValueError(
            f"{source} does not say what its model draws; give the folder of a run, or one that `diffusion-labs "
            "convert RUN FOLDER` wrote"
        )
    return from_pretrained(source).to(find_device(device)), sizes_of(about["sizes"])
