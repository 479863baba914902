"""``PriorTransformer`` in the layout of diffusers, whose class computes the same."""

import inspect
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.interop.diffusers_prior import NEUTRAL, RULES, SIZES
from diffusion_labs.interop.key_rules import load_foreign
from tests.catalogue import randomise

diffusers = pytest.importorskip("diffusers", reason="PriorTransformer of diffusers is the oracle here")

CONFIGS: dict[str, dict[str, Any]] = {
    "karlo": {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "embedding_dim": 6},
    "all_else": {
        "num_attention_heads": 3,
        "attention_head_dim": 4,
        "num_layers": 1,
        "embedding_dim": 5,
        "num_embeddings": 4,
        "norm_in_type": "layer",
        "embedding_proj_norm_type": "layer",
        "time_embed_dim": 20,
        "embedding_proj_dim": 7,
    },
}


def theirs(name: str) -> nn.Module:
    other = randomise(diffusers.PriorTransformer(**{"num_embeddings": 7, **CONFIGS[name]})).eval()
    with torch.no_grad():
        other.clip_std.abs_().add_(0.1)
    return other


def inputs(other: nn.Module) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    config, n = other.config, other.config.num_embeddings
    conditions = {
        "text": torch.randn(3, n, config.embedding_dim),
        "text_mask": torch.arange(n) < torch.tensor([[1], [3], [n]]),
        "text_embedding": torch.randn(3, config.embedding_proj_dim or config.embedding_dim),
    }
    return torch.randn(3, config.embedding_dim), torch.tensor([0, 321, 999]), conditions


@torch.no_grad()
def call(other: nn.Module, x: Tensor, t: Tensor, conditions: dict[str, Tensor], **options: Any) -> Tensor:
    given = {"proj_embedding": conditions["text_embedding"], "encoder_hidden_states": conditions["text"], **options}
    return other(x, t, **given).predicted_image_embedding


@pytest.mark.parametrize("name", CONFIGS)
def test_folders_of_diffusers_are_read_and_written_back(name: str, tmp_path: Path) -> None:
    other = theirs(name)
    other.save_pretrained(tmp_path / "prior")
    model, scale = dl.load_diffusers_prior(tmp_path)  # in the folder of a pipeline
    model.eval()

    x, t, conditions = inputs(other)
    expected = call(other, x, t, conditions, attention_mask=conditions["text_mask"])
    assert expected.std() > 0.1
    with torch.no_grad():
        assert (model(x, t, conditions).prediction - expected).abs().max() < 1e-5
        for i, n in enumerate((1, 3)):  # shorter texts need no padding here
            one = {"text": conditions["text"][[i], :n], "text_embedding": conditions["text_embedding"][[i]]}
            assert (model(x[[i]], t[[i]], one).prediction - expected[[i]]).abs().max() < 1e-5
    z = other.post_process_latents(x)
    torch.testing.assert_close(scale.denormalize(x), z, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scale.normalize(z), x, rtol=1e-4, atol=1e-5)

    dl.save_diffusers_prior(model, tmp_path / "again", scale=scale)
    back, loading = diffusers.PriorTransformer.from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not any(loading.values())
    assert back.state_dict().keys() == other.state_dict().keys()
    for key, value in other.state_dict().items():
        if key == "clip_std":  # kept as its inverse
            torch.testing.assert_close(back.clip_std, value, rtol=1e-6, atol=0)
        else:
            assert torch.equal(back.state_dict()[key], value), key
    saved = json.loads((tmp_path / "again" / "config.json").read_text())
    assert saved.keys() == {"_class_name", *SIZES, *NEUTRAL}
    assert (call(back.eval(), x, t, conditions, attention_mask=conditions["text_mask"]) - expected).abs().max() < 1e-6


def test_without_a_mask_diffusers_is_not_causal_and_ours_is() -> None:
    other = theirs("karlo")
    model = dl.from_diffusers_prior_config({"_class_name": "PriorTransformer", **other.config})
    load_foreign(model, {k: v for k, v in other.state_dict().items() if not k.startswith("clip_")}, RULES)
    x, t, conditions = inputs(other)
    del conditions["text_mask"]
    ours = model.eval()(x, t, conditions).prediction
    whole = torch.ones(3, 7, dtype=torch.bool)
    assert (ours - call(other, x, t, conditions, attention_mask=whole)).abs().max() < 1e-5
    assert (ours - call(other, x, t, conditions)).abs().max() > 1e-3


