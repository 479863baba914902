"""Laws of the ADM U-Net: conditions and their absence, resolutions, precision, compilation, copies."""

import copy
import io
import itertools
import pickle

import pytest
import torch
from torch import Tensor, nn

from diffusion_labs.models import ADMUNet, adm_unet
from tests.catalogue import randomise

CONDITIONS = {"classes": {"class": 10}, "vectors": {"clip": 6}, "tokens": {"text": 5}}
SMALL = {"model_channels": 16, "channel_mult": (1, 2), "num_res_blocks": 1, "num_groups": 8, "in_channels": 2}
BATCH = 3


def build(**options) -> ADMUNet:
    return randomise(adm_unet(**(SMALL | {"attention_levels": (1,), "num_heads": 2} | options)))


def inputs(size: tuple[int, ...] = (8, 8), channels: int = 2) -> tuple[Tensor, Tensor]:
    return torch.randn(BATCH, channels, *size), torch.tensor([0, 500, 999])


def conditions() -> dict[str, Tensor]:
    mask = torch.tensor([[True, True, False, False], [True] * 4, [True, False, True, False]])
    return {
        "class": torch.tensor([0, 9, 3]),
        "clip": torch.randn(BATCH, 6),
        "text": torch.randn(BATCH, 4, 5),
        "text_mask": mask,
    }


# Start and gradients


@pytest.mark.parametrize("learned_variance", [False, True])
def test_predicts_zero_at_the_start_and_the_middle_of_the_variance(learned_variance: bool) -> None:
    network = adm_unet(**SMALL, **CONDITIONS, learned_variance=learned_variance, attention_levels=(0, 1))
    x, t = inputs()
    output = network(x, t, conditions())
    assert torch.equal(output.prediction, torch.zeros_like(x))
    if learned_variance:
        assert torch.equal(output.variance_value, torch.full_like(x, 0.5))
    else:
        assert output.variance_value is None


def test_residual_blocks_start_as_the_identity() -> None:
    network = adm_unet(**SMALL, attention_levels=(0, 1))
    h, embedding = torch.randn(BATCH, 32, 4, 4), torch.randn(BATCH, 64)
    assert torch.equal(network.middle(h, embedding, None), h)


SUBSETS = [subset for n in range(5) for subset in itertools.combinations(("class", "clip", "text", "text_mask"), n)]


@pytest.mark.parametrize("given", SUBSETS, ids="+".join)
def test_every_parameter_gets_a_gradient_whatever_is_given(given: tuple[str, ...]) -> None:
    network = build(**CONDITIONS, learned_variance=True)
    x, t = inputs()
    output = network(x, t, {name: value for name, value in conditions().items() if name in given})
    (output.prediction.square().mean() + output.variance_value.square().mean()).backward()
    # An absent vector or token is zero, and so is the gradient of its weight
    weights = {
        "clip": "embedding.vectors.clip.linear.weight",
        "text": "embedding.tokens.text.linear.weight",
    }
    zero = {weight for condition, weight in weights.items() if condition not in given}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any() != (name in zero), name


# Conditions


def test_each_condition_changes_the_prediction() -> None:
    network = build(**CONDITIONS)
    x, t = inputs()
    everything = conditions()
    full = network(x, t, everything).prediction
    for name in everything:
        less = {other: value for other, value in everything.items() if other != name}
        changed = (network(x, t, less).prediction - full).abs().flatten(1).amax(1)
        # The mask of the second sample is true everywhere
        expected = torch.tensor([True, name != "text_mask", True])
        assert torch.equal(changed > 1e-3, expected), name


def test_an_absent_condition_is_one_that_can_be_given() -> None:
    network = build(**CONDITIONS)
    x, t = inputs()
    null = {
        "class": torch.full((BATCH,), network.null_conditions["class"]),
        "clip": torch.zeros(BATCH, 6),
        "text": torch.zeros(BATCH, 4, 5),
        "text_mask": torch.tensor([True, False, False, False]).expand(BATCH, 4),
    }
    torch.testing.assert_close(network(x, t, null).prediction, network(x, t).prediction)
    assert torch.equal(network(x, t, {"text_mask": null["text_mask"]}).prediction, network(x, t).prediction)


def test_null_conditions_and_names() -> None:
    network = build(classes={"class": 10, "breed": 4}, tokens={"text": 5})
    assert network.null_conditions == {"class": 10, "breed": 4}
    assert network.condition_names == {"class", "breed", "text", "text_mask", "identity_attention"}
    network.null_conditions["class"] = 0
    assert network.null_conditions["class"] == 10


