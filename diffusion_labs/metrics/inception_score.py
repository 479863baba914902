"""How clear and how varied a classifier finds samples."""

import math

import torch
from torch import Tensor


def inception_score(log_probabilities: Tensor) -> float:
    """``exp(mean_x KL(p(y | x) || p(y)))``, with p(y) the mean of p(y | x) (arXiv 1606.03498, section 4).

    From 1, if the classifier tells samples not apart, to the number of classes, if it is sure of each and they are
    equally many. By the name of its paper, it is of Inception's classes; with another classifier it is comparable only
    to itself.

    Args:
        log_probabilities: of the classes, ``[n, classes]``.

    Raises:
        ValueError: if they are not log-probabilities.

    Example:
        >>> round(inception_score(torch.eye(4).log()), 6)
        4.0
    """
    log_p = log_probabilities.detach().cpu().double()
    total = log_p.exp().sum(-1)
    if log_p.ndim != 2 or not len(log_p) or not torch.allclose(total, torch.ones_like(total), rtol=0, atol=1e-2):
        raise ValueError(f"log_probabilities {list(log_p.shape)} must be [n, classes], each row of the sum 1 after exp")
    p = log_p.exp()
    marginal = p.mean(0)
    terms = p.xlogy(p) - p.xlogy(marginal)
    return math.exp(terms.sum(1).mean().item())
