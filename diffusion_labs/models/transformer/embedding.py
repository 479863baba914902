"""From the time and classes to one embedding vector."""

from collections.abc import Mapping

from torch import Tensor, nn

from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.layers import ClassCondition, TimeEmbedding


class TimeClassEmbedding(nn.Module):
    """``time(t) + sum_i table_i[class_i]``; an absent class is the null class.

    Args:
        time: the embedding of the time.
        classes: the number of classes by name, see ``ClassCondition``.

    Attributes:
        null_conditions: the index of the null class, by name.
    """

    def __init__(self, time: TimeEmbedding, classes: Mapping[str, int]) -> None:
        super().__init__()
        for name in classes:
            if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
                raise ValueError(
                    f"the condition name {name!r} must be a Python identifier and no attribute of "
                    "nn.ModuleDict; rename it"
                )
        self.null_conditions = dict(classes)
        self.time = time
        self.classes = nn.ModuleDict(
            {name: ClassCondition(name, number, time.embed_dim) for name, number in classes.items()}
        )

    def forward(self, timestep: Tensor, conditions: ConditionalInputs) -> Tensor:
        """Embed the times ``[b]`` and any subset of the classes to ``[b, embed_dim]``."""
        embedding: Tensor = self.time(timestep)
        for condition in self.classes.values():
            embedding = embedding + condition(conditions, timestep)
        return embedding
