"""The layouts in which the weights of LPIPS are published, as files made here."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import diffusion_labs as dl

CONVOLUTIONS = {0: 1, 2: 1, 5: 2, 7: 2, 10: 3, 12: 3, 14: 3, 17: 4, 19: 4, 21: 4, 24: 5, 26: 5, 28: 5}  # layer: slice
WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


def published() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """VGG16 by torchvision's names, and the heads by those of ``lpips`` version 0.1."""
    vgg, before = {"classifier.0.weight": torch.zeros(2, 2), "classifier.6.bias": torch.zeros(2)}, 3
    for layer, width in zip(CONVOLUTIONS, WIDTHS, strict=True):
        vgg[f"features.{layer}.weight"] = torch.randn(width, before, 3, 3) / (9 * before) ** 0.5
        vgg[f"features.{layer}.bias"] = torch.randn(width) / 10
        before = width
    heads = {f"lin{i}.model.1.weight": torch.rand(1, WIDTHS[j], 1, 1) for i, j in enumerate((0, 2, 4, 7, 10))}
    return vgg, heads


def one_file(vgg: dict[str, Tensor], heads: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The ``state_dict`` of taming-transformers' module, or of the package, which has each head twice."""
    features = {
        f"net.slice{part}.{layer}.{kind}": vgg[f"features.{layer}.{kind}"]
        for layer, part in CONVOLUTIONS.items()
        for kind in ("weight", "bias")
    }
    scaling = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1), "scaling_layer.scale": torch.ones(1, 3, 1, 1)}
    twice = {key.replace("lin", "lins.", 1): value.clone() for key, value in heads.items()}
    return {prefix + key: value for key, value in {**features, **scaling, **heads, **twice}.items()}


def test_every_layout_gives_the_same_distance(tmp_path: Path) -> None:
    vgg, heads = published()
    torch.save(vgg, tmp_path / "vgg16.pth")
    torch.save(heads, tmp_path / "vgg.pth")
    save_file(one_file(vgg, heads), tmp_path / "lpips.safetensors")
    inside = one_file(vgg, heads, "first_stage_model.loss.perceptual_loss.")
    checkpoint = {**inside, "first_stage_model.loss.logvar": torch.zeros(()), "model.x.weight": torch.zeros(1)}
    torch.save({"state_dict": checkpoint}, tmp_path / "model.ckpt")
    without_dropout = {key.replace("model.1", "model.0"): value for key, value in heads.items()}

    x, y = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    expected = dl.load_lpips(tmp_path / "vgg16.pth", tmp_path / "vgg.pth")
    assert torch.equal(expected.stages[1][3].weight, vgg["features.7.weight"])
    assert torch.equal(expected.heads[3], heads["lin3.model.1.weight"].flatten())
    for weights in ([tmp_path / "lpips.safetensors"], [str(tmp_path / "model.ckpt")], [vgg, without_dropout]):
        assert torch.equal(dl.load_lpips(*weights)(x, y), expected(x, y))


def test_they_are_written_by_the_names_of_the_package() -> None:
    vgg, heads = published()
    written = dl.to_lpips(dl.load_lpips(vgg, heads))
    expected = {key: value for key, value in one_file(vgg, heads).items() if not key.startswith(("scaling", "lins"))}
    assert set(written) == set(expected)
    assert all(torch.equal(written[key], value) for key, value in expected.items())


def test_what_is_missing_or_unexpected_is_named() -> None:
    vgg, heads = published()
    with pytest.raises(ValueError, match=r"5 missing: \['lin0.model.1.weight'"):
        dl.load_lpips(vgg)
    with pytest.raises(ValueError, match=r"1 unexpected: \['features.30.weight'\]"):
        dl.load_lpips({**vgg, "features.30.weight": torch.zeros(1)}, heads)