@torch.no_grad()
def test_samples_are_those_of_the_loop_of_karlo() -> None:
    """Guided away from the empty prompt, clipped to 5, ancestral: ``UnCLIPPipeline``'s loop, written out."""
    other = theirs("karlo")
    model = dl.from_diffusers_prior_config({"_class_name": "PriorTransformer", **other.config})
    tensors = {key: value for key, value in other.state_dict().items() if not key.startswith("clip_")}
    load_foreign(model, tensors, RULES)
    x, _, conditions = inputs(other)
    empty = {name: value[:1].expand_as(value) + 0.3 for name, value in conditions.items() if name != "text_mask"}
    empty["text_mask"] = (torch.arange(7) < 2).expand(3, 7)

    scheduler = diffusers.UnCLIPScheduler(
        variance_type="fixed_small_log", clip_sample_range=5.0, prediction_type="sample"
    )
    scheduler.betas = scheduler.betas.double()  # in float32, 1 - abar_0 is off by a thousandth of itself
    scheduler.alphas_cumprod = (1 - scheduler.betas).cumprod(0)
    scheduler.alphas = 1 - scheduler.betas
    scheduler.set_timesteps(6)
    both = {name: torch.cat([empty[name], value]) for name, value in conditions.items()}
    z, generator = x, torch.Generator().manual_seed(3)
    times = [*scheduler.timesteps.tolist(), None]
    for t, after in pairwise(times):
        out = call(other, torch.cat([z, z]), torch.tensor(t), both, attention_mask=both["text_mask"])
        u, c = out.chunk(2)
        step = scheduler.step(u + 4.0 * (c - u), t, z, prev_timestep=after, generator=generator)
        z = step.prev_sample

    parts = dl.from_diffusers_config({"_class_name": "UnCLIPScheduler", **scheduler.config})
    guided = dl.CFGuidance(model, {("text", "text_embedding"): 0.1}, guidance_scale=4.0)
    options = {"eval_steps": 6, "grid": parts.spacing, "progress_bar": False}
    sampler = dl.DDPMSampler(guided, parts.schedule, parts.predictor, **options)
    scale = dl.LatentScale(other.clip_mean[0], 1 / other.clip_std[0])
    prior = dl.DiffusionPrior(sampler, scale, finish=dl.unchanged).eval()
    given = {**conditions, **{f"negative_{name}": value for name, value in empty.items()}}
    ours = prior(x, conditional_inputs=given, generator=torch.Generator().manual_seed(3))
    assert z.abs().max() > 1
    assert (ours - other.post_process_latents(z)).abs().max() < 1e-5


def test_a_scale_that_was_never_set_changes_nothing(tmp_path: Path) -> None:
    other = theirs("karlo")
    with torch.no_grad():
        other.clip_mean.zero_(), other.clip_std.zero_()
    other.save_pretrained(tmp_path)
    model, scale = dl.load_diffusers_prior(tmp_path)
    z = torch.randn(2, 6)
    assert torch.equal(scale.normalize(z), z)
    dl.save_diffusers_prior(model.bfloat16(), tmp_path / "half")
    back = diffusers.PriorTransformer.from_pretrained(tmp_path / "half")
    assert torch.equal(back.post_process_latents(z), z)

    with torch.no_grad():
        other.clip_std[0, 1] = 1.0
    other.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="clip_std has values that are zero"):
        dl.load_diffusers_prior(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "DiTTransformer2DModel"}, "_class_name='DiTTransformer2DModel' is not known here"),
        ({"added_emb_type": None}, "added_emb_type=None cannot be represented; it must be one of ['prd']"),
        ({"encoder_hid_proj_type": None}, "encoder_hid_proj_type=None cannot be represented"),
        ({"additional_embeddings": 0}, "additional_embeddings=0 cannot be represented; it must be one of [4]"),
        ({"time_embed_act_fn": "gelu"}, "time_embed_act_fn='gelu' cannot be represented"),
        ({"dropout": 0.1}, "dropout=0.1 cannot be represented"),
        ({"clip_embed_dim": 12}, "clip_embed_dim=12 cannot be represented; it must be embedding_dim=6, or None"),
        ({"norm_in_type": "group"}, "norm_in_type='group' cannot be represented"),
        ({"heads": 3}, "heads=3 is not known; remove it"),
    ],
)
def test_configurations_that_cannot_be_represented(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dl.from_diffusers_prior_config({"_class_name": "PriorTransformer", **CONFIGS["karlo"], **change})


def test_every_key_of_diffusers_is_read_or_refused_by_name() -> None:
    parameters = inspect.signature(diffusers.PriorTransformer.__init__).parameters
    defaults = {key: parameter.default for key, parameter in parameters.items() if key != "self"}
    assert defaults.keys() == SIZES.keys() | NEUTRAL.keys()
    assert {key: defaults[key] for key in SIZES} == SIZES
    assert all(defaults[key] in values for key, values in NEUTRAL.items())


def test_networks_that_diffusers_has_not_are_refused(tmp_path: Path) -> None:
    model = dl.prior_transformer(embed_dim=6, text_dim=8, dim=8, depth=1, num_heads=1)
    with pytest.raises(ValueError, match="one width for the tokens of the text and the embeddings of images"):
        dl.save_diffusers_prior(model, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
