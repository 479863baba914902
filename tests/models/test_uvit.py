"""The U-ViT: its formula written a second time, and the paper's sizes."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import diffusion_labs as dl
from tests.catalogue import randomise

TINY = {"in_channels": 2, "size": (4, 6), "dim": 8, "depth": 5, "num_heads": 2}
CONDITIONS = {"classes": {"class": 3}, "vectors": {"pooled_text": 5}, "tokens": {"text": 3}, "num_tokens": 6}

# Millions of parameters, from the paper's tables
PARAMETERS = {
    "CIFAR10 U-ViT-S/2": 44,
    "CelebA64 U-ViT-S/4": 44,
    "ImageNet64 U-ViT-M/4": 131,
    "ImageNet64 U-ViT-L/4": 287,
    "ImageNet256 U-ViT-L/2": 287,
    "ImageNet256 U-ViT-H/2": 501,
    "ImageNet512 U-ViT-L/4": 287,
    "ImageNet512 U-ViT-H/4": 501,
    "MS-COCO U-ViT-S/2": 45,
    "MS-COCO U-ViT-S/2-deep": 58,
}


def test_as_many_parameters_as_in_the_paper() -> None:
    assert PARAMETERS.keys() == dl.UVITS.keys()
    for name, expected in PARAMETERS.items():
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in dl.uvit(**dl.UVITS[name]).parameters())
        assert abs(count / 1e6 - expected) < 1, name


def by_hand(network: nn.Module, x: Tensor, t: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """One sample, patch by patch and head by head, over the valid tokens alone."""
    state, depth = network.state_dict(), len(network.blocks)
    dim, patch = state["patches.weight"].shape[0], state["patches.weight"].shape[2]
    rows, columns = x.shape[1] // patch, x.shape[2] // patch

    def linear(name: str, h: Tensor) -> Tensor:
        return h @ state[f"{name}.weight"].mT + state.get(f"{name}.bias", torch.zeros(1).double())

    def norm(name: str, h: Tensor) -> Tensor:
        centred = h - h.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centred / scale * state[f"{name}.weight"] + state[f"{name}.bias"]

    frequencies = 10_000.0 ** (-torch.arange(dim // 2).double() / (dim // 2))
    sequence, places = [], []
    if "class" in inputs:
        sequence.append(state["sequence.classes.class_.table.weight"][inputs["class"]])
    sequence.append(torch.cat([(t * frequencies).cos(), (t * frequencies).sin()]))
    if "pooled_text" in inputs:
        sequence.append(linear("sequence.vectors.pooled_text.linear", inputs["pooled_text"]))
    places = list(range(len(sequence)))
    if "text" in inputs:
        valid = inputs["text_mask"].nonzero()[:, 0].tolist()
        sequence += [linear("sequence.tokens.text.linear", inputs["text"][i]) for i in valid]
        places += [len(places) + i for i in valid]
    kernel = state["patches.weight"].flatten(1)
    for row in range(rows):
        for column in range(columns):
            pixels = x[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            sequence.append(kernel @ pixels.flatten() + state["patches.bias"])
    all_positions = state["sequence.positions"]
    places += range(len(all_positions) - rows * columns, len(all_positions))
    h = torch.stack(sequence) + all_positions[places]

    outputs: list[Tensor] = []
    for i in range(depth):
        if i > depth // 2:
            h = linear(f"blocks.{i}.merge", torch.cat([h, outputs[depth - 1 - i]], -1))
        q, k, v = (
            linear(f"blocks.{i}.attention.qkv", norm(f"blocks.{i}.norm_attention", h)).view(len(h), 3, 2, -1).unbind(1)
        )
        weights = (torch.einsum("qhd,khd->hqk", q, k) / q.shape[2] ** 0.5).softmax(-1)
        h = h + linear(f"blocks.{i}.attention.out", torch.einsum("hqk,khd->qhd", weights, v).flatten(1))
        between = linear(f"blocks.{i}.feed_forward.linear_in", norm(f"blocks.{i}.norm_feed_forward", h))
        between = between * (1 + torch.erf(between / 2**0.5)) / 2
        h = h + linear(f"blocks.{i}.feed_forward.linear_out", between)
        outputs.append(h)

    values = linear("head.linear", norm("head.norm", h[-rows * columns :])).view(rows, columns, patch, patch, -1)
    image = torch.empty(values.shape[-1], rows * patch, columns * patch).double()
    for row in range(rows * patch):
        for column in range(columns * patch):
            image[:, row, column] = values[row // patch, column // patch, row % patch, column % patch]
    if "head.out.weight" in state:
        image = F.conv2d(image[None], state["head.out.weight"], state["head.out.bias"], padding=1)[0]
    return image


@pytest.mark.parametrize("options", [{"convolution": False}, {**CONDITIONS, "bias": True, "patch_size": 1}])
def test_is_its_formula(options: dict) -> None:
    network = randomise(dl.uvit(**{**TINY, **options})).double()
    x, t = torch.randn(2, 2, 4, 6).double(), torch.tensor([3, 900])
    inputs = {}
    if "tokens" in options:
        mask = torch.tensor([[True, True, False, True], [False, False, True, False]])
        inputs = {"text": torch.randn(2, 4, 3).double(), "text_mask": mask}
        inputs |= {"class": torch.tensor([2, 0]), "pooled_text": torch.randn(2, 5).double()}
    actual = network(x, t, inputs).prediction
    for i in range(2):
        expected = by_hand(network, x[i], t[i], {name: value[i] for name, value in inputs.items()})
        torch.testing.assert_close(actual[i], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 4}, "depth (4) must be odd: as many deep blocks as shallow ones, and a middle one"),
        ({"depth": 0}, "depth (0) must be at least 1"),
        ({"patch_size": 4}, "patch_size (4) must divide size ((4, 6))"),
        ({"num_heads": 3}, "num_heads (3) must divide dim (8)"),
        ({"classes": {"text": 3}, "tokens": {"text": 3}}, "the condition name 'text' is used twice"),
    ],
)
def test_sizes_that_do_not_fit(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dl.uvit(**{**TINY, **change})


def test_inputs_that_do_not_fit() -> None:
    network, x, t = dl.uvit(**TINY, **CONDITIONS), torch.randn(2, 2, 4, 6), torch.tensor([3, 900])
    with pytest.raises(ValueError, match=r"x has shape \[2, 2, 4, 4\], but must be \[2, 2, 4, 6\]"):
        network(x[..., :4], t)
    with pytest.raises(ValueError, match=r"'text' has 7 tokens, but the network has positions for 6; cut them"):
        network(x, t, {"text": torch.randn(2, 7, 3)})
