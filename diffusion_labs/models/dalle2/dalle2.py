"""DALL-E 2 as one module."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_labs.adapters import LinearPosterior
from diffusion_labs.conditioning import negative_of, without_guidance
from diffusion_labs.models.dalle2.image_encoding import ImageEncoding
from diffusion_labs.models.dalle2.interpolation import slerp, text_difference
from diffusion_labs.models.encoders import encode_distinct
from diffusion_labs.randomness import Generators
from diffusion_labs.samplers import DDIMSampler, invert
from diffusion_labs.samplers.sampler import Sampler

Texts = str | Sequence[str] | Tensor


class DALLE2(nn.Module):
    """Text to images (arXiv 2204.06125): CLIP's embedding of the text, of an image by the prior, decoder, upsamplers.

    The stages are trained on their own. Here all of them are in eval mode, whatever mode is asked for, and nothing has
    gradients. Edits begin with an image: ``variations``, ``interpolate``, ``text_diff`` and ``super_resolution``. They
    decode without guidance and without a caption, as inversion does, for otherwise an image would not come back.

    Args:
        clip: has ``encode_image(x)``, the embeddings ``[b, d]`` of images in [-1, 1], and ``encode_text(texts)``, of
            texts or their tokens: the embeddings ``[b, d]``, all states ``[b, n, e]``, and which of these are valid.
        prior: see ``Prior``.
        decoder: makes images of ``image_embedding`` and, where its model takes them, ``text``, ``text_mask`` and
            ``text_embedding``; see ``dalle2_decoder``.
        upsamplers: each makes images of ``low_resolution``, the images before it; see ``dalle2_upsampler_256``.
        sizes: height and width of the images of the decoder and of each upsampler.
        channels: of the images.

    Raises:
        ValueError: unless there is a size for each stage.

    Example:
        >>> model = DALLE2(clip, prior, dalle2_decoder(), [dalle2_upsampler_256(), dalle2_upsampler_1024()])
        >>> images = model("a red apple", count=4, generator=seeded([1, 2, 3, 4]))
    """

    clip: Any
    prior: Any  # a Prior

    def __init__(
        self,
        clip: nn.Module,
        prior: nn.Module,
        decoder: Sampler,
        upsamplers: Sequence[Sampler] = (),
        *,
        sizes: Sequence[int] = (64, 256, 1024),
        channels: int = 3,
    ) -> None:
        super().__init__()
        if len(sizes) != 1 + len(upsamplers) or list(sizes) != sorted(set(sizes)):
            raise ValueError(
                f"sizes ({tuple(sizes)}) must be increasing, one for the decoder and one for each of the "
                f"{len(upsamplers)} upsamplers"
            )
        self.clip = clip
        self.prior = prior
        self.decoder = decoder
        self.upsamplers = nn.ModuleList(upsamplers)
        self.sizes = tuple(sizes)
        self.channels = channels
        self.train(False)

    def train(self, mode: bool = True) -> "DALLE2":
        """There is no train mode."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(
        self,
        prompts: Texts,
        count: int = 1,
        *,
        negative: Texts | None = None,
        candidates: int = 2,
        generator: Generators = None,
    ) -> Tensor:
        """Draw images.

        Args:
            prompts: a text, a list of texts, or the tokens of texts.
            count: images for each text; those of one text are beside each other.
            negative: a text, or one for each prompt, that guidance leads away from; from no text if ``None``.
            candidates: embeddings that the prior draws for each image, of which it takes the best.
            generator: one, or one for each image (``seeded``).

        Returns:
            Images in [-1, 1], ``[texts * count, c, h, w]``.
        """
        conditions = self.encode_text(prompts)
        texts = len(conditions["text"])
        if negative is not None:
            opposed = self._encode_each("negative", negative, texts)
            conditions |= {negative_of(name): value for name, value in opposed.items()}
        conditions = {name: value.repeat_interleave(count, 0) for name, value in conditions.items()}
        embedding = self.prior.sample(conditions, candidates, generator=generator)
        return self.upsample(self.decode(embedding, conditions, generator=generator), generator=generator)

    @torch.no_grad()
    def encode_text(self, prompts: Texts) -> dict[str, Tensor]:
        """The conditions ``text_embedding``, ``text`` and ``text_mask``; each distinct text is encoded once."""
        if isinstance(prompts, Tensor):
            return self._encode_text(prompts)
        return encode_distinct(self._encode_text, [prompts] if isinstance(prompts, str) else prompts)

    @torch.no_grad()
    def decode(
        self,
        embedding: Tensor,
        conditions: Mapping[str, Tensor] | None = None,
        *,
        noise: Tensor | None = None,
        sampler: Sampler | None = None,
        generator: Generators = None,
    ) -> Tensor:
        """Images of the decoder's size, of embeddings of images ``[b, d]``.

        Args:
            embedding: as CLIP gives it.
            conditions: further ones, of which the decoder gets those that it takes.
            noise: to begin with, ``[b, c, size, size]``; drawn if ``None``.
            sampler: goes from noise to images; the decoder itself if ``None``.
            generator: of the noise, and of the sampler.
        """
        sampler = self.decoder if sampler is None else sampler
        understood: frozenset[str] | None = getattr(sampler.model, "condition_names", None)
        inputs = {"image_embedding": embedding, **(conditions or {})}
        if understood is not None:
            inputs = {name: value for name, value in inputs.items() if name in understood}
        noise = self._noise(sampler, embedding, self.sizes[0], generator) if noise is None else noise
        images: Tensor = sampler(noise, conditional_inputs=inputs, generator=generator)
        return images

    @torch.no_grad()
    def upsample(self, images: Tensor, *, generator: Generators = None) -> Tensor:
        """Images of the last size, of those of any of the sizes, by the upsamplers from there on.

        Raises:
            ValueError: for images of another size.
        """
        if images.shape[-1] not in self.sizes or images.shape[-2] != images.shape[-1]:
            raise ValueError(
                f"images have shape {list(images.shape)}, but must be square with a side of {self.sizes}; resize them"
            )
        first = self.sizes.index(images.shape[-1])
        stages: list[tuple[Any, int]] = list(zip(self.upsamplers, self.sizes[1:], strict=True))
        for sampler, size in stages[first:]:
            noise = self._noise(sampler, images, size, generator)
            images = sampler(noise, conditional_inputs={"low_resolution": images}, generator=generator)
        return images

    @torch.no_grad()
    def encode(self, x: Tensor, *, steps: int | None = None, refinements: int = 0) -> ImageEncoding:
        """The embedding of images, and the noise from which the decoder makes them (section 3).

        ``decode(embedding, noise=noise, sampler=deterministic(steps))`` gives the images back, the better the more
        steps there are.

        Args:
            x: images in [-1, 1]. Of oblong ones it is the square in their centre, which is what CLIP sees; for the
                decoder it is resized to its size.
            steps: calls of the decoder; as many as it makes itself if ``None``.
            refinements: see ``invert``.
        """
        side = min(x.shape[2:])
        top, left = ((length - side) // 2 for length in x.shape[2:])
        x = x[:, :, top : top + side, left : left + side]
        embedding = self.clip.encode_image(x)
        size = (self.sizes[0],) * 2
        x = x if tuple(x.shape[2:]) == size else F.interpolate(x, size=size, mode="bilinear", antialias=True)
        conditions = {"image_embedding": embedding}
        return ImageEncoding(embedding, invert(self.deterministic(steps), x, conditions, refinements=refinements))

    @torch.no_grad()
    def variations(
        self, x: Tensor, count: int = 1, *, eta: float = 1.0, steps: int | None = None, generator: Generators = None
    ) -> Tensor:
        """Images with the embedding of others (section 3.1): at eta = 0 they are the others, reconstructed.

        Args:
            x: images in [-1, 1].
            count: variations of each image.
            eta: how much of the noise is fresh, see ``DDIMSampler``.
            steps: see ``encode``.
            generator: one, or one for each variation.
        """
        embedding, noise = (value.repeat_interleave(count, 0) for value in self.encode(x, steps=steps))
        images = self.decode(embedding, noise=noise, sampler=self._plain(eta, steps), generator=generator)
        return self.upsample(images, generator=generator)

    @torch.no_grad()
    def interpolate(
        self,
        first: Tensor,
        second: Tensor,
        theta: float | Tensor,
        *,
        noise: Tensor | None = None,
        steps: int | None = None,
        generator: Generators = None,
    ) -> Tensor:
        """Images between two (section 3.2): ``slerp`` of the embeddings, and of the noises.

        Args:
            first: images at theta = 0.
            second: images at theta = 1.
            theta: where between them, one number or one for each pair.
            noise: one noise in the place of theirs, ``[b, c, size, size]``: only the embedding changes then.
            steps: see ``encode``.
            generator: of the upsamplers.
        """
        a, b = self.encode(first, steps=steps), self.encode(second, steps=steps)
        noise = slerp(a.noise, b.noise, theta) if noise is None else noise
        return self._edited(slerp(a.embedding, b.embedding, theta), noise, steps, generator)

    @torch.no_grad()
    def text_diff(
        self,
        x: Tensor,
        before: Texts,
        after: Texts,
        theta: float | Tensor = 0.25,
        *,
        steps: int | None = None,
        generator: Generators = None,
    ) -> Tensor:
        """Images changed as one text would have to be for another (section 3.3), with their own noise.

        Args:
            x: images in [-1, 1].
            before: what they show: a text, or one for each.
            after: what they shall show.
            theta: how far, see ``text_difference``.
            steps: see ``encode``.
            generator: of the upsamplers.
        """
        embedding, noise = self.encode(x, steps=steps)
        now = self._encode_each("before", before, len(x))["text_embedding"]
        then = self._encode_each("after", after, len(x))["text_embedding"]
        return self._edited(text_difference(embedding, now, then, theta), noise, steps, generator)

    @torch.no_grad()
    def super_resolution(
        self, x: Tensor, *, noise_std: float = 0.05, steps: int | None = None, generator: Generators = None
    ) -> Tensor:
        """Large images of small ones, for which nothing was trained.

        Images of one of ``sizes`` go to the upsamplers. The decoder makes images of smaller ones, with their embedding,
        and among these such that are x where they are made as small as x again, by ``LinearPosterior``.

        Args:
            x: images in [-1, 1], of a side that divides the decoder's or is one of ``sizes``.
            noise_std: standard deviation of the faults of x.
            steps: see ``encode``.
            generator: one, or one for each image.

        Raises:
            ValueError: for images of another size.
        """
        factor, rest = divmod(self.sizes[0], x.shape[-1])
        if x.shape[-1] in self.sizes or rest or x.shape[-2] != x.shape[-1]:
            return self.upsample(x, generator=generator)
        operator = partial(F.avg_pool2d, kernel_size=factor)
        plain = self._plain(1.0, steps)
        posterior = LinearPosterior(plain.model, plain.predictor, operator, noise_std).eval()
        sampler = self._plain(1.0, steps, posterior)
        images = self.decode(self.clip.encode_image(x), {"measurement": x}, sampler=sampler, generator=generator)
        return self.upsample(images, generator=generator)

    def deterministic(self, steps: int | None = None) -> DDIMSampler:
        """The decoder without guidance and without fresh noise: what ``encode`` inverts."""
        return self._plain(0.0, steps)

    def _plain(self, eta: float, steps: int | None, model: nn.Module | None = None) -> DDIMSampler:
        decoder, model = self.decoder, without_guidance(self.decoder.model) if model is None else model
        sampler = DDIMSampler(model, decoder.schedule, decoder.predictor, eta=eta, progress_bar=decoder.progress_bar)
        sampler.grid, sampler.eval_steps = decoder.grid, decoder.eval_steps if steps is None else steps
        sampler.training = False
        return sampler

    def _edited(self, embedding: Tensor, noise: Tensor, steps: int | None, generator: Generators) -> Tensor:
        images = self.decode(embedding, noise=noise, sampler=self.deterministic(steps))
        return self.upsample(images, generator=generator)

    def _encode_each(self, name: str, texts: Texts, count: int) -> dict[str, Tensor]:
        encoded = self.encode_text(texts)
        if len(encoded["text"]) not in (1, count):
            raise ValueError(f"{name} has {len(encoded['text'])} texts, but must be one, or {count}: one for each")
        return {key: value.expand(count, *value.shape[1:]) for key, value in encoded.items()}

    def _encode_text(self, texts: Tensor | Sequence[str]) -> dict[str, Tensor]:
        return dict(zip(("text_embedding", "text", "text_mask"), self.clip.encode_text(texts), strict=True))

    def _noise(self, sampler: Sampler, like: Tensor, size: int, generator: Generators) -> Tensor:
        shape = (len(like), self.channels, size, size)
        return sampler.schedule.sample_prior(shape, generator, dtype=like.dtype, device=like.device)
