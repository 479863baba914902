"""The diffusion prior: its two modes, scales and bounds, re-ranking, and the paper's sizes."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import diffusion_labs as dl
from tests.catalogue import diffusion_prior, texts, tiny_clip

X, T = torch.randn(4, 5), torch.tensor([0, 10, 500, 999])


def encoded(clip: dl.TransformersCLIP, captions: list[str], prefix: str = "") -> dict[str, Tensor]:
    embedding, hidden, mask = clip.encode_text(captions)
    return {f"{prefix}text": hidden, f"{prefix}text_mask": mask, f"{prefix}text_embedding": embedding}


def test_train_mode_is_the_denoiser_and_eval_mode_ends_with_embeddings() -> None:
    clip = tiny_clip()
    prior, conditions = diffusion_prior(clip).train(), encoded(clip, texts())
    assert not clip.training
    assert not any(parameter.requires_grad for parameter in clip.parameters())
    empty = {name: value.expand(4, *value.shape[1:]) for name, value in encoded(clip, [""], "negative_").items()}
    torch.manual_seed(1)
    actual = prior(X, T, {"caption": texts()})
    torch.manual_seed(1)
    expected = prior.sampler(X, T, conditions | empty)
    torch.testing.assert_close(actual.prediction, expected.prediction)
    actual.prediction.sum().backward()
    assert prior.sampler.model.model.embed.weight.grad is not None

    prior.eval()
    seeds = [5, 6, 7, 8]
    z = prior.sampler(X, conditional_inputs=conditions | empty, generator=dl.seeded(seeds))
    expected = F.normalize(z / 2 + 0.1, dim=1)  # of catalogue.diffusion_prior's scale
    torch.testing.assert_close(prior(X, conditional_inputs={"caption": texts()}, generator=dl.seeded(seeds)), expected)
    prior.finish = dl.unchanged
    raw = prior(X, conditional_inputs={"caption": texts()}, generator=dl.seeded(seeds))
    torch.testing.assert_close(raw, z / 2 + 0.1)


class Exact(dl.ConditionalModule):
    """The denoiser of Gaussian embeddings of standard deviation 0.5 around the text's: predicts the clean one."""

    def __init__(self, schedule: dl.Schedule, width: int = 3) -> None:
        super().__init__(["text", "text_mask", "text_embedding"])
        self.schedule = schedule
        self.condition_shapes = {"text": (None, width), "text_embedding": (width,)}

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs: Any = None) -> dl.DiffusionOutput:
        mean, level = conditional_inputs["text_embedding"], self.schedule.at(timestep, x)
        gain = level.alpha * 0.25 / ((0.5 * level.alpha) ** 2 + level.sigma**2)
        return dl.DiffusionOutput((mean + gain * (x - level.alpha * mean)).to(x.dtype))


def exact(scale: float = 1.0, **options: Any) -> dl.DiffusionPrior:
    schedule = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000))
    settings = {"eval_steps": 25, "progress_bar": False, **options}
    sampler = dl.DDIMSampler(Exact(schedule), schedule, dl.TargetPredictor(schedule), **settings)
    return dl.DiffusionPrior(sampler, dl.LatentScale(scale=scale), finish=dl.unchanged).eval()


def test_candidates_are_ranked_by_the_inner_product_with_the_text() -> None:
    prior, k = exact(), 3
    given = {"text_embedding": F.normalize(torch.randn(6, 3), dim=1)}
    seeds = dl.seeded(range(6))
    chosen = prior.sample(given, k, generator=seeds)

    # By hand, one text and one candidate after the other
    for i, seed in enumerate(dl.seeded(range(6))):
        one = given["text_embedding"][[i]]
        noises = [dl.randn((1, 3), [seed]) for _ in range(k)]
        candidates = torch.cat([prior(noise, conditional_inputs={"text_embedding": one}) for noise in noises])
        best = max(candidates, key=lambda z: float(z @ one[0]))
        torch.testing.assert_close(chosen[i], best)
    assert prior.sample(given, generator=torch.Generator().manual_seed(0)).shape == (6, 3)


def test_a_sample_depends_on_its_seed_and_not_on_its_batch() -> None:
    prior = diffusion_prior(tiny_clip()).eval()  # of ancestral steps, which draw noise
    whole = prior.sample({"caption": texts()}, generator=dl.seeded([4, 5, 6, 7]))
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(4))
    for i, seed in enumerate([4, 5, 6, 7]):
        alone = prior.sample({"caption": texts()[i : i + 1]}, generator=dl.seeded([seed]))
        torch.testing.assert_close(alone[0], whole[i])
    again = prior.sample({"caption": texts()}, generator=dl.seeded([4, 5, 6, 7]))
    assert torch.equal(again, whole)
    assert (prior.sample({"caption": texts()}, generator=dl.seeded([5, 5, 6, 7]))[0] - whole[0]).abs().max() > 1e-3