def test_samples_of_a_batch_do_not_see_each_other() -> None:
    network = build(**CONDITIONS)
    x, t = inputs()
    given = conditions()
    together = network(x, t, given).prediction
    for i in range(BATCH):
        one = slice(i, i + 1)
        alone = network(x[one], t[one], {name: value[one] for name, value in given.items()}).prediction
        torch.testing.assert_close(together[one], alone, rtol=1e-4, atol=1e-5)


def test_tokens_are_a_set_and_masked_ones_are_not_in_it() -> None:
    network = build(**CONDITIONS)
    x, t = inputs()
    given = conditions()
    prediction = network(x, t, given).prediction

    order = torch.tensor([2, 0, 3, 1])
    shuffled = given | {"text": given["text"][:, order], "text_mask": given["text_mask"][:, order]}
    torch.testing.assert_close(network(x, t, shuffled).prediction, prediction, rtol=1e-4, atol=1e-5)

    other = torch.where(given["text_mask"][:, :, None], given["text"], 100.0)
    torch.testing.assert_close(network(x, t, given | {"text": other}).prediction, prediction)


def test_a_mask_on_one_of_two_token_conditions() -> None:
    network = build(tokens={"text": 5, "boxes": 3})
    x, t = inputs()
    given = {"text": torch.randn(BATCH, 4, 5), "boxes": torch.randn(BATCH, 2, 3)}
    mask = torch.tensor([True, False, True, True]).expand(BATCH, 4)
    shorter = given | {"text": given["text"][:, [0, 2, 3]]}
    torch.testing.assert_close(
        network(x, t, given | {"text_mask": mask}).prediction,
        network(x, t, shorter).prediction,
        rtol=1e-4,
        atol=1e-5,
    )


def test_inputs_are_left_as_they_were() -> None:
    network = build(**CONDITIONS)
    x, t = inputs()
    given = conditions()
    before = copy.deepcopy((x, t, given))
    network(x, t, given)
    assert given.keys() == before[2].keys()
    for now, then in zip((x, t, *given.values()), (*before[:2], *before[2].values()), strict=True):
        assert torch.equal(now, then)


# Resolutions


def sizes_of(network: ADMUNet, size: int) -> tuple[list[int], int, list[int]]:
    """The side that each encoder stage gives, the middle gets, and each decoder stage takes."""
    encoder, middle, decoder = [], [], []
    for stage in network.encoder:
        stage.register_forward_hook(lambda module, args, h: encoder.append(h.shape[-1]))
    network.middle.register_forward_hook(lambda module, args, h: middle.append(args[0].shape[-1]))
    for stage in network.decoder:
        stage.register_forward_hook(lambda module, args, h: decoder.append(args[0].shape[-1]))
    x, t = inputs((size, size))
    assert network(x, t).prediction.shape == x.shape
    return encoder, middle[0], decoder


