"""The ADM U-Net against others: diffusers, the paper's formulas, and the sizes of released checkpoints."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.layers import average_pool, nearest_upsample, split_heads_interleaved, split_heads_stacked
from diffusion_labs.models import ADMUNet, adm_unet
from diffusion_labs.models.adm_unet.blocks import (
    AdaptiveGroupNorm,
    AttentionBlock,
    Context,
    ContextAttentionBlock,
    ResBlock,
    ShiftedGroupNorm,
)
from tests.catalogue import randomise

# diffusers: the only names and orders used here are its own and those of the checkpoints


def res_block_keys(ours: str, theirs: str) -> dict[str, str]:
    names = {
        "norm_in": "norm1",
        "conv_in": "conv1",
        "norm_out.norm": "norm2",
        "norm_out.projection": "time_emb_proj",
        "conv_out": "conv2",
        "skip": "conv_shortcut",
    }
    return {f"{ours}.{name}.": f"{theirs}.{other}." for name, other in names.items()}


def key_rules(num_levels: int, num_res_blocks: int) -> dict[str, str]:
    """Prefixes of our names, and what they are in ``UNet2DModel``."""
    rules = {
        "embedding.time.linear_in.": "time_embedding.linear_1.",
        "embedding.time.linear_out.": "time_embedding.linear_2.",
        "embedding.classes.class_.table.": "class_embedding.",
        "conv_in.": "conv_in.",
        "head.norm.": "conv_norm_out.",
        "head.conv.": "conv_out.",
        "middle.1.": "mid_block.attentions.0.",
        **res_block_keys("middle.0", "mid_block.resnets.0"),
        **res_block_keys("middle.2", "mid_block.resnets.1"),
    }
    per_level = num_res_blocks + 1
    for i in range(num_levels * per_level):
        block, layer = divmod(i, per_level)
        down, up = f"down_blocks.{block}", f"up_blocks.{block}"
        if layer == num_res_blocks:
            rules |= res_block_keys(f"encoder.{i}.0", f"{down}.downsamplers.0")
            rules[f"encoder.{i}.0.resample.conv."] = f"{down}.downsamplers.0.conv."
        else:
            rules |= res_block_keys(f"encoder.{i}.0", f"{down}.resnets.{layer}")
        rules |= res_block_keys(f"decoder.{i}.0", f"{up}.resnets.{layer}")
        rules[f"encoder.{i}.1."] = f"{down}.attentions.{layer}."
        for child in (1, 2):
            rules |= res_block_keys(f"decoder.{i}.{child}", f"{up}.upsamplers.0")
            rules[f"decoder.{i}.{child}.resample.conv."] = f"{up}.upsamplers.0.conv."
            rules.setdefault(f"decoder.{i}.{child}.", f"{up}.attentions.{layer}.")
    return rules


def to_diffusers(network: ADMUNet, rules: dict[str, str], order: str, head_channels: int) -> dict[str, Tensor]:
    result = {}
    for name, value in network.state_dict().items():
        prefix = max((prefix for prefix in rules if name.startswith(prefix)), key=len)
        stem, end = rules[prefix], name.removeprefix(prefix)
        if end.startswith("qkv."):
            value = value.flatten(1) if value.dim() > 1 else value
            rest = value.shape[1:]
            if order == "legacy":
                parts = value.reshape(-1, 3, head_channels, *rest).unbind(1)
            else:
                parts = value.reshape(3, -1, head_channels, *rest).unbind(0)
            for letter, part in zip("qkv", parts, strict=True):
                result[f"{stem}to_{letter}.{end.removeprefix('qkv.')}"] = part.reshape(-1, *rest)
        elif end.startswith("proj_out."):
            end = end.replace("proj_out", "to_out.0")
            result[stem + end] = value.flatten(1) if value.dim() > 1 else value
        else:
            result[stem + end.replace("norm.", "group_norm.")] = value
    return result


@pytest.mark.parametrize("order", ["legacy", "new"])
@pytest.mark.parametrize("form", ["adm", "ldm"])
def test_equal_to_diffusers(order: str, form: str) -> None:
    diffusers = pytest.importorskip("diffusers", reason="UNet2DModel of diffusers is the oracle here")
    adm = form == "adm"
    resampling = "resnet" if adm else "conv"
    plain_down, plain_up = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if adm else ("DownBlock2D", "UpBlock2D")
    theirs = diffusers.UNet2DModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64, 64),
        layers_per_block=2,
        down_block_types=(plain_down, "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", plain_up),
        downsample_type=resampling,
        upsample_type=resampling,
        attention_head_dim=16,
        norm_num_groups=32,
        attn_norm_num_groups=32,
        norm_eps=1e-5,
        resnet_time_scale_shift="scale_shift" if adm else "default",
        num_class_embeds=11,
    ).eval()
    ours = adm_unet(
        in_channels=4,
        model_channels=32,
        channel_mult=(1, 2, 2),
        attention_levels=(1, 2),
        head_channels=16,
        attention_order=order,
        scale_shift=adm,
        residual_resampling=adm,
        classes={"class": 10},
    )
    randomise(ours)
    theirs.load_state_dict(to_diffusers(ours, key_rules(3, 2), order, head_channels=16))

    x, t = torch.randn(3, 4, 16, 16), torch.tensor([0, 321, 999])
    index = torch.tensor([0, 9, 10])
    with torch.no_grad():
        prediction = ours(x, t, {"class": index}).prediction
        expected = theirs(x, t, class_labels=index).sample
        assert expected.std() > 0.1
        assert (prediction - expected).abs().max() < 1e-5
        # Label 10 is the null class
        assert torch.equal(ours(x, t).prediction[2], prediction[2])


# The formulas


def group_norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    groups = x.reshape(x.shape[0], norm.num_groups, -1)
    groups = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, correction=0, keepdim=True) + norm.eps).sqrt()
    return torch.einsum("bcp,c->bcp", groups.reshape(*x.shape[:2], -1), norm.weight).reshape(
        x.shape
    ) + norm.bias.reshape(-1, 1, 1)


@pytest.mark.parametrize("order", ["legacy", "new"])
@pytest.mark.parametrize("masked", [False, True])
def test_context_attention_is_its_formula(order: str, masked: bool) -> None:
    batch, channels, heads, height, width, length = 2, 12, 3, 2, 3, 4
    split = {"legacy": split_heads_interleaved, "new": split_heads_stacked}[order]
    block = ContextAttentionBlock(channels, heads, context_dim=5, split_heads=split, num_groups=2).double()
    randomise(block)
    x = torch.randn(batch, channels, height, width, dtype=torch.float64)
    tokens = torch.randn(batch, length, 5, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True], [False] * 4]) if masked else None

    def heads_of(weight: Tensor, bias: Tensor, inputs: Tensor, parts: int) -> list[Tensor]:
        """[part][b, head, position, d]"""
        joint = torch.einsum("bnc,oc->bno", inputs, weight[:, :, 0]) + bias
        d = channels // heads
        pattern = (heads, parts, d) if order == "legacy" else (parts, heads, d)
        joint = joint.reshape(batch, -1, *pattern)
        return [torch.einsum("bnhd->bhnd", joint.select(3 if order == "legacy" else 2, i)) for i in range(parts)]

    image = group_norm(x, block.norm).reshape(batch, channels, -1).mT
    q, k, v = heads_of(block.qkv.weight, block.qkv.bias, image, 3)
    context_k, context_v = heads_of(block.context_kv.weight, block.context_kv.bias, tokens, 2)
    k, v = torch.cat([context_k, k], 2), torch.cat([context_v, v], 2)
    scores = torch.einsum("bhnd,bhmd->bhnm", q, k) / (channels // heads) ** 0.5
    if masked:
        valid = torch.cat([mask, torch.ones(batch, height * width, dtype=torch.bool)], 1)
        scores = scores.masked_fill(~valid[:, None, None], -torch.inf)
    h = torch.einsum("bhnm,bhmd->bhdn", scores.softmax(-1), v).reshape(batch, channels, -1)
    h = torch.einsum("bcn,oc->bon", h, block.proj_out.weight[:, :, 0]) + block.proj_out.bias[:, None]

    y = block(x, torch.zeros(batch, 1), Context(tokens, mask))
    torch.testing.assert_close(y, x + h.reshape(x.shape), rtol=1e-10, atol=1e-10)


def test_a_vector_makes_tokens_before_the_others() -> None:
    """As if its tokens had been given, in a network whose projection of tokens is the identity."""
    sizes = {"model_channels": 8, "channel_mult": (1,), "num_res_blocks": 1, "num_groups": 4, "attention_levels": (0,)}
    conditions = {"vectors": {"image": 6}, "tokens": {"text": 5}, "context_dim": 5}
    network = randomise(dl.adm_unet(**sizes, **conditions, vector_tokens={"image": 4}))
    plain = dl.adm_unet(**sizes, **conditions)
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if "vector_tokens" not in k})
    with torch.no_grad():
        for model in (network, plain):
            model.embedding.tokens["text"].linear.weight.copy_(torch.eye(5))
            model.embedding.tokens["text"].linear.bias.zero_()
    x, t, image, text = torch.randn(2, 3, 4, 4), torch.tensor([3, 900]), torch.randn(2, 6), torch.randn(2, 3, 5)
    mask = torch.tensor([[True, False, True], [True, True, False]])
    layer = network.embedding.vector_tokens["image"].linear
    rows = [slice(5 * i, 5 * i + 5) for i in range(4)]
    made = torch.stack([image @ layer.weight[r].mT + layer.bias[r] for r in rows], 1)
    actual = network(x, t, {"image": image, "text": text, "text_mask": mask})
    joint = torch.cat([torch.ones(2, 4, dtype=torch.bool), mask], 1)
    expected = plain(x, t, {"image": image, "text": torch.cat([made, text], 1), "text_mask": joint})
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    # An absent vector is zeros, in the embedding and in the context
    zeros = network(x, t, {"image": torch.zeros(2, 6), "text": text})
    torch.testing.assert_close(network(x, t, {"text": text}), zeros)


def test_the_two_orders_differ_on_the_same_weights() -> None:
    blocks = [
        randomise(AttentionBlock(8, 2, split_heads=split, num_groups=2))
        for split in (split_heads_interleaved, split_heads_stacked)
    ]
    x = torch.randn(1, 8, 3, 3)
    first, second = (block(x, torch.zeros(1, 1), None) for block in blocks)
    assert (first - second).abs().max() > 1e-2


@pytest.mark.parametrize("embedding_norm", [AdaptiveGroupNorm, ShiftedGroupNorm])
@pytest.mark.parametrize("change", ["none", "down", "up"])
def test_res_block_is_its_formula(embedding_norm: type, change: str) -> None:
    resample = {"none": None, "down": average_pool(2), "up": nearest_upsample()}[change]
    block = ResBlock(
        4, 6, embed_dim=5, embedding_norm=embedding_norm, resample=resample, num_groups=2, eps=1e-3
    ).double()
    randomise(block)
    x, embedding = torch.randn(2, 4, 4, 6).double(), torch.randn(2, 5).double()

    def resized(h: Tensor) -> Tensor:
        if change == "down":
            return h.reshape(*h.shape[:2], h.shape[2] // 2, 2, h.shape[3] // 2, 2).mean((3, 5))
        return h.repeat_interleave(2, 2).repeat_interleave(2, 3) if change == "up" else h

    def silu(h: Tensor) -> Tensor:
        return h / (1 + torch.exp(-h))

    linear, norm = block.norm_out.projection, block.norm_out.norm
    modulation = (silu(embedding) @ linear.weight.mT + linear.bias)[:, :, None, None]
    h = F.conv2d(resized(silu(group_norm(x, block.norm_in))), block.conv_in.weight, block.conv_in.bias, padding=1)
    if embedding_norm is AdaptiveGroupNorm:
        h = group_norm(h, norm) * (1 + modulation[:, :6]) + modulation[:, 6:]
    else:
        h = group_norm(h + modulation, norm)
    h = F.conv2d(silu(h), block.conv_out.weight, block.conv_out.bias, padding=1)
    expected = F.conv2d(resized(x), block.skip.weight, block.skip.bias) + h

    torch.testing.assert_close(block(x, embedding, None), expected, rtol=1e-10, atol=1e-10)


# Sizes of released checkpoints, in millions of parameters and in tensors

MULT_64, MULT_256 = (1, 2, 3, 4), (1, 1, 2, 2, 4, 4)
UPSAMPLER = {"in_channels": 6, "out_channels": 3}
ADM = {
    "imagenet_64": (295.90, 541),
    "imagenet_128": (421.53, 493),
    "imagenet_256": (553.84, 567),
    "imagenet_256_uncond": (552.81, 566),
    "imagenet_512": (559.00, 645),
    "lsun_bedroom": (552.81, 566),
    "lsun_cat": (552.81, 566),
    "lsun_horse": (552.81, 566),
    "upsampler_64_256": (311.80, None),
    "upsampler_128_512": (308.84, None),
}
RELEASED = {
    **{name: (dl.ADM_UNETS[name], *counts) for name, counts in ADM.items()},
    # DALL-E 2, Table 3. The counts in our notes are those of the two with attention in the middle, which
    # the paper says that its upsamplers do not have.
    "dalle2 trunk of the decoder": (
        {"model_channels": 512, "channel_mult": MULT_64, "num_res_blocks": 3, "head_channels": 64}
        | {"attention_levels": (1, 2, 3)},
        2097.57,
        None,
    ),
    "dalle2 64 to 256, middle attention": (
        {"model_channels": 320, "channel_mult": MULT_64, "num_res_blocks": 3} | UPSAMPLER,
        736.26,
        None,
    ),
    "dalle2 64 to 256": (
        {"model_channels": 320, "channel_mult": MULT_64, "num_res_blocks": 3, "middle_attention": False} | UPSAMPLER,
        729.70,
        None,
    ),
    "dalle2 256 to 1024, middle attention": (
        {"model_channels": 192, "channel_mult": MULT_256} | UPSAMPLER,
        284.42,
        None,
    ),
    "dalle2 256 to 1024": (
        {"model_channels": 192, "channel_mult": MULT_256, "middle_attention": False} | UPSAMPLER,
        282.06,
        None,
    ),
}


def test_every_released_size_has_its_count() -> None:
    assert ADM.keys() == dl.ADM_UNETS.keys()


@pytest.mark.parametrize("name", RELEASED)
def test_as_many_parameters_as_the_released_network(name: str) -> None:
    options, millions, tensors = RELEASED[name]
    with torch.device("meta"):
        network = adm_unet(**options)
    parameters = list(network.parameters())
    # Ours has a row for the null class, which the released networks lack
    null_rows = sum(condition.table.embedding_dim for condition in network.embedding.classes.values())
    count = sum(parameter.numel() for parameter in parameters) - null_rows
    assert round(count / 1e6, 2) == millions
    assert tensors is None or len(parameters) == tensors
