"""The decoder and the upsamplers of DALL-E 2: the sizes of Table 3, and what they are trained with."""

from collections.abc import Mapping
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.models.adm_unet.blocks import AttentionBlock
from tests.catalogue import randomise


def millions(module: nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def test_the_decoder_has_the_sizes_of_the_paper() -> None:
    """2.10 billion in the trunk, 2.25 with the conditions; with 24 blocks of width 2048 for the text 3.5 in all."""
    with torch.device("meta"):
        decoder = dl.dalle2_decoder()
        x, t = torch.zeros(2, 3, 64, 64), torch.zeros(2, dtype=torch.long)
        conditions = {"image_embedding": torch.zeros(2, 1024), "text": torch.zeros(2, 256, 2048)}
        output = decoder.model.train()(x, t, conditions)
    network = decoder.model.model
    conditional = ("context_kv", "embedding.vectors", "embedding.vector_tokens", "embedding.tokens")
    trunk = sum(p.numel() for name, p in network.named_parameters() if not any(part in name for part in conditional))
    variance = 3 * (9 * 512 + 1)
    assert round((trunk - variance) / 1e6, 2) == 2097.57
    # 22 attention blocks, of which the widths are 7 * 1024 + 7 * 1536 + 8 * 2048
    context = 2 * (2048 + 1) * (7 * 1024 + 7 * 1536 + 8 * 2048)
    embeddings = (1024 + 1) * 2048 + (1024 + 1) * 4 * 2048 + (2048 + 1) * 2048
    assert millions(network) == (trunk + context + embeddings) / 1e6
    assert round(millions(network) / 1e3 + 24 * 12 * 2048**2 / 1e9, 1) == 3.5

    assert output.prediction.shape == output.variance_value.shape == x.shape
    assert decoder.eval_steps == len(decoder.times()) == 250
    alpha = decoder.schedule.alpha(torch.tensor([0, 500]))
    cosine = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000)).alpha(torch.tensor([0, 500]))
    assert torch.equal(alpha, cosine)


UPSAMPLERS = {  # builder, millions, betas, steps, size
    "256": (dl.dalle2_upsampler_256, 729.70, dl.cosine_beta_schedule, 27, 256),
    "1024": (dl.dalle2_upsampler_1024, 282.06, dl.linear_beta_schedule, 15, 1024),
}


@pytest.mark.parametrize("name", UPSAMPLERS)
def test_the_upsamplers_have_the_sizes_of_the_paper_and_no_attention(name: str) -> None:
    """The paper's 700M and 300M; with attention in the middle, which it says there is not, 736.26 and 284.42."""
    build, count, betas, steps, size = UPSAMPLERS[name]
    with torch.device("meta"):
        upsampler = build()
        x, t = torch.zeros(1, 3, size, size), torch.zeros(1, dtype=torch.long)
        output = upsampler.train()(x, t, {"low_resolution": torch.zeros(1, 3, size // 4, size // 4)})
    assert output.prediction.shape == x.shape
    assert round(millions(upsampler), 2) == count
    assert not [m for m in upsampler.modules() if isinstance(m, AttentionBlock)]
    assert upsampler.eval_steps == len(upsampler.times()) == steps
    assert upsampler.eta == 0
    expected = dl.DiscreteGaussianSchedule(betas(1000))
    assert torch.equal(upsampler.schedule.alpha(torch.tensor([5])), expected.alpha(torch.tensor([5])))


class Spy(dl.ConditionalModule):
    """Remembers the conditions of its last call."""

    condition_shapes: ClassVar = {"image_embedding": (5,), "text": (None, 3), "text_embedding": (5,)}

    def __init__(self) -> None:
        super().__init__(["image_embedding", "text", "text_mask", "text_embedding"])
        self.seen: Mapping[str, Tensor] = {}

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs: Mapping[str, Tensor]) -> dl.DiffusionOutput:
        self.seen = self.check_conditions(conditional_inputs, x)
        return dl.DiffusionOutput(x)


def test_embedding_and_caption_are_dropped_independently() -> None:
    b, spy = 20000, Spy()
    decoder = dl.dalle2_decoder(spy).train()
    given = {name: torch.ones(b, 5) for name in ("image_embedding", "text_embedding")}
    given |= {"text": torch.ones(b, 4, 3), "text_mask": torch.tensor([[True, True, True, False]]).expand(b, -1)}
    decoder(torch.zeros(b, 1, 1, 1), torch.zeros(b, dtype=torch.long), given)
    no_embedding = (spy.seen["image_embedding"] == 0).all(1)
    no_text = (spy.seen["text"] == 0).flatten(1).all(1)
    for dropped, share in ((no_embedding, 0.1), (no_text, 0.5), (no_embedding & no_text, 0.05)):
        assert abs(dropped.double().mean() - share) < 5 * (share * (1 - share) / b) ** 0.5
    # The vector of the text goes with it, and one zero token takes the place of all
    assert torch.equal((spy.seen["text_embedding"] == 0).all(1), no_text)
    assert torch.equal(spy.seen["text_mask"].sum(1), torch.where(no_text, 1, 3))


def test_guidance_is_away_from_neither_embedding_nor_caption() -> None:
    """``u + s (c - u)`` of two calls of the network itself."""
    sizes = {"model_channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "attention_levels": (1,)}
    conditions = {"vectors": {"image_embedding": 6}, "tokens": {"text": 5}, "num_groups": 4, "head_channels": 8}
    network = randomise(dl.adm_unet(**(dl.DALLE2_UNETS["decoder"] | sizes | conditions)))
    decoder = dl.dalle2_decoder(network, guidance_scale=2.5).eval()
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 700])
    given = {"image_embedding": torch.randn(2, 6), "text": torch.randn(2, 3, 5)}
    given["text_mask"] = torch.tensor([[True, True, False], [True, True, True]])
    c, u = network(x, t, given), network(x, t)
    guided = decoder.model(x, t, given)
    torch.testing.assert_close(guided.prediction, u.prediction + 2.5 * (c.prediction - u.prediction))
    torch.testing.assert_close(guided.variance_value, c.variance_value)


def test_the_hybrid_loss_trains_every_parameter_of_the_decoder() -> None:
    sizes = {"model_channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "attention_levels": (1,)}
    conditions = {"vectors": {"image_embedding": 6}, "tokens": {"text": 5}, "num_groups": 4, "head_channels": 8}
    decoder = dl.dalle2_decoder(randomise(dl.adm_unet(**(dl.DALLE2_UNETS["decoder"] | sizes | conditions)))).train()
    transform = nn.Sequential(dl.RandomDiffusionSteps(decoder.schedule), dl.ComputeTarget(decoder.predictor))
    loss = dl.DiffusionHybridLoss(dl.SimpleLoss(), dl.VLBLoss(decoder.schedule))
    objective = dl.Objective(transform, decoder, loss, conditions=["image_embedding", "text"])
    objective(
        {"x": torch.rand(8, 3, 4, 4), "image_embedding": torch.randn(8, 6), "text": torch.randn(8, 2, 5)}
    ).backward()
    still = [name for name, p in decoder.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert not still
