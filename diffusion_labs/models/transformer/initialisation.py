"""How the parameters of Transformers begin."""

from collections.abc import Iterable

from torch import nn


def initialise_patches(patches: nn.Conv2d) -> None:
    """Uniform weights after Glorot, as of a linear layer from patches to tokens, and no biases."""
    nn.init.xavier_uniform_(patches.weight.flatten(1))
    nn.init.zeros_(patches.bias)  # type: ignore[arg-type]


def initialise_blocks(parts: Iterable[nn.Module]) -> None:
    """Uniform weights after Glorot in the linear layers of attentions and feed-forward networks, and no biases."""
    for part in parts:
        for layer in part.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def initialise_embedding(embedding: nn.Module) -> None:
    """Narrow normal weights in the layers and tables that embed the time and the conditions, and no biases."""
    for layer in embedding.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=0.02)
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