@pytest.mark.parametrize("num_res_blocks", [1, 2])
@pytest.mark.parametrize("residual_resampling", [False, True])
@pytest.mark.parametrize(
    ("num_levels", "num_resamples"), [(levels, n) for levels in (1, 2, 3, 4) for n in range(levels)]
)
def test_any_number_of_levels_with_any_number_of_resamplings(
    num_levels: int, num_resamples: int, residual_resampling: bool, num_res_blocks: int
) -> None:
    network = build(
        model_channels=8,
        channel_mult=(1, 2, 3, 1)[:num_levels],
        num_res_blocks=num_res_blocks,
        num_resamples=num_resamples,
        residual_resampling=residual_resampling,
        attention_levels=(num_levels - 1,),
    )
    assert network.size_multiple == 2**num_resamples
    encoder, middle, decoder = sizes_of(network, size=16)

    expected = []
    for level in range(num_levels):
        expected += [16 // 2 ** min(level, num_resamples)] * num_res_blocks
        expected += [16 // 2 ** (level + 1)] * (level < num_resamples)
    assert encoder == expected
    assert middle == 16 // 2**num_resamples
    # The decoder takes the skips from the last to the first, which is that of the first convolution
    assert decoder == [*reversed(expected), 16]


def test_resampling_on_all_levels_is_the_default() -> None:
    options = {"channel_mult": (1, 2, 2)}
    default, explicit = build(**options), build(**options, num_resamples=2)
    assert default.state_dict().keys() == explicit.state_dict().keys()
    x, t = inputs()
    assert torch.equal(default(x, t).prediction, explicit(x, t).prediction)


@pytest.mark.parametrize("conv_resample", [False, True])
def test_resampling_between_blocks_has_parameters_only_with_convolutions(conv_resample: bool) -> None:
    network = build(residual_resampling=False, conv_resample=conv_resample)
    names = {name for name, _ in network.named_parameters() if ".resample." in name}
    stems = ("encoder.1.0.resample.conv", "decoder.1.2.resample.conv")
    expected = {f"{stem}.{kind}" for stem in stems for kind in ("weight", "bias")}
    assert names == (expected if conv_resample else set())
    x, t = inputs()
    assert network(x, t).prediction.shape == x.shape


def repeated_along_last(low: ADMUNet, high: ADMUNet) -> None:
    """Give ``high``, of one dimension more, the kernels of ``low`` in the middle of its last dimension."""
    weights = {}
    for name, value in low.state_dict().items():
        target = torch.zeros_like(high.state_dict()[name])
        if target.shape == value.shape:
            target = value
        else:
            target[..., target.shape[-1] // 2] = value
        weights[name] = target
    high.load_state_dict(weights)


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("residual_resampling", [False, True])
def test_one_dimension_more_on_data_constant_along_it_changes_nothing(dims: int, residual_resampling: bool) -> None:
    options = {"residual_resampling": residual_resampling, "attention_levels": (0, 1)}
    low, high = build(**options, dims=dims).double(), build(**options, dims=dims + 1).double()
    repeated_along_last(low, high)
    x, t = inputs((8, 4)[:dims])
    x = x.double()
    prediction = low(x, t).prediction
    wide = high(x[..., None].expand(*x.shape, 6), t).prediction
    torch.testing.assert_close(wide, prediction[..., None].expand_as(wide))


# Heads and options


def test_heads_per_level() -> None:
    options = {"channel_mult": (1, 2), "attention_levels": (0, 1)}

    def heads(network: ADMUNet) -> tuple[list[int], ...]:
        parts = (network.encoder, network.middle, network.decoder)
        return tuple([module.num_heads for module in part.modules() if hasattr(module, "num_heads")] for part in parts)

    assert heads(build(**options, num_heads=2)) == ([2, 2], [2], [2, 2, 2, 2])
    assert heads(build(**options, num_heads=2, num_heads_upsample=4)) == ([2, 2], [2], [4, 4, 4, 4])
    assert heads(build(**options, num_heads_upsample=4, head_channels=8)) == ([2, 4], [4], [4, 4, 2, 2])


def test_without_middle_attention_there_is_none_anywhere() -> None:
    network = build(attention_levels=(), middle_attention=False)
    assert not any("qkv" in name for name, _ in network.named_parameters())
    x, t = inputs()
    assert network(x, t).prediction.std() > 0.1


def test_out_channels_and_fractional_widths() -> None:
    network = build(model_channels=32, channel_mult=(0.5, 1.5), in_channels=4, out_channels=3)
    assert network.conv_in.out_channels == network.head.conv.in_channels == 16
    assert network.middle[0].conv_in.out_channels == 48
    x, t = inputs(channels=4)
    assert network(x, t).prediction.shape == (BATCH, 3, 8, 8)


def test_variance_value_maps_minus_one_to_zero_and_one_to_one() -> None:
    network = build(learned_variance=True)
    with torch.no_grad():
        network.head.conv.weight.zero_()
        network.head.conv.bias.copy_(torch.tensor([5.0, 6.0, -1.0, 1.0]))
    output = network(*inputs())
    for channel, (prediction, variance_value) in enumerate([(5.0, 0.0), (6.0, 1.0)]):
        assert torch.equal(output.prediction[:, channel], torch.full((BATCH, 8, 8), prediction))
        assert torch.equal(output.variance_value[:, channel], torch.full((BATCH, 8, 8), variance_value))


def test_dropout_acts_in_train_mode_alone() -> None:
    network = build(dropout=0.5)
    x, t = inputs()
    assert not torch.equal(network(x, t).prediction, network(x, t).prediction)
    network.eval()
    assert torch.equal(network(x, t).prediction, network(x, t).prediction)
    assert torch.equal(network(x, t).prediction, build(dropout=0.0)(x, t).prediction)


# Precision


def test_float64_agrees_with_float32() -> None:
    network = build(**CONDITIONS)
    x, t = inputs()
    given = conditions()
    single = network(x, t, given).prediction
    double = network.double()(x.double(), t, given).prediction
    assert double.dtype == torch.float64
    assert (double - single).abs().max() < 1e-3 * double.std()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("input_dtype", ["same", torch.float32])
def test_half_precision_is_near_and_returns_the_dtype_of_x(dtype: torch.dtype, input_dtype) -> None:
    network = build(**CONDITIONS, learned_variance=True)
    x, t = inputs()
    given = conditions()
    exact = network(x, t, given)
    output = network.to(dtype)(x.to(dtype if input_dtype == "same" else input_dtype), t, given)
    tolerance = 0.15 if dtype == torch.bfloat16 else 0.03
    for half, full in ((output.prediction, exact.prediction), (output.variance_value, exact.variance_value)):
        assert half.dtype == (dtype if input_dtype == "same" else input_dtype)
        assert (half - full).square().mean().sqrt() < tolerance * full.std()


def test_torso_in_half_precision_with_embeddings_and_head_in_float32() -> None:
    full, mixed = build(**CONDITIONS), build(**CONDITIONS, dtype=torch.float16)
    for name, parameter in mixed.named_parameters():
        outside = name.startswith(("embedding.", "head."))
        assert parameter.dtype == (torch.float32 if outside else torch.float16), name
    x, t = inputs()
    given = conditions()
    exact, prediction = full(x, t, given).prediction, mixed(x, t, given).prediction
    assert prediction.dtype == torch.float32
    assert (prediction - exact).square().mean().sqrt() < 0.03 * exact.std()


def test_autocast_runs_and_stays_near() -> None:
    network = build(**CONDITIONS)
    x, t = inputs()
    given = conditions()
    exact = network(x, t, given).prediction
    with torch.autocast("cpu", torch.bfloat16):
        prediction = network(x, t, given).prediction
    assert prediction.dtype == torch.float32
    assert (prediction - exact).square().mean().sqrt() < 0.15 * exact.std()


# Compilation, checkpointing, copies


def gradients(network: nn.Module, x: Tensor, t: Tensor, given: dict[str, Tensor] | None) -> list[Tensor]:
    torch.manual_seed(0)  # of dropout
    network.zero_grad()
    network(x, t, given).prediction.square().mean().backward()
    return [parameter.grad.clone() for parameter in network.parameters()]


def test_checkpointing_gives_the_same_gradients() -> None:
    x, t = inputs()
    given = conditions()
    plain, checkpointed = (
        gradients(build(**CONDITIONS, dropout=0.1, checkpointing=flag), x, t, given) for flag in (False, True)
    )
    assert all(torch.equal(*pair) for pair in zip(plain, checkpointed, strict=True))


def test_checkpointing_keeps_fewer_activations() -> None:
    def saved(checkpointing: bool) -> int:
        network, total = build(checkpointing=checkpointing), 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            network(*inputs())
        return total

    assert saved(True) < 0.5 * saved(False)


@pytest.mark.slow
@pytest.mark.parametrize(("checkpointing", "given"), [(True, conditions()), (False, None)])
def test_compiles_as_one_graph(checkpointing: bool, given: dict[str, Tensor] | None) -> None:
    # One attention: compilation takes long
    network = build(**CONDITIONS, learned_variance=True, checkpointing=checkpointing, attention_levels=())
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    x, t = inputs()
    for ours, eager in zip(compiled(x, t, given)[:2], network(x, t, given)[:2], strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5)
    for ours, eager in zip(gradients(compiled, x, t, given), gradients(network, x, t, given), strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-3, atol=1e-5)


def test_copies_pickles_and_state_dicts_compute_the_same() -> None:
    network = build(**CONDITIONS, learned_variance=True)
    x, t = inputs()
    given = conditions()
    expected = network(x, t, given)

    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    loaded = build(**CONDITIONS, learned_variance=True)
    randomise(loaded, seed=1)
    loaded.load_state_dict(torch.load(file, weights_only=True))

    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), loaded):
        output = other(x, t, given)
        assert torch.equal(output.prediction, expected.prediction)
        assert torch.equal(output.variance_value, expected.variance_value)


def test_names_of_the_parameters_follow_guided_diffusion() -> None:
    network = adm_unet(**(SMALL | {"channel_mult": (1, 2)}), attention_levels=(1,))
    stems = sorted({".".join(name.split(".")[:3]) for name, _ in network.named_parameters() if "coder" in name})
    # input_blocks.1.0, .2.0 (down), .3.{0,1}; output_blocks.0.{0,1}, .1.{0,1,2 (up)}, .2.0, .3.0
    assert stems == [
        "decoder.0.0",
        "decoder.0.1",
        "decoder.1.0",
        "decoder.1.1",
        "decoder.1.2",
        "decoder.2.0",
        "decoder.3.0",
        "encoder.0.0",
        "encoder.1.0",
        "encoder.2.0",
        "encoder.2.1",
    ]
