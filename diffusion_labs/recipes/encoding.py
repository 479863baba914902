"""The stage in which a trained encoder writes a data set to disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffusion_labs.data import MapDataset, encode_dataset
from diffusion_labs.files import tensors_sha256
from diffusion_labs.recipes.kinds import described
from diffusion_labs.recipes.stages import Stage
from diffusion_labs.training import TrainOptions, find_device
from diffusion_labs.training.log import progress_bar
from diffusion_labs.training.world import current_world, local_device
from diffusion_labs.transforms import NormalizeImages


def encoding_stage(
    name: str,
    dataset: MapDataset,
    sizes: Any,
    *,
    encoder: str,
    trained: Callable[[Path], nn.Module],
    encode: Callable[[Any, dict[str, Any], torch.device], dict[str, Any]],
    batch_size: int = 250,
) -> Stage:
    """Encode every image, once, each process some of the shards; see ``encode_dataset``.

    The encoder's weights and sizes say what the shards hold.

    Args:
        name: of the stage and its folder.
        dataset: of the images.
        sizes: of the model, plain data.
        encoder: what the description of the shards calls the encoder.
        trained: from the run's folder to the trained encoder, in eval mode.
        encode: ``encode(encoder, batch, device)``, of images in [-1, 1]: what is stored.
        batch_size: images encoded at once.
    """

    def carry_out(run_dir: Path, options: TrainOptions) -> None:
        world = current_world()
        model, device = trained(run_dir), find_device(local_device(options.device))
        model.to(device)
        normalize = NormalizeImages()

        @torch.no_grad()
        def encoded(batch: dict[str, Any]) -> dict[str, Any]:
            return encode(model, normalize(batch), device)

        description = {"model": described(sizes), encoder: tensors_sha256(model.state_dict())}
        with progress_bar("encode", "image", len(dataset), disable=not world.main) as bar:
            encode_dataset(
                dataset,
                encoded,
                run_dir / name,
                description=description,
                batch_size=batch_size,
                progress=lambda done: bar.update(done - bar.n),
                rank=world.rank,
                world_size=world.size,
                wait=world.wait,
            )
            bar.update(len(dataset) - bar.n)

    return Stage(name, carry_out)
