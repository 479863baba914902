"""The stage in which a trained encoder writes a data set to disk."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffusion_labs.data import MapDataset, encode_dataset
from diffusion_labs.data.batches import collect
from diffusion_labs.files import tensors_sha256
from diffusion_labs.recipes.kinds import described
from diffusion_labs.recipes.stages import Before, Finished, Rehearsal, Stage
from diffusion_labs.training import Tracker, TrainOptions, find_device
from diffusion_labs.training.log import progress_bar
from diffusion_labs.training.world import current_world, local_device
from diffusion_labs.transforms import NormalizeImages


class Encoded:
    """A data set of which each batch is encoded when it is asked for."""

    def __init__(self, dataset: MapDataset, encode: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.dataset = dataset
        self.encode = encode

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        return self.encode(collect(self.dataset, indices))


def encoding_stage(
    name: str,
    dataset: MapDataset,
    sizes: Any,
    *,
    encoder: str,
    trained: Callable[[Before], nn.Module],
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
        trained: from what the stages before have left to the trained encoder, in eval mode.
        encode: ``encode(encoder, batch, device)``, of images in [-1, 1]: what is stored.
        batch_size: images encoded at once.
    """

    def carry_out(run_dir: Path, options: TrainOptions, trackers: Sequence[Tracker]) -> None:
        world = current_world()
        model, device = trained(Finished(run_dir)), find_device(local_device(options.device))
        encoded = encoding(model.to(device), device)
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

    def encoding(model: nn.Module, device: torch.device) -> Callable[[dict[str, Any]], dict[str, Any]]:
        normalize = NormalizeImages()

        @torch.no_grad()
        def encoded(batch: dict[str, Any]) -> dict[str, Any]:
            return encode(model, normalize(batch), device)

        return encoded

    def rehearse(rehearsal: Rehearsal) -> None:
        rehearsal.datasets[name] = Encoded(dataset, encoding(trained(rehearsal).to("meta"), torch.device("meta")))

    return Stage(name, carry_out, rehearse)
