"""The discriminator of the autoencoders' training."""

from functools import partial

import pytest
import torch
from torch import nn

import diffusion_labs as dl
from diffusion_labs.layers import GroupNorm


def test_it_has_the_size_and_the_receptive_field_of_the_paper() -> None:
    """2.769 million parameters for pix2pix's six channels; with three halvings a logit sees 70 pixels a side."""
    assert sum(value.numel() for value in dl.PatchDiscriminator(6).parameters()) == 2_768_705
    model = dl.PatchDiscriminator(3, channels=2, norm=lambda channels: nn.Identity())
    x = torch.randn(1, 3, 160, 160, requires_grad=True)
    logits = model(x)
    assert logits.shape == (1, 1, 18, 18)
    (gradient,) = torch.autograd.grad(logits[0, 0, 9, 9], x)
    for sides in (gradient[0].abs().sum((0, 1)), gradient[0].abs().sum((0, 2))):
        (seen,) = sides.nonzero(as_tuple=True)
        assert seen.max() - seen.min() + 1 == 70


def test_weights_start_as_in_the_paper() -> None:
    model = dl.PatchDiscriminator(3)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [convolution.bias is None for convolution in convolutions] == [False, True, True, True, False]
    for weights, mean in (([c.weight for c in convolutions], 0.0), ([n.weight for n in norms], 1.0)):
        values = torch.cat([weight.flatten() for weight in weights])
        assert values.mean().item() == pytest.approx(mean, abs=0.003)
        assert values.std().item() == pytest.approx(0.02, rel=0.08)


@pytest.mark.parametrize("grouped", [False, True])
def test_group_norm_keeps_the_images_apart_and_batch_norm_does_not(grouped: bool) -> None:
    norm = {"norm": partial(GroupNorm, num_groups=4)} if grouped else {}
    model = dl.PatchDiscriminator(1, channels=8, num_layers=2, **norm)
    x = torch.randn(4, 1, 16, 16)
    apart = torch.cat([model(x[:2]), model(x[2:])])
    assert torch.allclose(model(x), apart, atol=1e-6) == grouped


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"num_layers \(0\)"):
        dl.PatchDiscriminator(1, num_layers=0)
    with pytest.raises(ValueError, match=r"x has size \[23, 32\], but every side must be at least 24"):
        dl.PatchDiscriminator(1)(torch.zeros(1, 1, 23, 32))
    assert dl.PatchDiscriminator(1)(torch.zeros(1, 1, 24, 24)).shape == (1, 1, 1, 1)
