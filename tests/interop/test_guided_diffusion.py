"""The released networks of ADM by the names of guided-diffusion, against ``UNet2DModel`` of diffusers."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from tests.catalogue import CLASSIFIERS, randomise

# The networks of ADM in small: the same options, but fewer channels and blocks
SMALL = {"model_channels": 16, "num_groups": 4, "num_res_blocks": 1}


def small(name: str) -> dict:
    options = {**dl.ADM_UNETS[name], **SMALL}
    last = options["channel_mult"][-3:]
    options["channel_mult"] = [mult / last[0] for mult in last]  # there the time has the width of the first level
    levels, dropped = options["attention_levels"], len(dl.ADM_UNETS[name]["channel_mult"]) - 3
    options["attention_levels"] = [level - dropped for level in levels if level >= dropped]
    if "head_channels" in options:
        options["head_channels"] = 8
    if "classes" in options:
        options["classes"] = {"class": 6}
    return options


def equivalent(options: dict) -> nn.Module:
    """The class of diffusers with the same sizes; the width of its heads is one number."""
    import diffusers

    widths = [int(16 * mult) for mult in options["channel_mult"]]
    attends = [level in options["attention_levels"] for level in range(3)]
    down, up = ("ResnetDownsampleBlock2D", "AttnDownBlock2D"), ("ResnetUpsampleBlock2D", "AttnUpBlock2D")
    return diffusers.UNet2DModel(
        in_channels=options["in_channels"],
        out_channels=6,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=[down[has] for has in attends],
        up_block_types=[up[has] for has in reversed(attends)],
        downsample_type="resnet",
        upsample_type="resnet",
        attention_head_dim=8,
        norm_num_groups=4,
        attn_norm_num_groups=4,
        resnet_time_scale_shift="scale_shift",
        num_class_embeds=6 if "classes" in options else None,
    )


def by_guided_names(theirs: nn.Module, options: dict) -> dict[str, Tensor]:
    """Weights of diffusers by the names of guided-diffusion, written by hand; heads in the order of the options."""
    blocks: dict[str, str] = {"middle_block.0": "mid_block.resnets.0", "middle_block.2": "mid_block.resnets.1"}
    attentions = {"middle_block.1": "mid_block.attentions.0"}
    for i in range(6):
        level, layer = divmod(i, 2)
        blocks[f"output_blocks.{i}.0"] = f"up_blocks.{level}.resnets.{layer}"
        has = 2 - level in options["attention_levels"]
        if has:
            attentions[f"output_blocks.{i}.1"] = f"up_blocks.{level}.attentions.{layer}"
        if layer == 1 and level < 2:
            blocks[f"output_blocks.{i}.{1 + has}"] = f"up_blocks.{level}.upsamplers.0"
    for i in range(5):
        level, layer = divmod(i, 2)
        blocks[f"input_blocks.{i + 1}.0"] = f"down_blocks.{level}." + ("downsamplers.0" if layer else "resnets.0")
        if level in options["attention_levels"] and not layer:
            attentions[f"input_blocks.{i + 1}.1"] = f"down_blocks.{level}.attentions.0"

    state, result = theirs.state_dict(), {}
    names = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj"}
    names |= {"out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut"}
    pairs = {"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2"}
    pairs |= {"input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out"}
    pairs |= {f"{a}.{name}": f"{b}.{other}" for a, b in blocks.items() for name, other in names.items()}
    pairs |= {f"{a}.norm": f"{b}.group_norm" for a, b in attentions.items()}
    for ours, other in pairs.items():
        for kind in ("weight", "bias"):
            if f"{other}.{kind}" in state:
                result[f"{ours}.{kind}"] = state[f"{other}.{kind}"]
    for ours, other in attentions.items():
        for kind in ("weight", "bias"):
            parts = [state[f"{other}.to_{letter}.{kind}"] for letter in "qkv"]
            split = [part.reshape(-1, 8, *part.shape[1:]) for part in parts]  # heads of 8
            joint = torch.stack(split, 0 if options.get("attention_order") == "new" else 1)
            joint = joint.reshape(-1, *parts[0].shape[1:])
            out = state[f"{other}.to_out.0.{kind}"]
            result[f"{ours}.qkv.{kind}"] = joint[..., None] if kind == "weight" else joint
            result[f"{ours}.proj_out.{kind}"] = out[..., None] if kind == "weight" else out
    if "classes" in options:
        result["label_emb.weight"] = state["class_embedding.weight"]
    assert len(result) == len(state) - 4 * len(attentions)  # three projections with two tensors each became one
    return result


@pytest.mark.parametrize(
    "name", [name for name in dl.ADM_UNETS if not name.startswith("lsun") and "num_heads" not in dl.ADM_UNETS[name]]
)
def test_equal_to_diffusers_with_the_weights_of_guided_diffusion(name: str, tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="UNet2DModel of diffusers is the oracle here")
    options = small(name)
    theirs = randomise(equivalent(options)).eval()
    weights = by_guided_names(theirs, options)
    torch.save(weights, tmp_path / "model.pt")
    ours = randomise(dl.adm_unet(**options), seed=1).eval()
    assert dl.load_guided_diffusion(ours, tmp_path / "model.pt") == ([], [])

    x, t = torch.randn(2, options["in_channels"], 8, 8), torch.tensor([3, 900])
    classes = {"class": torch.tensor([0, 5])} if "classes" in options else {}
    with torch.no_grad():
        expected = theirs(x, t, class_labels=classes.get("class")).sample
        output = ours(x, t, classes)
    assert expected.std() > 0.1
    assert (output.prediction - expected[:, :3]).abs().max() < 1e-5
    assert (2 * output.variance_value - 1 - expected[:, 3:]).abs().max() < 1e-5

    back = dl.to_guided_diffusion(ours)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], value) for key, value in weights.items())


def test_an_absent_class_adds_nothing() -> None:
    """The released conditional networks have no null class."""
    options = small("imagenet_64")
    conditional = randomise(dl.adm_unet(**options))
    weights = dl.to_guided_diffusion(conditional)
    assert weights["label_emb.weight"].shape[0] == 6
    dl.load_guided_diffusion(conditional, weights)
    unconditional = dl.adm_unet(**{**options, "classes": None})
    dl.load_guided_diffusion(unconditional, {key: value for key, value in weights.items() if "label" not in key})
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 900])
    conditional, unconditional = conditional.eval(), unconditional.eval()
    assert torch.equal(conditional(x, t).prediction, unconditional(x, t).prediction)


def test_the_upsampler_is_told_the_image_of_low_resolution() -> None:
    """Beside x, enlarged bilinearly without aligned corners: written here by its formula."""
    options = small("upsampler_64_256")
    network = randomise(dl.adm_unet(**options)).eval()
    upsampler = dl.SuperResolution(network)
    low, x, t = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 8, 8), torch.tensor([3, 900])
    position = ((torch.arange(8) + 0.5) / 2 - 0.5).clamp(min=0)
    left = position.floor().long()
    right, share = (left + 1).clamp(max=3), position - left
    matrix = torch.zeros(8, 4)
    for i in range(8):
        matrix[i, left[i]] += 1 - share[i]
        matrix[i, right[i]] += share[i]
    enlarged = matrix @ low @ matrix.mT
    classes = torch.tensor([2, 6])
    with torch.no_grad():
        expected = network(torch.cat([x, enlarged], 1), t, {"class": classes})
        actual = upsampler(x, t, {"class": classes, "low_resolution": low})
    assert actual.prediction.shape == x.shape
    torch.testing.assert_close(actual, expected)


def test_the_classifier_by_its_names() -> None:
    classifier = CLASSIFIERS["adm_classifier"]()
    weights = dl.to_guided_diffusion(classifier)
    own = classifier.state_dict()
    names = {
        "time_embed.2.bias": "time.linear_out.bias",
        "input_blocks.0.0.weight": "conv_in.weight",
        "input_blocks.1.0.in_layers.2.weight": "encoder.0.0.conv_in.weight",
        "input_blocks.2.0.out_layers.3.weight": "encoder.1.0.conv_out.weight",  # the way down
        "input_blocks.3.0.skip_connection.weight": "encoder.2.0.skip.weight",
        "input_blocks.3.1.qkv.weight": "encoder.2.1.qkv.weight",
        "middle_block.1.proj_out.bias": "middle.1.proj_out.bias",
        "middle_block.2.emb_layers.1.weight": "middle.2.norm_out.projection.weight",
        "out.0.weight": "norm.weight",
        "out.2.positional_embedding": "pool.positions",
        "out.2.qkv_proj.weight": "pool.qkv.weight",
        "out.2.c_proj.bias": "pool.out.bias",
    }
    assert len(weights) == len(own)
    assert all(torch.equal(weights[theirs], own[ours]) for theirs, ours in names.items())
    assert weights["out.2.positional_embedding"].shape == (16, 17)
    other = randomise(CLASSIFIERS["adm_classifier"](), seed=1)
    dl.load_guided_diffusion(other, weights)
    assert all(torch.equal(value, own[key]) for key, value in other.state_dict().items())
    weights.pop("out.2.c_proj.bias")
    with pytest.raises(ValueError, match=r"not those of this ADMClassifier: 1 missing: \['out.2.c_proj.bias'\]"):
        dl.load_guided_diffusion(other, weights)
