"""Data sets of the same samples, side by side."""

from collections.abc import Sequence
from typing import Any

from diffusion_labs.data.batches import Batch, MapDataset, collect
from diffusion_labs.data.errors import DataError
from diffusion_labs.data.fingerprint import fingerprint, fingerprint_of


class JoinedDataset:
    """Data sets of the same samples, in the same order, as one, with the fields of all.

    Such as images, and what ``encode_dataset`` stored of them.

    Args:
        *datasets: of one length; where two have a field, it is that of the later.

    Raises:
        DataError: without data sets, or if they differ in length.

    Example:
        >>> images, embeddings = [{"x": 1}, {"x": 2}], [{"image_embedding": 3}, {"image_embedding": 4}]
        >>> JoinedDataset(images, embeddings)[1]
        {'x': 2, 'image_embedding': 4}
    """

    def __init__(self, *datasets: MapDataset) -> None:
        lengths = [len(dataset) for dataset in datasets]
        if len(set(lengths)) != 1:
            raise DataError(f"data sets to join must have the same samples, but they have {lengths}")
        self.datasets = datasets

    def fingerprint(self) -> str:
        """Of those of all data sets that have one."""
        return fingerprint(fingerprint_of(dataset) for dataset in self.datasets)

    def __len__(self) -> int:
        return len(self.datasets[0])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: value for dataset in self.datasets for name, value in dataset[index].items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return {name: values for dataset in self.datasets for name, values in collect(dataset, indices).items()}
