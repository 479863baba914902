"""Whole checkpoints of Stable Diffusion: every family of keys, both text encoders, files, errors."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.interop.clip_text import load_clip_text, to_clip_text, to_open_clip_text
from tests.catalogue import randomise, tiny_kl
from tests.interop.test_unet_rules import assert_equal, build
from tests.interop.test_weight_files import Hostile

transformers = pytest.importorskip("transformers", reason="has the text encoder")

VOCABULARY, WIDTH, LENGTH, HEADS = 20, 8, 7, 2


def clip_text(layers: int = 2, seed: int = 0, **options: object) -> nn.Module:
    config = transformers.CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        max_position_embeddings=LENGTH,
        bos_token_id=0,
        eos_token_id=VOCABULARY - 1,
        **options,
    )
    return randomise(transformers.CLIPTextModel(config).eval(), seed)


class OpenClipBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(WIDTH, 4 * WIDTH), "c_proj": nn.Linear(4 * WIDTH, WIDTH)})

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp["c_proj"](nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x))))


class OpenClipText(nn.Module):
    """OpenCLIP's text encoder as Stable Diffusion 2 uses it: without the last block. A second writing of it."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.positional_embedding = nn.Parameter(torch.empty(LENGTH, WIDTH))
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(OpenClipBlock() for _ in range(layers))})
        self.ln_final = nn.LayerNorm(WIDTH)
        self.text_projection = nn.Parameter(torch.empty(WIDTH, 5))
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.register_buffer("attn_mask", torch.full((LENGTH, LENGTH), -torch.inf).triu(1))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        for block in self.transformer["resblocks"][:-1]:
            x = block(x, self.attn_mask[: ids.shape[1], : ids.shape[1]])
        return self.ln_final(x)


@torch.no_grad()
def open_clip(layers: int = 3) -> OpenClipText:
    model = OpenClipText(layers)
    for parameter in model.parameters():
        parameter.copy_(0.5 * torch.randn(parameter.shape))
    return model.eval()


def checkpoint(version: int = 1) -> dict[str, Tensor]:
    """All that a file of Stable Diffusion can hold."""
    tensors = dl.to_compvis_checkpoint(unet=build("stable_diffusion_1"), autoencoder=tiny_kl(), version=version)
    average = dl.to_compvis_unet(build("stable_diffusion_1", seed=1), conv_projections=version == 1)
    tensors |= {f"model_ema.{f'diffusion_model.{key}'.replace('.', '')}": value for key, value in average.items()}
    tensors |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(5)}
    tensors |= {"betas": torch.zeros(10), "lvlb_weights": torch.zeros(10), "logvar": torch.zeros(10)}
    tensors |= {"loss.logvar": torch.zeros(()), "scale_factor": torch.tensor(0.5)}
    if version == 1:
        text = to_clip_text(clip_text())
        text["text_model.embeddings.position_ids"] = torch.arange(LENGTH)[None]
        return tensors | {f"cond_stage_model.transformer.{key}": value for key, value in text.items()}
    return tensors | {f"cond_stage_model.model.{key}": value for key, value in open_clip().state_dict().items()}


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("kind", ["tensors", "ckpt", "safetensors"])
def test_the_networks_of_stable_diffusion_1(tmp_path: Path, kind: str, averaged: bool) -> None:
    weights: object = checkpoint()
    if kind == "ckpt":
        torch.save({"state_dict": weights, "global_step": 3}, tmp_path / "model.ckpt")
        weights = tmp_path / "model.ckpt"
    elif kind == "safetensors":
        save_file(weights, tmp_path / "model.safetensors")
        weights = tmp_path / "model.safetensors"
    unet, autoencoder, text_encoder = build("stable_diffusion_1", seed=5), randomise(tiny_kl(), 5), clip_text(seed=5)
    scale = dl.load_compvis_checkpoint(
        weights, unet=unet, autoencoder=autoencoder, condition_encoder=text_encoder, averaged=averaged
    )
    assert scale == 0.5
    assert_equal(unet.state_dict(), build("stable_diffusion_1", seed=int(averaged)).state_dict())
    assert_equal(autoencoder.state_dict(), tiny_kl().state_dict())
    assert_equal(text_encoder.state_dict(), clip_text().state_dict())


def test_the_text_encoder_of_stable_diffusion_2_computes_what_open_clip_does() -> None:
    """Its last block is not used, so the module has one less."""
    torch.manual_seed(3)
    theirs = open_clip(layers=3)
    tensors = {f"cond_stage_model.model.{key}": value for key, value in theirs.state_dict().items()}
    ours = clip_text(layers=2, hidden_act="gelu")
    assert dl.load_compvis_checkpoint(tensors, condition_encoder=ours) is None
    ids = torch.randint(0, VOCABULARY, (4, LENGTH))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).last_hidden_state, theirs(ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 4])
