"""A class as a conditional input."""

import torch
from torch import Tensor, nn

from diffusion_labs.conditioning import ConditionalInputs


class ClassCondition(nn.Module):
    """Looks up a class in a table of n + 1 rows, of which row n is the null class: an absent condition.

    Args:
        name: key of the conditional input, integers ``[b]``.
        num_classes: the number of classes n.
        embed_dim: width of the output.
    """

    def __init__(self, name: str, num_classes: int, embed_dim: int) -> None:
        super().__init__()
        self.name = name
        self.num_classes = num_classes
        self.table = nn.Embedding(num_classes + 1, embed_dim)

    def forward(self, conditions: ConditionalInputs, timestep: Tensor) -> Tensor:
        index = conditions.get(self.name)
        if index is None:
            index = torch.full(timestep.shape, self.num_classes, device=timestep.device)
        elif index.dtype.is_floating_point or index.dtype.is_complex or index.dtype == torch.bool:
            raise ValueError(f"{self.name!r} has dtype {index.dtype}, but class indices must be integers; use .long()")
        elif index.shape != timestep.shape:
            raise ValueError(
                f"{self.name!r} has shape {list(index.shape)}, but must be {list(timestep.shape)}: one class "
                "index for each sample"
            )
        try:
            embedding: Tensor = self.table(index.long())
        except IndexError as error:  # on a CPU: to look at the indices before would hold up a GPU
            raise ValueError(
                f"{self.name!r} is {index.tolist()}, but the classes are 0 to {self.num_classes - 1}, and "
                f"{self.num_classes} for none"
            ) from error
        return embedding
