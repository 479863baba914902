"""A layer that is divided by its units is the sum of its parts."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from diffusion_labs.layers import (
    Context,
    FeedForward,
    GatedFeedForward,
    MultiHeadAttention,
    RMSNorm,
    SelfAttention,
    split_heads_interleaved,
    split_heads_stacked,
)
from diffusion_labs.layers.transformer import HeadProjection
from diffusion_labs.models.adm_unet.blocks import AttentionBlock, ContextAttentionBlock
from diffusion_labs.training.divided_layer import Cut
from tests.catalogue import NETWORKS, prior_network, randomise

DIM, HEADS, SIZE = 12, 6, 3
TOKENS, CONTEXT, IMAGE = torch.randn(2, 5, DIM), torch.randn(2, 4, 7), torch.randn(2, DIM, 3, 3)
MASK, IDENTITY = torch.arange(4) <= torch.tensor([[1], [3]]), torch.tensor([True, False])
NO_TIME = torch.zeros(2, 1)  # not read by attention
EMBEDDED = Context(CONTEXT, MASK, IDENTITY[:, None])

LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Tensor]]] = {
    "self": (lambda: SelfAttention(DIM, HEADS, qk_norm=RMSNorm), lambda layer: layer(TOKENS, IDENTITY)),
    "cross": (
        lambda: MultiHeadAttention(DIM, HEADS, context_dim=7, head_dim=5, bias=True),
        lambda layer: layer(TOKENS, CONTEXT, MASK),
    ),
    "feed_forward": (lambda: FeedForward(DIM), lambda layer: layer(TOKENS)),
    "gated": (lambda: GatedFeedForward(DIM, mult=2.5), lambda layer: layer(TOKENS)),
    **{
        order.__name__: (
            lambda order=order: AttentionBlock(DIM, HEADS, split_heads=order, num_groups=4),
            lambda layer: layer(IMAGE, NO_TIME, EMBEDDED) - IMAGE,
        )
        for order in (split_heads_interleaved, split_heads_stacked)
    },
    **{
        f"{order.__name__}_of_context": (
            lambda order=order: ContextAttentionBlock(DIM, HEADS, context_dim=7, split_heads=order, num_groups=4),
            lambda layer: layer(IMAGE, NO_TIME, EMBEDDED) - IMAGE,
        )
        for order in (split_heads_interleaved, split_heads_stacked)
    },
}


def part_of(layer: nn.Module, rank: int) -> nn.Module:
    """What one of several processes has of a layer; the first has the bias of the sum."""
    part, partition = copy.deepcopy(layer), layer.partition()
    assert partition.units % SIZE == 0
    for dim, modules in ((0, partition.enter), (1, partition.leave)):
        for name, unit in modules.items():
            for parameter in part.get_submodule(name).parameters():
                if parameter.ndim > dim:
                    parameter.data = Cut(dim, unit * SIZE // partition.units).part(parameter.data, rank)
                elif rank > 0:
                    parameter.data = torch.zeros_like(parameter)
    for name in partition.counts:
        setattr(part, name, getattr(part, name) // SIZE)
    return part


@pytest.mark.parametrize("name", LAYERS)
def test_the_parts_of_a_layer_add_up_to_it(name: str) -> None:
    make, call = LAYERS[name]
    layer = randomise(make())
    parts = [part_of(layer, rank) for rank in range(SIZE)]
    torch.testing.assert_close(sum(call(part) for part in parts), call(layer), rtol=1e-5, atol=1e-5)
    largest = max(sum(value.numel() for value in part.parameters()) for part in parts)
    assert largest < 0.6 * sum(value.numel() for value in layer.parameters())


def test_heads_of_joint_attention_are_those_of_all_parts() -> None:
    layer = randomise(HeadProjection(DIM, HEADS, qk_norm=RMSNorm))
    parts = [part_of(layer, rank).heads(TOKENS) for rank in range(SIZE)]
    for whole, own in zip(layer.heads(TOKENS), zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(own, dim=1), whole)


@pytest.mark.parametrize("name", [*sorted(NETWORKS.keys() - {"ideal"}), "prior"])
def test_every_layer_with_heads_can_be_divided(name: str) -> None:
    network = prior_network() if name == "prior" else NETWORKS[name]()
    layers = [module for module in network.modules() if hasattr(module, "num_heads")]
    assert layers
    assert all(layer.partition().units == layer.num_heads for layer in layers)


def test_parts_that_are_cut_are_joined_in_the_order_of_the_whole() -> None:
    whole, owner = torch.randn(4, 6), torch.tensor([1, 0, 2, 2, 0, 1])
    cut = Cut(1, owner)
    parts = [cut.part(whole, rank) for rank in range(3)]
    assert torch.equal(parts[1], whole[:, [0, 5]])
    assert torch.equal(cut.join(parts), whole)
