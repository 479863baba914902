"""The text encoder of Latent Diffusion: diffusers' class, its conversion of checkpoints, and both formats back."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.interop.ldm_text import (
    load_diffusers_ldm_text,
    load_ldm_text,
    save_diffusers_ldm_text,
    to_ldm_text,
)
from tests.catalogue import ldm_text_encoder, randomise
from tests.interop.test_unet_rules import assert_equal

bert = pytest.importorskip(
    "diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion", reason="is the oracle here"
)

SIZES = {"depth": 3, "num_heads": 2, "head_dim": 3, "num_tokens": 9, "max_length": 5}


def their_config(encoder: dl.LDMTextEncoder) -> Any:
    return bert.LDMBertConfig(
        vocab_size=encoder.num_tokens,
        max_position_embeddings=encoder.max_length,
        encoder_layers=encoder.depth,
        encoder_ffn_dim=4 * encoder.width,
        encoder_attention_heads=encoder.num_heads,
        head_dim=encoder.head_dim,
        d_model=encoder.width,
    )


def tree(tensors: Mapping[str, Tensor]) -> Any:
    """The modules of CompVis as the conversion sees them: tensors by their paths, and lists where there are numbers."""
    parts = {key.partition(".")[0] for key in tensors}
    if parts == {""}:
        return nn.Parameter(tensors[""])
    below = {
        part: tree({key.partition(".")[2]: value for key, value in tensors.items() if key.partition(".")[0] == part})
        for part in parts
    }
    if all(part.isdecimal() for part in parts):
        return [below.get(str(i)) for i in range(1 + max(map(int, parts)))]
    return SimpleNamespace(**below)


def assert_same_states(ours: dl.LDMTextEncoder, theirs: nn.Module) -> None:
    ids = torch.randint(0, ours.num_tokens, (3, ours.max_length))
    with torch.no_grad():
        expected = theirs.eval()(ids)[0]
        torch.testing.assert_close(ours(ids)["text"], expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.1


def test_what_we_write_for_latent_diffusion_is_what_diffusers_converts_to_the_same_states() -> None:
    conversion = pytest.importorskip("diffusers.pipelines.stable_diffusion.convert_from_ckpt", reason="is the oracle")
    ours = ldm_text_encoder(**SIZES)
    tensors = to_ldm_text(ours)
    logits = {"to_logits.weight": torch.randn(9, 8), "to_logits.bias": torch.randn(9)}
    theirs = conversion.convert_ldm_bert_checkpoint(
        tree({f"transformer.{k}": v for k, v in (tensors | logits).items()}), their_config(ours)
    )
    assert_same_states(ours, theirs)

    again = ldm_text_encoder(1, **SIZES)
    assert load_ldm_text(again, tensors | logits) == ([], [])
    assert_equal(again.state_dict(), ours.state_dict())
    with pytest.raises(ValueError, match=r"1 missing: \['attn_layers.layers.3.1.net.2.bias'\]"):
        load_ldm_text(
            again, {key: value for key, value in tensors.items() if key != "attn_layers.layers.3.1.net.2.bias"}
        )


def test_folders_of_diffusers_are_read_and_written_for_the_same_states(tmp_path: Path) -> None:
    theirs = randomise(bert.LDMBertModel(their_config(ldm_text_encoder(**SIZES))))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_diffusers_ldm_text(tmp_path / "theirs")
    assert (ours.width, ours.tokenizer) == (8, None)
    assert {name: getattr(ours, name) for name in SIZES} == SIZES
    assert_same_states(ours, theirs)

    save_diffusers_ldm_text(ours, tmp_path / "ours")
    assert_same_states(ours, bert.LDMBertModel.from_pretrained(tmp_path / "ours"))
    assert_equal(load_diffusers_ldm_text(tmp_path / "ours").state_dict(), ours.state_dict())
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    for key, value in (("activation_function", "relu"), ("encoder_ffn_dim", 31)):
        (tmp_path / "ours" / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(ValueError, match=f"{key}={value!r}, but an LDMTextEncoder has"):
            load_diffusers_ldm_text(tmp_path / "ours")
    (tmp_path / "theirs" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="give the folder of a LDMBertModel"):
        load_diffusers_ldm_text(tmp_path / "theirs")


def test_the_released_encoder_has_the_weights_of_diffusers() -> None:
    """32 layers of width 1280, with attention of width 512."""
    with torch.device("meta"):
        ours, theirs = dl.LDMTextEncoder(), bert.LDMBertModel(bert.LDMBertConfig())
    written = {key: value.shape for key, value in to_ldm_text(ours).items()}
    assert len(written) == 2 + 32 * 13 + 2
    assert written["attn_layers.layers.62.1.to_q.weight"] == (512, 1280)
    assert written["attn_layers.layers.63.1.net.0.0.weight"] == (5120, 1280)
    logits = sum(value.numel() for value in theirs.to_logits.parameters())
    assert sum(map(torch.Tensor.numel, ours.parameters())) + logits == sum(map(torch.Tensor.numel, theirs.parameters()))
