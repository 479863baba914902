"""Weights of torchmultimodal's networks, which are stated here a second time with its names of parameters."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import diffusion_labs as dl
from tests.catalogue import randomise


class Block(nn.Module):
    """A residual block; ``released`` is the first version, whose norm is within ``out_block``."""

    def __init__(self, c: int, o: int, embed: int | None, resample: nn.Module, released: bool, eps: float) -> None:
        super().__init__()
        if embed is not None:
            self.cond_proj = nn.Sequential(nn.SiLU(), nn.Linear(embed, 2 * o))
        self.in_block = nn.Sequential(nn.GroupNorm(32, c, eps), nn.SiLU(), resample, nn.Conv2d(c, o, 3, padding=1))
        norm, rest = nn.GroupNorm(32, o, eps), [nn.SiLU(), nn.Dropout(0.1), nn.Conv2d(o, o, 3, padding=1)]
        if released:
            self.out_block = nn.Sequential(norm, *rest)
        else:
            self.out_group_norm, self.out_block = norm, nn.Sequential(*rest)
        self.skip_block = nn.Sequential(resample, nn.Identity() if c == o else nn.Conv2d(c, o, 1))

    def forward(self, x: Tensor, embedding: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        layers = list(self.out_block)
        norm = layers.pop(0) if len(layers) == 4 else self.out_group_norm
        h = norm(self.in_block(x))
        if embedding is not None:
            scale, shift = self.cond_proj(embedding)[:, :, None, None].chunk(2, 1)
            h = h * (1 + scale) + shift
        return self.skip_block(x) + nn.Sequential(*layers)(h)


class Attention(nn.Module):
    def __init__(self, c: int, context_dim: int | None) -> None:
        super().__init__()
        self.norm, self.attn = nn.GroupNorm(32, c), nn.Module()
        for name in ("query", "key", "value", "output"):
            setattr(self.attn, name, nn.Linear(c, c))
        self.attn.attn = nn.Module()
        if context_dim is not None:
            self.attn.attn.cond_proj = nn.Linear(context_dim, 2 * c)

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        h = self.norm(x).flatten(2).mT
        q, k, v = self.attn.query(h), self.attn.key(h), self.attn.value(h)
        if context is not None:
            more_k, more_v = self.attn.attn.cond_proj(context).chunk(2, 2)
            k, v = torch.cat([more_k, k], 1), torch.cat([more_v, v], 1)
        shares = (q @ k.mT / math.sqrt(q.shape[2])).softmax(2)
        return x + self.attn.output(shares @ v).mT.reshape(x.shape)


class Plain(nn.Sequential):
    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        return super().forward(x)


class PlainConvolution(nn.Conv2d):
    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        return super().forward(x)


class Stack(nn.Module):
    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self._module_list = nn.ModuleList(blocks)

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        for block in self._module_list:
            x = block(x, embedding, context)
        return x


class UNet(nn.Module):
    """Two levels of one block, the second with attention."""

    def __init__(self, *, embed: int = 24, time: int = 20, clip: int | None = 6, released: bool = False) -> None:
        super().__init__()
        context = None if clip is None else embed
        self.timestep_encoder = nn.Sequential(nn.Identity(), nn.Linear(time, embed), nn.SiLU(), nn.Linear(embed, embed))
        if clip is not None:
            self.res_cond_proj = nn.ModuleDict({"clip_image": nn.Linear(clip, embed)})
            tokens = nn.Sequential(nn.Linear(clip, 4 * embed), nn.Unflatten(-1, (4, embed)))
            self.attn_cond_proj = nn.ModuleDict({"clip_image": tokens})

        def block(c: int, o: int, resample: nn.Module | None = None) -> Block:
            return Block(c, o, embed, resample or nn.Identity(), released, 1e-5)

        down, up = nn.AvgPool2d(2), nn.Upsample(scale_factor=2)
        self.down = nn.ModuleList(
            [
                Stack(PlainConvolution(3, 32, 3, padding=1)),
                Stack(block(32, 32)),
                Stack(block(32, 32, down)),
                Stack(block(32, 64), Attention(64, context)),
            ]
        )
        self.bottleneck = Stack(block(64, 64), Attention(64, context), block(64, 64))
        self.up = nn.ModuleList(
            [
                Stack(block(128, 64), Attention(64, context)),
                Stack(block(96, 64), Attention(64, context), block(64, 64, up)),
                Stack(block(96, 32)),
                Stack(block(64, 32)),
                Stack(Plain(nn.GroupNorm(32, 32), nn.SiLU(), nn.Conv2d(32, 6, 3, padding=1))),
            ]
        )

    def forward(self, x: Tensor, t: Tensor, clip: Tensor | None = None) -> Tensor:
        half = self.timestep_encoder[1].in_features // 2
        angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))
        embedding = self.timestep_encoder(torch.cat([angles.sin(), angles.cos()], 1))
        context = None
        if clip is not None:
            embedding = embedding + self.res_cond_proj["clip_image"](clip)
            context = self.attn_cond_proj["clip_image"](clip)
        skips = []
        for stage in self.down:
            x = stage(x, embedding, context)
            skips.append(x)
        x = self.bottleneck(x, embedding, context)
        for stage in self.up:
            x = stage(torch.cat([x, skips.pop()], 1) if skips else x, embedding, context)
        return x


SIZES = {"model_channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1, "attention_levels": (1,), "dropout": 0.1}
SIZES |= {"learned_variance": True, "time_shift": 1, "time_dim": 20, "embed_dim": 24}
CLIP = {"vectors": {"clip_image": 6}, "vector_tokens": {"clip_image": 4}}


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("layout", ["last", "first", "decoder"])
def test_unet(layout: str, conditional: bool, tmp_path: Path) -> None:
    """By itself, in its first spelling, and within the sampler and guidance of its DALL-E 2 decoder."""
    theirs = randomise(UNet(clip=6 if conditional else None, released=layout == "first")).eval()
    weights = dict(theirs.state_dict())
    whole = weights
    if layout == "decoder":
        whole = {f"model.model.{key}": value for key, value in weights.items()}
        whole |= {"model.train_unconditional_embedding.clip_image": torch.rand(1, 6), "schedule.betas": torch.rand(9)}
    torch.save(whole, tmp_path / "weights.pt")
    ours = randomise(dl.adm_unet(**SIZES, **(CLIP if conditional else {})), seed=1).eval()
    assert dl.load_torchmultimodal_unet(ours, tmp_path / "weights.pt") == ([], [])

    x, t, clip = torch.randn(2, 3, 8, 8), torch.tensor([3, 900]), torch.randn(2, 6) if conditional else None
    with torch.no_grad():
        expected = theirs(x, t, clip)
        output = ours(x, t, {"clip_image": clip} if conditional else None)
    assert expected.std() > 0.1
    assert (output.prediction - expected[:, :3]).abs().max() < 1e-5
    assert (output.variance_value - (expected[:, 3:] + 1) / 2).abs().max() < 1e-5

    back = dl.to_torchmultimodal_unet(ours)
    if layout != "first":
        assert back.keys() == weights.keys()
        assert all(torch.equal(back[key], value) for key, value in weights.items())
    again = dl.adm_unet(**SIZES, **(CLIP if conditional else {}))
    dl.load_torchmultimodal_unet(again, back)
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in again.state_dict().items())


def test_its_decoder_has_all_names() -> None:
    with torch.device("meta"):
        model = dl.adm_unet(
            in_channels=4,
            model_channels=512,
            channel_mult=(1, 2, 3, 4),
            num_res_blocks=3,
            attention_levels=(1, 2, 3),
            learned_variance=True,
            dropout=0.1,
            time_shift=1,
            vectors={"clip_image": 768},
            vector_tokens={"clip_image": 4},
        )
    weights = dl.to_torchmultimodal_unet(model)
    assert weights["timestep_encoder.1.weight"].shape == (2048, 512)
    assert weights["attn_cond_proj.clip_image.0.weight"].shape == (4 * 2048, 768)
    assert weights["down.15._module_list.1.attn.attn.cond_proj.weight"].shape == (2 * 2048, 2048)
    assert weights["up.16._module_list.0.2.weight"].shape == (8, 512, 3, 3)


@pytest.mark.parametrize("change", [{"time_shift": 0}, {"time_scale": 1000.0}, {"num_heads": 2}])
def test_networks_that_compute_otherwise_are_refused(change: dict) -> None:
    model = dl.adm_unet(**{**SIZES, **change})
    for action in (lambda: dl.to_torchmultimodal_unet(model), lambda: dl.load_torchmultimodal_unet(model, {})):
        with pytest.raises(ValueError, match="torchmultimodal computes with one head, and the sinusoids of DDPM"):
            action()


def test_missing_weights_are_named() -> None:
    weights = UNet().state_dict()
    del weights["bottleneck._module_list.1.attn.key.bias"]
    with pytest.raises(ValueError, match=r"1 missing: \['bottleneck._module_list.1.attn.query,key,value.bias'\]"):
        dl.load_torchmultimodal_unet(dl.adm_unet(**SIZES, **CLIP), weights)


# The autoencoder


class PositionAttention(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.net = nn.Module()
        self.net.norm, self.net.attn, self.net.out = nn.GroupNorm(32, c, 1e-6), nn.Module(), nn.Conv2d(c, c, 1)
        for name in ("query", "key", "value"):
            setattr(self.net.attn, name, nn.Conv2d(c, c, 1))

    def forward(self, x: Tensor) -> Tensor:
        attn, h = self.net.attn, self.net.norm(x)
        q, k, v = (layer(h).flatten(2) for layer in (attn.query, attn.key, attn.value))
        shares = (q.mT @ k / math.sqrt(q.shape[1])).softmax(2)
        return x + self.net.out((v @ shares.mT).reshape(x.shape))


class Down(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.op = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(c, c, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Up(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class VAE(nn.Module):
    """Two levels; z has 3 channels, and its embedding 5."""

    def __init__(self, *, alpha: bool) -> None:
        super().__init__()

        def block(c: int, o: int) -> Block:
            return Block(c, o, None, nn.Identity(), False, 1e-6)

        def middle() -> nn.Sequential:
            return nn.Sequential(block(64, 64), PositionAttention(64), block(64, 64))

        encoder, decoder = nn.Module(), nn.Module()
        encoder.init_conv = nn.Conv2d(3, 32, 3, padding=1)
        encoder.down_block = nn.Sequential(
            nn.Sequential(block(32, 32), block(32, 32), Down(32)), nn.Sequential(block(32, 64), block(64, 64))
        )
        encoder.mid_block = middle()
        encoder.out_block = nn.Sequential(nn.GroupNorm(32, 64, 1e-6), nn.SiLU(), nn.Conv2d(64, 6, 3, padding=1))
        decoder.init_conv = nn.Conv2d(3, 64, 3, padding=1)
        decoder.mid_block = middle()
        decoder.up_block = nn.Sequential(
            nn.Sequential(block(64, 64), block(64, 64), block(64, 64), Up(64)),
            nn.Sequential(block(64, 32), block(32, 32), block(32, 32)),
        )
        decoder.out_nonlinearity_block = nn.Sequential(nn.GroupNorm(32, 32, 1e-6), nn.SiLU())
        decoder.conv_out = nn.Conv2d(32, 3, 3, padding=1)
        if alpha:
            decoder.alpha_conv_out = nn.Conv2d(32, 1, 3, padding=1)
        self.encoder = nn.ModuleDict({"resnet_encoder": encoder, "quant_conv": nn.Conv2d(6, 10, 1)})
        self.decoder = nn.ModuleDict({"post_quant_conv": nn.Conv2d(5, 3, 1), "resnet_decoder": decoder})

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        net = self.encoder["resnet_encoder"]
        h = net.out_block(net.mid_block(net.down_block(net.init_conv(x))))
        return self.encoder["quant_conv"](h).chunk(2, 1)

    def decode(self, z: Tensor) -> Tensor:
        net = self.decoder["resnet_decoder"]
        h = net.mid_block(net.init_conv(self.decoder["post_quant_conv"](z)))
        h = net.out_nonlinearity_block(net.up_block(h))
        heads = [net.conv_out, *([net.alpha_conv_out] if hasattr(net, "alpha_conv_out") else [])]
        return torch.cat([head(h) for head in heads], 1)


@pytest.mark.parametrize("alpha", [False, True])
def test_autoencoder(alpha: bool, tmp_path: Path) -> None:
    theirs = randomise(VAE(alpha=alpha)).eval()
    torch.save(theirs.state_dict(), tmp_path / "vae.pt")
    sizes = {"out_channels": 3 + alpha, "channels": (32, 64), "latent_channels": 5, "encoder_channels": 3}
    ours = randomise(dl.autoencoder_kl(**sizes), seed=1).eval()
    assert dl.load_torchmultimodal_autoencoder(ours, tmp_path / "vae.pt") == ([], [])

    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        mean, log_variance = theirs.encode(x)
        posterior = ours.encode(x)
        assert (posterior.mean - mean).abs().max() < 1e-5
        assert (posterior.log_variance - log_variance.clamp(-30, 20)).abs().max() < 1e-5
        image = theirs.decode(mean)
        assert image.std() > 0.1
        assert (ours.decode(mean) - image).abs().max() < 1e-5

    back = dl.to_torchmultimodal_autoencoder(ours, alpha=alpha)
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[key], value) for key, value in theirs.state_dict().items())