def test_the_best_of_two_is_as_much_closer_to_the_text_as_the_larger_of_two_normal_numbers() -> None:
    """Its mean is 1 / sqrt(pi) standard deviations; that of one is 0."""
    n, text = 4000, torch.tensor([[1.0, 0.0, 0.0]])
    prior = exact(eval_steps=10)
    one, two = (prior.sample({"text_embedding": text.expand(n, 3)}, k)[:, 0] - 1 for k in (1, 2))
    bound = 5 * one.std() / n**0.5
    assert abs(one.mean()) < bound
    assert abs(two.mean() - one.std() / torch.pi**0.5) < bound


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_a_scale_measured_on_embeddings_standardises_each_dimension(shift: float) -> None:
    z = shift + torch.randn(200, 5) * torch.tensor([0.01, 0.1, 1.0, 2.0, 30.0])
    scale = dl.LatentScale.of(z.split(30), per_channel=True)
    x = scale.normalize(z).double()
    torch.testing.assert_close(x.mean(0), torch.zeros(5).double(), rtol=0, atol=1e-3)
    torch.testing.assert_close(x.std(0), torch.ones(5).double(), rtol=1e-3, atol=0)
    torch.testing.assert_close(scale.denormalize(scale.normalize(z)), z)
    one = dl.LatentScale.of([z])
    torch.testing.assert_close(one.scale, 1 / z.std())


def test_bounds_of_the_estimates_are_the_callers() -> None:
    """None by default, and not that of pixels: values of scaled embeddings are larger."""
    assert diffusion_prior().sampler.predictor.clamp is None
    assert diffusion_prior(clamp=dl.StaticClamp(-5, 5)).sampler.predictor.clamp.high == 5
    z = torch.randn(3, 5)
    torch.testing.assert_close(dl.FixedNorm(17.2)(z), 17.2 * z / z.norm(dim=1, keepdim=True))
    with pytest.raises(ValueError, match=r"norm \(0\) must be positive"):
        dl.FixedNorm(0)


def test_what_stands_for_no_text_is_learned_without_clip() -> None:
    prior = diffusion_prior(dropout=1.0).train()
    text = {"text": torch.randn(4, 3, 8), "text_embedding": torch.randn(4, 5)}
    other = {name: value + 1 for name, value in text.items()}
    assert torch.equal(prior(X, T, text).prediction, prior(X, T, other).prediction)
    prior(X, T, text).prediction.sum().backward()
    for name in ("null_text", "null_text_embedding"):
        assert getattr(prior.sampler.model, name).grad.abs().max() > 0


def test_the_embeddings_to_train_on_are_those_of_clip_or_stored_ones() -> None:
    clip, images = tiny_clip(), torch.rand(4, 1, 8, 8) * 2 - 1
    transform = dl.EncodeEmbeddings(clip, dl.LatentScale(scale=3.0), image_field="image").train()
    made = transform({"x": images})
    assert not clip.training
    torch.testing.assert_close(made["x"], 3 * clip.encode_image(images))
    assert made["image"] is images
    stored = dl.EncodeEmbeddings(clip, dl.LatentScale(scale=3.0))({"image_embedding": made["image_embedding"]})
    assert torch.equal(stored["x"], made["x"])


def test_the_captions_of_a_decoder_are_what_clip_says_of_their_tokens() -> None:
    clip, captions = tiny_clip(), ["a cat", "two", ""]
    transform = dl.EncodeCaptions(clip, caption_field="said", text_field="states", mask_field="there").train()
    made = transform({"said": captions})
    assert not clip.training
    _, states, mask = clip.encode_text(captions)
    assert torch.equal(made["states"], states)
    assert torch.equal(made["there"], mask)
    assert not made["states"].requires_grad
    with pytest.raises(KeyError, match="said"):
        transform({"caption": captions})


def test_the_papers_prior_has_its_size() -> None:
    with torch.device("meta"):
        prior = dl.dalle2_prior()
        network = prior.sampler.model.model
        conditions = {"text": torch.zeros(2, 77, 1024), "text_embedding": torch.zeros(2, 1024)}
        output = network(torch.zeros(2, 1024), torch.zeros(2), conditions)
    assert output.prediction.shape == (2, 1024)
    dim, depth, width = 2048, 24, 1024
    block = 12 * dim**2 + 13 * dim  # four matrices of attention and eight of the feed-forward network, biases, norms
    ends = 3 * (width + 1) * dim + 2 * (dim + 1) * dim + 261 * dim + 2 * dim + (dim + 1) * width
    assert sum(parameter.numel() for parameter in network.parameters()) == depth * block + ends
    assert (prior.sampler.eval_steps, prior.scale.scale.item()) == (64, pytest.approx(17.2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": 0}, r"candidates \(0\) must be at least 1"),
        ({"conditional_inputs": {"text": torch.zeros(2, 3, 3)}}, "compared with 'text_embedding'"),
        ({"conditional_inputs": {}}, "have no texts"),
        ({"conditional_inputs": {"captoin": ["a", "b"]}}, r"has \['captoin'\], which are no tensors"),
    ],
)
def test_what_cannot_be_sampled_is_named(change: dict, message: str) -> None:
    arguments = {"conditional_inputs": {"text_embedding": torch.zeros(2, 3)}, **change}
    with pytest.raises(ValueError, match=message):
        exact().sample(**arguments)
    with pytest.raises(ValueError, match="needs eval mode"):
        exact().train().sample(**arguments)


def test_a_network_of_other_conditions_is_named() -> None:
    with pytest.raises(ValueError, match="must take 'text' and 'text_embedding'"):
        dl.dalle2_prior(dl.dit(in_channels=1, size=8, dim=16, depth=1, num_heads=2))
