"""Autoencoders in the checkpoints of Latent Diffusion: diffusers' own conversion of them computes the same."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import diffusion_labs as dl
from diffusion_labs.interop.diffusers_autoencoder import to_diffusers_autoencoder_config
from tests.catalogue import randomise, tiny_kl, tiny_vq

MODELS = {
    "kl": lambda: tiny_kl(in_channels=3, channels=(4, 8, 12), attention_levels=(1, 2)),
    "kl_two_blocks": lambda: tiny_kl(num_res_blocks=2, attention_levels=(0,), latent_channels=5),
    "vq": lambda: tiny_vq(attention_levels=(1,)),
    "vq_noattn": lambda: tiny_vq(middle_attention=False, channels=(8, 8, 8)),
    "kl_embed_dim": lambda: tiny_kl(encoder_channels=7),
}


@pytest.mark.parametrize("name", ["kl", "kl_two_blocks", "vq", "vq_noattn"])
def test_diffusers_conversion_of_our_checkpoint_computes_the_same(name: str) -> None:
    diffusers = pytest.importorskip("diffusers", reason="its conversion is the independent implementation")
    from diffusers.loaders import single_file_utils as conversion

    model = MODELS[name]().double()
    config = to_diffusers_autoencoder_config(model)
    other = getattr(diffusers, config.pop("_class_name"))(**config).double()
    checkpoint = {f"first_stage_model.{key}": value for key, value in dl.to_compvis_autoencoder(model).items()}
    converted = conversion.convert_ldm_vae_checkpoint(checkpoint, config)
    if name.startswith("vq"):  # which it leaves out
        converted["quantize.embedding.weight"] = checkpoint["first_stage_model.quantize.embedding.weight"]
    for key in [key for key in converted if ".attn." in key]:  # it knows attention in the middle alone
        del converted[key]
    bare = dl.to_compvis_autoencoder(model)
    for place in {key.rpartition(".attn.")[0] + key.split(".attn.")[1][0] for key in bare if ".attn." in key}:
        start, i = place[:-1], place[-1]
        side, way, level = start.split(".")
        there = level if side == "encoder" else len(config["block_out_channels"]) - 1 - int(level)
        mapping = {"old": f"{start}.attn.{i}", "new": f"{side}.{way}_blocks.{there}.attentions.{i}"}
        keys = [key for key in bare if key.startswith(mapping["old"])]
        conversion.update_vae_attentions_ldm_to_diffusers(keys, converted, bare, mapping)
    other.load_state_dict(converted, strict=True)

    x = torch.randn(1, model.in_channels, 8, 12, dtype=torch.float64)
    with torch.no_grad():
        z = model.encode(x)
        z = z.mean if isinstance(model, dl.AutoencoderKL) else z
        encoded = other.encode(x)
        expected = encoded.latent_dist.mean if isinstance(model, dl.AutoencoderKL) else encoded.latents
        torch.testing.assert_close(z, expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(model.decode(z), other.decode(z).sample, rtol=0, atol=1e-10)


def test_the_names_are_those_of_the_released_checkpoints() -> None:
    """A sample of Stable Diffusion's: ``up.0`` is the level that runs last, with the fewest channels."""
    with torch.device("meta"):
        names = {key: list(value.shape) for key, value in dl.to_compvis_autoencoder(dl.kl_f8()).items()}
    assert len(names) == 248
    for key, shape in {
        "encoder.conv_in.weight": [128, 3, 3, 3],
        "encoder.down.1.block.0.nin_shortcut.weight": [256, 128, 1, 1],
        "encoder.down.2.downsample.conv.bias": [512],
        "encoder.mid.attn_1.q.weight": [512, 512, 1, 1],
        "encoder.mid.block_2.norm2.bias": [512],
        "encoder.norm_out.weight": [512],
        "encoder.conv_out.weight": [8, 512, 3, 3],
        "decoder.conv_in.weight": [512, 4, 3, 3],
        "decoder.up.0.block.0.nin_shortcut.weight": [128, 256, 1, 1],
        "decoder.up.3.upsample.conv.weight": [512, 512, 3, 3],
        "decoder.up.1.upsample.conv.weight": [256, 256, 3, 3],
        "decoder.norm_out.weight": [128],
        "quant_conv.weight": [8, 8, 1, 1],
        "post_quant_conv.bias": [4],
    }.items():
        assert names[key] == shape


def whole_model(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint of a diffusion model around it."""
    inside = {f"first_stage_model.{key}": value for key, value in weights.items()}
    others = ("model.diffusion_model.out.0.weight", "cond_stage_model.x", "betas", "first_stage_model.loss.logvar")
    return {**inside, **{key: torch.zeros(1) for key in others}}


def alone(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint of the autoencoder's own training."""
    others = ("loss.discriminator.main.0.weight", "loss.logvar", "model_ema.decay")
    return {**weights, **{key: torch.zeros(1) for key in others}}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("surrounded", "file"), [(whole_model, "model.ckpt"), (alone, "model.safetensors")])
def test_checkpoints_there_and_back_are_the_same_bits(name: str, surrounded, file: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    weights = surrounded(dl.to_compvis_autoencoder(model))
    if file.endswith("ckpt"):
        torch.save({"state_dict": weights, "global_step": 7}, tmp_path / file)
    else:
        save_file(weights, tmp_path / file)
    other = randomise(MODELS[name](), seed=1)
    assert dl.load_compvis_autoencoder(other, tmp_path / file) == ([], [])
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
    assert dl.to_compvis_autoencoder(other).keys() == dl.to_compvis_autoencoder(model).keys()


def test_what_does_not_fit_is_named() -> None:
    weights = dl.to_compvis_autoencoder(tiny_kl())
    moved = {**weights, "decoder.up.2.block.0.norm1.weight": weights.pop("decoder.up.0.block.0.norm1.weight")}
    with pytest.raises(
        ValueError, match=r"1 missing: \['decoder.up.0.block.0.norm1.weight'\]; 1 unexpected: \['decoder"
    ):
        dl.load_compvis_autoencoder(tiny_kl(), {k: v for k, v in moved.items() if k in weights or "up.2" in k})
    with pytest.raises(ValueError, match=r"1 unexpected: \['quantize\.embedding\.weight'\]"):
        dl.load_compvis_autoencoder(
            tiny_kl(), {**dl.to_compvis_autoencoder(tiny_kl()), "quantize.embedding.weight": torch.zeros(2, 3)}
        )
