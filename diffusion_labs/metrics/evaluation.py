"""All measures of images at once, beside what real images reach."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_labs.metrics.extractors import FeatureExtractor, to_bytes
from diffusion_labs.metrics.frechet import frechet_distance
from diffusion_labs.metrics.inception_score import inception_score
from diffusion_labs.metrics.interval import Interval, jackknife, jackknife_all, share_interval
from diffusion_labs.metrics.kernel_distance import kernel_distance
from diffusion_labs.metrics.neighbours import NeighbourMeasures, copied_share, nearest, neighbour_measures

GROUPS = 10  # of the jackknife


@dataclass(frozen=True)
class Measured:
    """A figure of samples.

    Attributes:
        samples: that of the samples.
        real: that of as many other real images: what a perfect model reaches.
    """

    samples: Interval
    real: float


@dataclass(frozen=True)
class Evaluation:
    """The figures of some samples.

    Attributes:
        measures: by name.
        count: how many samples, and how many real images, each was measured with.
        extractor: what features they are of.
        level: of the confidence intervals.
    """

    measures: dict[str, Measured]
    count: int
    extractor: str
    level: float

    def as_data(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        measures = {
            name: {**measured.samples._asdict(), "real": measured.real} for name, measured in self.measures.items()
        }
        return {"measures": measures, "count": self.count, "extractor": self.extractor, "level": self.level}


def check_counts(samples: int, real: int, neighbours: int = 5) -> None:
    """Raise a ``ValueError`` if they are too few for ``evaluate``."""
    least = max(GROUPS, neighbours + 3)
    if samples < least or real < 2 * least:
        raise ValueError(
            f"{samples} samples and {real} real images are too few; give at least {least} samples and twice as many "
            "real images"
        )


def evaluate(
    samples: Tensor,
    real: Tensor,
    extractor: FeatureExtractor,
    *,
    neighbours: int = 5,
    level: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Compare samples with one half of the real images, and as many of the other half with it, too.

    All measures are of as many samples as real images, since most depend on their number: n is that of the samples, or
    half of the real images if those are fewer. The measures are ``frechet_distance``, ``kernel_distance``,
    ``precision``, ``recall``, ``density`` and ``coverage`` of the features, ``inception_score`` where the extractor has
    classes, and ``copied``, the share of samples that are copies of one of all real images, by pixels. Where the
    interval holds the value of the other real images, the samples are as good as can be told from so many; that of the
    inception score, which has no real images in it, is made wider by how sure their value is.

    Intervals are around the value for n images, not around that for all: a Frechet distance falls with n, and says
    something beside that of the other real images alone. See ``bias_corrected``.

    Args:
        samples: ``[n, c, h, w]``, uint8, or float in [-1, 1].
        real: like them, of the data that the model was trained on.
        extractor: of the features.
        neighbours: see ``neighbour_measures``.
        level: of the confidence intervals, see ``jackknife``.
        seed: of the halves and the groups of the jackknife.

    Raises:
        ValueError: if shapes differ, or there are too few images.
    """
    if samples.ndim != 4 or samples.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"samples {list(samples.shape)} and real images {list(real.shape)} must be [n, c, h, w] of one size"
        )
    check_counts(len(samples), len(real), neighbours)
    count = min(len(samples), len(real) // 2)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(real), generator=generator)
    samples, real = to_bytes(samples), to_bytes(real)
    half, other, samples = real[order[:count]], real[order[count : 2 * count]], samples[:count]
    reference, like_samples, found = (extractor.features(images) for images in (half, other, samples))
    interval = partial(jackknife, level=level, groups=GROUPS, generator=generator)

    def against(measure: Callable[[Tensor, Tensor], float]) -> Measured:
        return Measured(interval(measure, reference, found), measure(reference, like_samples))

    frechet = against(frechet_distance)
    measures = {
        "frechet_distance": Measured(frechet.samples.within(0.0), frechet.real),
        "kernel_distance": against(kernel_distance),
    }
    by_neighbours = partial(neighbour_measures, neighbours=neighbours)
    of_samples = jackknife_all(by_neighbours, reference, found, level=level, groups=GROUPS, generator=generator)
    of_real = by_neighbours(reference, like_samples)
    for name, of_sample, of_other in zip(NeighbourMeasures._fields, of_samples, of_real, strict=True):
        shown = of_sample.within(0.0) if name == "density" else at_least_binomial(of_sample, count, level)
        measures[name] = Measured(shown, of_other)
    log_p, real_log_p = extractor.log_probabilities(samples), extractor.log_probabilities(other)
    if log_p is not None and real_log_p is not None:
        score = inception_score(real_log_p)
        more = interval(lambda a, b: inception_score(a) - inception_score(b), log_p, real_log_p)
        of_both = Interval(*(end + score for end in more))
        measures["inception_score"] = Measured(of_both.within(1.0, log_p.shape[1]), score)
    others = torch.cat([real[order[:count]], real[order[2 * count :]]])
    ratios, real_ratios = nearest(samples, real).ratios, nearest(other, others).ratios
    measures["copied"] = Measured(share_interval(copied_share(ratios), count, level), copied_share(real_ratios))
    return Evaluation(measures, count, extractor.name, level)


def at_least_binomial(share: Interval, count: int, level: float) -> Interval:
    """A share of ``count`` by the jackknife, with an interval that is not narrower than if they were independent.

    Where all of them or none are counted, the jackknife finds no variance.
    """
    least = share_interval(share.value, count, level)
    return share._replace(low=min(share.low, least.low), high=max(share.high, least.high)).within(0.0, 1.0)
