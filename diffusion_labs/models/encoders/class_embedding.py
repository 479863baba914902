"""A class as a token."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class ClassEmbedding(nn.Module):
    """A class as one token, for cross-attention: row c of a table of n + 1, of which row n is no class.

    The class condition of Latent Diffusion (arXiv 2112.10752, appendix E.1).

    Args:
        num_classes: the number of classes n.
        width: width of the token.
        name: the conditional input of the network.

    Example:
        >>> encoder = ClassEmbedding(10, 32)
        >>> encoder(torch.tensor([3, 5]))["class_token"].shape
        torch.Size([2, 1, 32])
    """

    def __init__(self, num_classes: int, width: int, *, name: str = "class_token") -> None:
        super().__init__()
        self.num_classes = num_classes
        self.width = width
        self.name = name
        self.names = (name,)
        self.table = nn.Embedding(num_classes + 1, width)

    def forward(self, value: Int[Tensor, " b"]) -> dict[str, Float[Tensor, "b 1 d"]]:
        """The tokens of classes."""
        try:
            return {self.names[0]: self.table(value.long())[:, None]}
        except IndexError as error:  # on a CPU, as of ``ClassCondition``
            raise ValueError(
                f"{self.name!r} is {value.tolist()}, but the classes are 0 to {self.num_classes - 1}, and "
                f"{self.num_classes} for none"
            ) from error

    def null(self) -> Int[Tensor, " 1"]:
        """No class, for a batch of one."""
        return torch.full((1,), self.num_classes, device=self.table.weight.device)