def test_other_numbers_of_layers_do_not_fit(layers: int) -> None:
    with pytest.raises(ValueError, match="not those of this CLIPTextModel"):
        load_clip_text(clip_text(layers), open_clip(layers=3).state_dict())


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_written_is_read(version: int) -> None:
    unet, autoencoder, text_encoder = build("stable_diffusion_1"), tiny_kl(), clip_text()
    written = dl.to_compvis_checkpoint(
        unet=unet, autoencoder=autoencoder, condition_encoder=text_encoder, scale_factor=0.25, version=version
    )
    name = "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.bias"
    fused = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"
    assert (name in written, fused in written) == (version == 1, version == 2)
    again = build("stable_diffusion_1", seed=5), randomise(tiny_kl(), 5), clip_text(seed=5)
    names = ("unet", "autoencoder", "condition_encoder")
    assert dl.load_compvis_checkpoint(written, **dict(zip(names, again, strict=True))) == 0.25
    for left, right in zip(again, (unet, autoencoder, text_encoder), strict=True):
        assert_equal(left.state_dict(), right.state_dict())
    with pytest.raises(ValueError, match=r"version \(3\) must be 1 or 2"):
        dl.to_compvis_checkpoint(unet=unet, version=3)


def test_the_text_encoder_is_found_inside_other_modules_and_without_a_prefix() -> None:
    source, outer = clip_text(), nn.ModuleDict({"model": clip_text(seed=1)})
    assert load_clip_text(outer, to_clip_text(source)) == ([], [])
    assert_equal(outer["model"].state_dict(), source.state_dict())
    again = clip_text(seed=2)
    bare = {key.removeprefix("text_model."): value for key, value in to_clip_text(source).items()}
    assert load_clip_text(again, bare) == ([], [])
    assert_equal(again.state_dict(), source.state_dict())
    assert_equal(to_open_clip_text(outer), to_open_clip_text(source))
    with pytest.raises(ValueError, match=r"Linear has no embeddings.token_embedding.weight, or several"):
        load_clip_text(nn.Linear(2, 2), bare)


def test_what_does_not_fit_is_named() -> None:
    tensors = checkpoint()
    with pytest.raises(ValueError, match=r"has \['control_model.x'\], which belong to none of"):
        dl.load_compvis_checkpoint(tensors | {"control_model.x": torch.zeros(1)})
    for name, module, prefix in (
        ("unet", build("stable_diffusion_1"), "model.diffusion_model."),
        ("autoencoder", tiny_kl(), "first_stage_model."),
        ("condition_encoder", clip_text(), "cond_stage_model."),
    ):
        without = {key: value for key, value in tensors.items() if not key.startswith(prefix)}
        with pytest.raises(ValueError, match=f"so no {name}; leave {name} out"):
            dl.load_compvis_checkpoint(without, **{name: module})
        less = dict(tensors)
        missing = next(key for key in tensors if key.startswith(prefix) and "bias" in key)
        del less[missing]
        with pytest.raises(
            ValueError, match=f"1 missing: .*{missing.removeprefix(prefix).removeprefix('transformer.')}"
        ):
            dl.load_compvis_checkpoint(less, **{name: module})
    averages = {key: value for key, value in tensors.items() if not key.startswith("model_ema.")}
    with pytest.raises(ValueError, match=r"nothing below model_ema\., so no unet"):
        dl.load_compvis_checkpoint(averages, unet=build("stable_diffusion_1"), averaged=True)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_checkpoint_does_not_run(tmp_path: Path, zipped: bool) -> None:
    target, file = tmp_path / "ran", tmp_path / "model.ckpt"
    torch.save({"state_dict": checkpoint(), "callbacks": Hostile(target)}, file, _use_new_zipfile_serialization=zipped)
    unet = build("stable_diffusion_1")
    with pytest.raises(ValueError, match=r"model\.ckpt holds more than weights.*convert it to safetensors"):
        dl.load_compvis_checkpoint(file, unet=unet)
    assert not target.exists()
    assert_equal(unet.state_dict(), build("stable_diffusion_1").state_dict())


def test_the_names_are_those_of_the_released_text_encoders() -> None:
    with torch.device("meta"):
        one = transformers.CLIPTextModel(transformers.CLIPTextConfig(hidden_size=768, num_attention_heads=12))
        written = {key: list(value.shape) for key, value in dl.to_compvis_checkpoint(condition_encoder=one).items()}
    text = "cond_stage_model.transformer.text_model."
    assert written[f"{text}embeddings.position_embedding.weight"] == [77, 768]
    assert written[f"{text}encoder.layers.11.mlp.fc1.weight"][1] == 768
    assert written[f"{text}final_layer_norm.bias"] == [768]
