"""Checkpoints of the Latent Diffusion paper: each kind of condition, first stage and U-Net, there and back."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.cli import main
from tests.catalogue import SCHEDULES, ldm_text_encoder, randomise, tiny_kl, tiny_vq
from tests.interop.test_unet_rules import assert_equal

SMALL = {"model_channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "num_groups": 4, "attention_levels": (1,)}
TOKENS = {"in_channels": 3, "num_heads": 1, "tokens": {"class_token": 6}}

# The U-Net, the autoencoder, and the condition with its encoder
FAMILIES: dict[str, tuple[dict[str, object], Callable[[], nn.Module], dict[str, Callable[[], nn.Module]]]] = {
    "celebahq": ({"in_channels": 3, "head_channels": 4}, tiny_vq, {}),
    "lsun_churches": ({"in_channels": 3, "scale_shift": True, "residual_resampling": True}, tiny_kl, {}),
    "cin256_v2": (TOKENS, tiny_vq, {"class": lambda: dl.ClassEmbedding(4, 6)}),
    "txt2img_large": ({"in_channels": 3, "tokens": {"text": 8}}, tiny_kl, {"caption": ldm_text_encoder}),
    "layout": (
        {"in_channels": 3, "depth": 2, "tokens": {"layout": 8}},
        tiny_vq,
        {"boxes": lambda: ldm_text_encoder(name="layout")},
    ),
    "bsr_sr": ({"in_channels": 6, "out_channels": 3, "attention_levels": ()}, tiny_vq, {}),
    "inpainting_big": (
        {"in_channels": 7, "out_channels": 3, "residual_resampling": True},
        lambda: tiny_vq(middle_attention=False),
        {},
    ),
    "semantic_synthesis": (
        {"in_channels": 6, "out_channels": 3, "attention_levels": ()},
        tiny_vq,
        {"segmentation": lambda: dl.SpatialRescaler(1, 5, 3)},
    ),
}


def system(name: str, seed: int = 0) -> dl.LatentDiffusion:
    """A tiny one with random weights everywhere, and a scale of its own."""
    sizes, autoencoder, encoders = FAMILIES[name]
    schedule = SCHEDULES["scaled_linear"]()
    network = dl.ldm_unet(**{**SMALL, "num_heads": 2, **sizes})
    sampler = dl.DDIMSampler(network, schedule, dl.NoisePredictor(schedule), eval_steps=2, progress_bar=False)
    conditioner = dl.Conditioner({condition: encoder() for condition, encoder in encoders.items()})
    scale = dl.LatentScale(scale=0.5 + seed)
    return randomise(dl.LatentDiffusion(autoencoder(), sampler, conditioner, scale), seed)


def parts(model: dl.LatentDiffusion) -> dict[str, nn.Module | None]:
    encoder = next(iter(model.conditioner.encoders.values()), None)
    return {"unet": model.sampler.model, "autoencoder": model.autoencoder, "condition_encoder": encoder}


def checkpoint(model: dl.LatentDiffusion) -> dict[str, Tensor]:
    return dl.to_compvis_checkpoint(**parts(model), scale_factor=model.scale.scale.item())


def load(model: dl.LatentDiffusion, tensors: dict[str, Tensor]) -> float | None:
    return dl.load_compvis_checkpoint(tensors, **parts(model))


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpoints_of_every_family_come_back(name: str) -> None:
    """With what training leaves in them, into a system of the same sizes."""
    model, again = system(name), system(name, seed=1)
    training = {"betas": torch.zeros(9), "loss.logvar": torch.zeros(()), "model_ema.decay": torch.zeros(())}
    again.scale.scale.fill_(load(again, {**checkpoint(model), **training}))
    assert_equal(again.state_dict(), model.state_dict())


def test_a_system_goes_through_a_file_and_comes_back(tmp_path: Path) -> None:
    """By the command line, which finds its parts and its scale."""
    model = system("txt2img_large")
    dl.save_pretrained(model, tmp_path / "own")
    dl.save_pretrained(system("txt2img_large", seed=1), tmp_path / "like")
    words = (tmp_path / "own", tmp_path / "theirs.safetensors")
    main(["convert", *map(str, words)])
    assert_equal(load_file(words[1]), checkpoint(model))
    main(["convert", str(words[1]), str(tmp_path / "back"), "--like", str(tmp_path / "like")])
    assert_equal(dl.from_pretrained(tmp_path / "back").state_dict(), model.state_dict())


@pytest.mark.parametrize(
    ("name", "names"),
    {
        "cin256_v2": {"embedding.weight": [5, 6]},
        "semantic_synthesis": {"channel_mapper.weight": [3, 5, 1, 1]},
        "txt2img_large": {
            "transformer.token_emb.weight": [9, 8],
            "transformer.pos_emb.emb.weight": [4, 8],
            "transformer.attn_layers.layers.2.0.bias": [8],
            "transformer.attn_layers.layers.2.1.to_out.weight": [8, 6],
            "transformer.attn_layers.layers.3.1.net.0.0.bias": [32],
            "transformer.norm.weight": [8],
        },
    }.items(),
)
def test_condition_encoders_have_the_names_of_the_released_checkpoints(name: str, names: dict[str, list[int]]) -> None:
    written = {key: list(value.shape) for key, value in checkpoint(system(name)).items()}
    assert names.items() <= {key.removeprefix("cond_stage_model."): shape for key, shape in written.items()}.items()
    assert ("first_stage_model.quantize.embedding.weight" in written) == (name != "txt2img_large")


def test_a_table_of_classes_without_one_for_none() -> None:
    """That of cin256 has as many rows as classes: no class becomes zeros, and is left out again."""
    tensors = {"cond_stage_model.embedding.weight": torch.randn(4, 6)}
    encoder = dl.ClassEmbedding(4, 6)
    dl.load_compvis_checkpoint(tensors, condition_encoder=encoder)
    assert torch.equal(encoder.table.weight[:4], tensors["cond_stage_model.embedding.weight"])
    assert not encoder(encoder.null())["class_token"].any()
    assert_equal(dl.to_compvis_checkpoint(condition_encoder=encoder), tensors)
    with pytest.raises(ValueError, match=r"embedding.weight: \[6, 6\] instead of \[5, 6\]"):
        dl.load_compvis_checkpoint(
            {"cond_stage_model.embedding.weight": torch.randn(6, 6)}, condition_encoder=dl.ClassEmbedding(4, 6)
        )


def test_inpainting_has_its_autoencoder_twice() -> None:
    tensors = checkpoint(system("inpainting_big"))
    copy = {
        key.replace("first_stage_model.", "cond_stage_model."): value.clone()
        for key, value in tensors.items()
        if key.startswith("first_stage_model.")
    }
    assert dl.read_compvis_checkpoint(tensors | copy).condition == {}
    copy["cond_stage_model.encoder.conv_in.bias"] += 1
    with pytest.raises(
        ValueError, match=r"differs from that of the images in \['cond_stage_model.encoder.conv_in.bias"
    ):
        dl.read_compvis_checkpoint(tensors | copy)


def test_the_mask_of_latent_diffusion_goes_from_minus_1_to_1() -> None:
    """As its ``scripts/inpaint.py`` gives it: z, the latent of the masked image, and 2 mask - 1."""
    x, image, mask = torch.randn(1, 3, 2, 2), torch.randn(1, 3, 2, 2), torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])
    seen: list[Tensor] = []

    class Network(nn.Module):
        def forward(self, x: Tensor, timestep: Tensor, conditional_inputs: object) -> dl.DiffusionOutput:
            seen.append(x)
            return dl.DiffusionOutput(x[:, :3])

    with torch.device("meta"):
        adapter = dl.ldm_inpainting().sampler.model
    adapter.model = Network()
    adapter(x, torch.zeros(1), {"mask": mask, "masked_image": image})
    signed = torch.tensor([[[[-1.0, 1.0], [1.0, -1.0]]]])
    assert torch.equal(seen[0], torch.cat([x, image, signed], 1))


def test_what_a_checkpoint_is_and_is_not_is_said() -> None:
    text, classes = checkpoint(system("txt2img_large")), checkpoint(system("cin256_v2"))
    with pytest.raises(
        ValueError, match=r"is a LDMTextEncoder, with keys like \['cond_stage_model.*a ClassEmbedding was given"
    ):
        dl.load_compvis_checkpoint(text, condition_encoder=dl.ClassEmbedding(4, 6))
    with pytest.raises(ValueError, match=r"is a ClassEmbedding, with keys like .* and a Linear was given"):
        dl.load_compvis_checkpoint(classes, condition_encoder=nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"of no kind that is known here, with keys like \['cond_stage_model.x'\]"):
        dl.load_compvis_checkpoint({"cond_stage_model.x": torch.zeros(1)}, condition_encoder=dl.ClassEmbedding(4, 6))
    unet = dl.to_diffusers_unet(system("cin256_v2").sampler.model)
    with pytest.raises(ValueError, match=r"has none of \['model.diffusion_model.'.*begin with \['conv_in.bias"):
        dl.load_compvis_checkpoint(unet)
