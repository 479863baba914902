"""The autoencoders: sizes of the released ones, closed forms, brute force, and what they refuse."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, distributions, nn

import diffusion_labs as dl
from diffusion_labs.layers import Downsample, GroupNorm
from diffusion_labs.models.autoencoder.blocks import AttentionBlock, ResBlock
from tests.catalogue import randomise, tiny_kl, tiny_vq

# Parameters of encoder and decoder in millions, pixels a side of a latent, latent channels, codes
RELEASED = {
    "kl_f4": (55.3, 4, 3, None),
    "kl_f8": (83.7, 8, 4, None),
    "kl_f16": (69.6, 16, 16, None),
    "kl_f32": (103.9, 32, 64, None),
    "vq_f4": (55.3, 4, 3, 8192),
    "vq_f4_noattn": (53.2, 4, 3, 8192),
    "vq_f8": (67.7, 8, 4, 16384),
    "vq_f8_n256": (67.7, 8, 4, 256),
    "vq_f16": (69.5, 16, 8, 16384),
}


@pytest.mark.parametrize("name", RELEASED)
def test_sizes_of_the_released_models(name: str) -> None:
    millions, factor, latent_channels, num_codes = RELEASED[name]
    with torch.device("meta"):
        model = getattr(dl, name)()
    count = sum(p.numel() for part in (model.encoder, model.decoder) for p in part.parameters())
    assert round(count / 1e6, 1) == millions
    assert (model.factor, model.latent_channels) == (factor, latent_channels)
    assert model.quant_conv.out_channels == latent_channels * (1 if num_codes else 2)
    assert 2 ** sum(isinstance(module, Downsample) for module in model.modules()) == factor
    if num_codes:
        assert model.quantizer.codebook.shape == (num_codes, latent_channels)
    attention = [module for module in model.modules() if isinstance(module, AttentionBlock)]
    assert (len(attention) == 0) == (name == "vq_f4_noattn")


def test_the_autoencoder_of_stable_diffusion_to_the_parameter() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in dl.kl_f8().parameters()) == 83_653_863


def gaussian(seed: int) -> dl.DiagonalGaussian:
    generator = torch.Generator().manual_seed(seed)
    return dl.DiagonalGaussian.of(torch.randn(3, 8, 2, 5, generator=generator, dtype=torch.float64))


def torch_normal(g: dl.DiagonalGaussian) -> distributions.Independent:
    return distributions.Independent(distributions.Normal(g.mean, g.std), 3)


def test_gaussian_against_torch() -> None:
    p, q = gaussian(1), gaussian(2)
    normal = dl.DiagonalGaussian(torch.zeros_like(p.mean), torch.zeros_like(p.mean))
    kl = distributions.kl_divergence
    x = torch.randn_like(p.mean)
    torch.testing.assert_close(p.kl(q), kl(torch_normal(p), torch_normal(q)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p.kl(), kl(torch_normal(p), torch_normal(normal)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p.nll(x), -torch_normal(p).log_prob(x), rtol=1e-12, atol=1e-12)
    assert p.kl(p).abs().max() == 0
    assert torch.equal(p.mode(), p.mean)


def test_gaussian_clamps_the_log_variance() -> None:
    parameters = torch.tensor([1.0, -2.0, -31.0, 21.0])[None, :, None]
    g = dl.DiagonalGaussian.of(parameters)
    assert g.mean.flatten().tolist() == [1, -2]
    assert g.log_variance.flatten().tolist() == [-30, 20]


def test_samples_have_the_moments_and_the_seeds_of_the_gaussian() -> None:
    g = gaussian(3)
    many = dl.DiagonalGaussian(*(v[:1].expand(20_000, -1, -1, -1) for v in g))
    z = many.sample(torch.Generator().manual_seed(0))
    assert ((z.mean(0) - g.mean[0]) / g.std[0]).abs().max() < 5 / 20_000**0.5
    assert (z.std(0) / g.std[0] - 1).abs().max() < 5 / 40_000**0.5

    one_by_one = g.sample(dl.seeded([5, 6, 7]))
    alone = dl.DiagonalGaussian(*(v[1:2] for v in g)).sample(dl.seeded([6]))
    assert torch.equal(one_by_one[1:2], alone)
    single = dl.DiagonalGaussian(*(v.float() for v in g)).sample(dl.seeded([5, 6, 7]))
    torch.testing.assert_close(single.double(), one_by_one, rtol=1e-5, atol=1e-5)


def test_gradients_of_a_sample_reach_both_moments() -> None:
    parameters = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    g = dl.DiagonalGaussian.of(parameters)
    z = g.sample(torch.Generator().manual_seed(0))
    z.sum().backward()
    expected = torch.cat([torch.ones_like(g.mean), 0.5 * (z - g.mean)], dim=1)
    torch.testing.assert_close(parameters.grad, expected)


def quantized() -> tuple[dl.VectorQuantizer, Tensor]:
    quantizer = dl.VectorQuantizer(37, 3, codebook_weight=0.3, commitment_weight=0.7).double()
    nn.init.normal_(quantizer.codebook)
    return quantizer, torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)


def test_the_nearest_code_by_brute_force() -> None:
    quantizer, h = quantized()
    indices = quantizer(h).indices
    for b, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(5)).tolist():
        distances = (quantizer.codebook - h[b, :, i, j]).square().sum(1)
        assert indices[b, i, j] == distances.argmin()
        torch.testing.assert_close(quantizer(h).z[b, :, i, j], quantizer.codebook[indices[b, i, j]])


def test_codes_are_told_apart_far_from_the_origin() -> None:
    """Where ``|h|^2`` is large, its rounding in float32 would hide which code is nearer."""
    quantizer = dl.VectorQuantizer(2, 1)
    quantizer.codebook.data.copy_(torch.tensor([[-1e-3], [1e-3]]))
    assert quantizer.nearest(torch.tensor([[[1e3, -1e3]]])).tolist() == [[1, 0]]


def test_gradients_pass_the_quantisation_and_the_loss_moves_both_sides() -> None:
    quantizer, h = quantized()
    weights = torch.randn_like(h)
    output = quantizer(h)
    (grad,) = torch.autograd.grad((output.z * weights).sum(), h, retain_graph=True)
    assert torch.equal(grad, weights)  # straight through

    e = quantizer.codebook[output.indices].movedim(-1, 1)
    torch.testing.assert_close(output.loss, (e - h).square().mean())  # the weights sum to 1
    of_h, of_codes = torch.autograd.grad(output.loss, [h, quantizer.codebook])
    torch.testing.assert_close(of_h, 0.7 * 2 * (h - e) / h.numel())
    expected = torch.zeros_like(quantizer.codebook)
    flat = (0.3 * 2 * (e - h) / h.numel()).movedim(1, -1).reshape(-1, 3)
    expected.index_add_(0, output.indices.flatten(), flat.detach())
    torch.testing.assert_close(of_codes, expected)


def test_usage_of_codes() -> None:
    even = dl.code_usage(torch.arange(12).reshape(3, 4) % 6, 6)
    assert even.perplexity == pytest.approx(6)
    assert even.used == 1
    one = dl.code_usage(torch.full((5,), 2), 6)
    assert one.perplexity == 1
    assert one.used == pytest.approx(1 / 6)
    skewed = dl.code_usage(torch.tensor([0, 0, 0, 1]), 4)
    assert skewed.perplexity == pytest.approx(4 / 27**0.25)
    assert skewed.used == 0.5
    with pytest.raises(ValueError, match=r"indices has 6, but must be below num_codes \(6\)"):
        dl.code_usage(torch.tensor([6]), 6)


def test_forward_is_encode_sample_decode() -> None:
    model, x = tiny_kl(), torch.randn(2, 1, 8, 8)
    output = model(x, dl.seeded([1, 2]))
    posterior = model.encode(x)
    assert torch.equal(output.posterior.mean, posterior.mean)
    assert torch.equal(output.reconstruction, model.decode(posterior.sample(dl.seeded([1, 2]))))
    assert torch.equal(output.reconstruction, model.eval()(x, dl.seeded([1, 2])).reconstruction)


def test_a_quantised_forward_is_encode_decode_and_codes_are_enough() -> None:
    model, x = tiny_vq(), torch.randn(2, 1, 8, 8)
    output = model(x)
    h = model.encode(x)
    assert output.quantized.indices.unique().numel() > 1
    assert torch.equal(output.reconstruction, model.decode(h))
    torch.testing.assert_close(model.decode_indices(output.quantized.indices), output.reconstruction)
    assert not torch.allclose(h, output.quantized.z)  # encode does not quantise


def test_blocks_against_their_formulas() -> None:
    x = torch.randn(2, 8, 5, 3, dtype=torch.float64)
    block = randomise(ResBlock(8, 12, num_groups=4)).double()

    def norm(module: GroupNorm, value: Tensor) -> Tensor:
        return F.group_norm(value, 4, module.weight, module.bias, 1e-6)

    h = F.silu(norm(block.norm_in, x))
    h = F.silu(norm(block.norm_out, block.conv_in(h)))
    torch.testing.assert_close(block(x), block.skip(x) + block.conv_out(h))

    attention = randomise(AttentionBlock(8, num_groups=4)).double()
    h = norm(attention.norm, x)
    q, k, v = (layer(h) for layer in (attention.q, attention.k, attention.v))
    weights = torch.einsum("bcij,bckl->bijkl", q, k).div(8**0.5).flatten(3).softmax(-1).unflatten(3, (5, 3))
    expected = x + attention.proj_out(torch.einsum("bijkl,bckl->bcij", weights, v))
    torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize("dims", [1, 3])
def test_other_numbers_of_dimensions_equal_images_that_are_constant_along_them(dims: int) -> None:
    """A convolution in 2 dimensions of weights that read the middle row alone is one in 1 dimension."""
    sizes = {"num_groups": 4, "attention_levels": (1,), "channels": (8, 8)}
    low, high = sorted([dims, 2])
    small, large = tiny_kl(dims=low, **sizes).double(), tiny_kl(dims=high, **sizes).double()
    state = large.state_dict()
    for key, value in small.state_dict().items():
        if value.dim() == low + 2:
            wide = torch.zeros_like(state[key])
            wide[:, :, min(1, state[key].shape[2] - 1)] = value
            value = wide
        state[key] = value
    large.load_state_dict(state)
    x = torch.randn(2, 1, *[4] * low, dtype=torch.float64)
    z = small.encode(x).mode()
    repeated = x.unsqueeze(2).expand(2, 1, 4, *[4] * low)
    torch.testing.assert_close(large.encode(repeated).mode(), z.unsqueeze(2).expand(*z.shape[:2], 2, *z.shape[2:]))
    torch.testing.assert_close(
        large.decode(z.unsqueeze(2).expand(*z.shape[:2], 2, *z.shape[2:])),
        small.decode(z).unsqueeze(2).expand(2, 1, 4, *[4] * low),
    )


def test_downsampling_pads_after_the_image_alone() -> None:
    """A latent of the first level sees its own two pixels and the next one, as in the released weights."""
    model = dl.autoencoder_kl(
        in_channels=1, channels=(4, 4), latent_channels=1, num_res_blocks=1, middle_attention=False, num_groups=1
    )
    down = model.encoder.levels[0].resample
    x = torch.zeros(1, 4, 8, 8, requires_grad=True)
    down(x)[0, 0, 1, 2].backward()
    rows, columns = (x.grad.abs().sum((0, 1)) > 0).nonzero().unbind(1)
    assert rows.unique().tolist() == [2, 3, 4]
    assert columns.unique().tolist() == [4, 5, 6]


def test_half_precision_weights_take_and_give_float32() -> None:
    x = torch.randn(1, 1, 8, 8)
    for model in (tiny_kl(), tiny_vq()):
        expected = model(x, *[dl.seeded([0])] * isinstance(model, dl.AutoencoderKL)).reconstruction
        half = model.to(torch.bfloat16)(x, *[dl.seeded([0])] * isinstance(model, dl.AutoencoderKL)).reconstruction
        assert half.dtype == torch.float32
        assert (half - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tiny_kl(channels=()), r"channels \(\(\)\) must hold at least one level"),
        (lambda: tiny_kl(num_res_blocks=0), r"num_res_blocks \(0\) must be at least 1"),
        (lambda: tiny_kl(attention_levels=(2,)), r"attention_levels \(\(2,\)\) must be between 0 and 1"),
        (lambda: tiny_kl(num_groups=5), r"num_groups \(5\) must divide num_channels \(8\)"),
        (lambda: tiny_kl(dims=4), r"dims \(4\) must be 1, 2 or 3"),
        (
            lambda: tiny_kl(quant_conv=False, encoder_channels=5),
            r"encoder_channels \(5\) must be latent_channels \(3\) without quant_conv",
        ),
        (lambda: dl.VectorQuantizer(0, 3), r"num_codes \(0\) must be at least 1"),
        (lambda: tiny_kl().encode(torch.zeros(1, 1, 8, 7)), r"x has size \[8, 7\], .* multiple of 2"),
        (lambda: tiny_kl().encode(torch.zeros(1, 2, 8, 8)), r"x has shape \[1, 2, 8, 8\], .* \[b, 1, side, side\]"),
        (lambda: tiny_kl().encode(torch.zeros(1, 8, 8)), r"x has shape \[1, 8, 8\]"),
        (lambda: tiny_kl().decode(torch.zeros(1, 4, 8, 8)), r"z has shape \[1, 4, 8, 8\], .* \[b, 3, side, side\]"),
        (lambda: tiny_vq().decode(torch.zeros(1, 4, 8, 8)), r"h has shape \[1, 4, 8, 8\], .* \[b, 3, side, side\]"),
    ],
)
def test_errors_name_the_value_and_the_rule(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_integer_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x has dtype torch.uint8, but must be floating point"):
        tiny_kl().describe(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


def test_every_autoencoder_has_a_posterior_and_that_of_codes_is_a_point() -> None:
    x = torch.randn(2, 1, 8, 8)
    kl, vq = tiny_kl(), tiny_vq()
    for actual, expected in zip(kl.posterior(x), kl.encode(x), strict=True):
        assert torch.equal(actual, expected)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        point = dl.DiagonalGaussian.point(vq.encode(x).detach().to(dtype))
        assert torch.equal(point.sample(), point.mean)
        assert point.log_variance.isfinite().all()
    assert torch.equal(vq.posterior(x).sample(), vq.encode(x))
