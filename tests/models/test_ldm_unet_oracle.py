"""The latent U-Net against diffusers, and the sizes of released networks."""

import pytest
import torch
from torch import Tensor

import diffusion_labs as dl
from diffusion_labs.interop import from_diffusers_unet_config
from diffusion_labs.interop.key_rules import load_foreign
from diffusion_labs.interop.unet_rules import diffusers_unet_rules
from tests.catalogue import randomise

# Released sizes: all parameters of the U-Net, in millions, and tensors where they were counted. The configurations were
# instantiated in the code that they were released with.
RELEASED = {
    "celebahq": (274.1, None),
    "lsun_churches": (295.0, None),
    "cin256": (395.0, None),
    "cin256_v2": (400.9, None),
    "txt2img_large": (872.3, None),
    "text2img256": (403.6, None),
    "layout2img_openimages256": (246.3, None),
    "bsr_sr": (113.6, None),
    "inpainting_big": (387.2, None),
    "semantic_synthesis": (215.2, None),
    "stable_diffusion_1": (859.520964, 686),
    "stable_diffusion_1_inpainting": (859.535364, 686),
    "stable_diffusion_2": (865.910724, 686),
    "stable_diffusion_xl": (2567.463684, 1680),
}


def test_every_released_size_has_its_count() -> None:
    assert RELEASED.keys() == dl.LDM_UNETS.keys()


@pytest.mark.parametrize("name", RELEASED)
def test_as_many_parameters_as_the_released_network(name: str) -> None:
    millions, tensors = RELEASED[name]
    with torch.device("meta"):
        parameters = list(dl.ldm_unet(**dl.LDM_UNETS[name]).parameters())
    count = sum(parameter.numel() for parameter in parameters)
    assert round(count / 1e6, 1 if tensors is None else 6) == millions
    assert tensors is None or len(parameters) == tensors


# diffusers

CROSS, PLAIN = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")


def config(*levels: tuple[str, str], **options) -> dict:
    """A tiny network, with the kinds of block of each level."""
    return {
        "_class_name": "UNet2DConditionModel",
        "block_out_channels": (8, 16, 16)[: len(levels)],
        "down_block_types": tuple(down for down, _ in levels),
        "up_block_types": tuple(up for _, up in reversed(levels)),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "cross_attention_dim": 6,
        **options,
    }


CONFIGS = {
    # attention_head_dim is the number of heads
    "stable_diffusion_1": config(CROSS, CROSS, PLAIN, attention_head_dim=2, layers_per_block=2),
    "stable_diffusion_2": config(CROSS, CROSS, PLAIN, attention_head_dim=[2, 4, 4], use_linear_projection=True),
    "stable_diffusion_xl": config(
        PLAIN,
        CROSS,
        CROSS,
        attention_head_dim=[1, 2, 2],
        use_linear_projection=True,
        transformer_layers_per_block=[1, 2, 3],
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=5 + 6 * 8,
    ),
    "inpainting_and_classes": config(CROSS, PLAIN, in_channels=9, attention_head_dim=4, num_class_embeds=5),
}
MASK = torch.tensor([[True, True, True, True, False], [True, False, False, True, True]])


def conditions(name: str) -> tuple[dict[str, Tensor], dict]:
    """Ours, and those of diffusers."""
    text, pooled = torch.randn(2, 5, 6).double(), torch.randn(2, 5).double()
    ours, theirs = {"text": text, "text_mask": MASK}, {"encoder_hidden_states": text, "encoder_attention_mask": MASK}
    if name == "stable_diffusion_xl":
        sizes = torch.tensor([[512, 512, 0, 0, 512, 512], [64, 200, 3, 0, 128, 256]])
        ours |= {"pooled_text": pooled, "sizes": sizes}
        theirs["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
    if name == "inpainting_and_classes":
        ours["class"] = theirs["class_labels"] = torch.tensor([3, 4])
    return ours, theirs


@pytest.mark.parametrize("name", CONFIGS)
def test_equal_to_diffusers_in_both_directions(name: str) -> None:
    diffusers = pytest.importorskip("diffusers", reason="UNet2DConditionModel of diffusers is the oracle here")
    options = {key: value for key, value in CONFIGS[name].items() if key != "_class_name"}
    theirs = randomise(diffusers.UNet2DConditionModel(**options)).double().eval()
    ours = from_diffusers_unet_config({"_class_name": "UNet2DConditionModel", **theirs.config}).double().eval()
    rules = diffusers_unet_rules(ours, conv_projections=not options.get("use_linear_projection", False))
    load_foreign(ours, theirs.state_dict(), rules)

    x, t = torch.randn(2, options.get("in_channels", 4), 8, 8).double(), torch.tensor([3, 921])
    given, expected_given = conditions(name)
    with torch.no_grad():
        for drop in ([], ["text_mask", "encoder_attention_mask"]):
            prediction = ours(x, t, {key: value for key, value in given.items() if key not in drop}).prediction
            kwargs = {key: value for key, value in expected_given.items() if key not in drop}
            expected = theirs(x, t, **kwargs).sample
            assert expected.std() > 0.1
            assert (prediction - expected).abs().max() < 1e-5

    # And back: every tensor, by its name, bit for bit
    back = rules.to_theirs(ours.state_dict())
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[key], value) for key, value in theirs.state_dict().items())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("stable_diffusion_1", {"attention_head_dim": 8, "cross_attention_dim": 768}),
        ("stable_diffusion_2", {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024}),
        (
            "stable_diffusion_xl",
            {
                "attention_head_dim": [5, 10, 20],
                "cross_attention_dim": 2048,
                "block_out_channels": (320, 640, 1280),
                "down_block_types": (PLAIN[0], CROSS[0], CROSS[0]),
                "up_block_types": (CROSS[1], CROSS[1], PLAIN[1]),
                "transformer_layers_per_block": [1, 2, 10],
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
                "use_linear_projection": True,
            },
        ),
    ],
)
def test_released_configurations_of_diffusers_give_the_released_sizes(name: str, options: dict) -> None:
    with torch.device("meta"):
        read = from_diffusers_unet_config({"_class_name": "UNet2DConditionModel", **options})
        ours = dl.ldm_unet(**dl.LDM_UNETS[name])
    assert {key: value.shape for key, value in read.state_dict().items()} == {
        key: value.shape for key, value in ours.state_dict().items()
    }
    assert [block.num_heads for block in read.modules() if hasattr(block, "num_heads")] == [
        block.num_heads for block in ours.modules() if hasattr(block, "num_heads")
    ]
    assert read.condition_names == ours.condition_names
