"""Ways between embeddings, and between noises."""

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST_SINE = 1e-6  # below, the way between two directions is a line, or any


def slerp(
    first: Float[Tensor, "b *d"], second: Float[Tensor, "b *d"], theta: float | Float[Tensor, " b"]
) -> Float[Tensor, "b *d"]:
    """Spherical interpolation: the direction turns evenly, and the norm goes on a line.

    ``sin((1 - theta) omega) / sin(omega) u + sin(theta omega) / sin(omega) v``, with u and v the directions of the two
    and omega the angle between them, of each sample on its own (Shoemake, Animating Rotation with Quaternion Curves).
    Where sin(omega) is nearly 0, or a vector is, it is linear interpolation. So embeddings of norm 1 stay at norm 1,
    and raw ones have a norm between those of the two.

    Args:
        first: at theta = 0.
        second: at theta = 1.
        theta: one number, or one for each sample.
    """
    shape = [-1, *[1] * (first.ndim - 1)]
    share = torch.as_tensor(theta, dtype=torch.float64, device=first.device).reshape(shape)
    u, v = first.double().flatten(1), second.double().flatten(1)
    norms = [value.norm(dim=1).reshape(shape) for value in (u, v)]
    u, v = (
        value.double() / norm.clamp(min=torch.finfo(torch.float64).tiny)
        for value, norm in zip((first, second), norms, strict=True)
    )
    omega = torch.acos((u * v).flatten(1).sum(1).clamp(-1, 1)).reshape(shape)

    sine = omega.sin()
    near = (sine < SMALLEST_SINE) | (norms[0] == 0) | (norms[1] == 0)
    sine = torch.where(near, 1.0, sine)
    turned = ((1 - share) * omega).sin() / sine * u + (share * omega).sin() / sine * v
    norm = (1 - share) * norms[0] + share * norms[1]
    line = (1 - share) * first.double() + share * second.double()
    return torch.where(near, line, norm * turned).to(first.dtype)


def text_difference(
    z: Float[Tensor, "b d"],
    before: Float[Tensor, "b d"],
    after: Float[Tensor, "b d"],
    theta: float | Float[Tensor, " b"],
) -> Float[Tensor, "b d"]:
    """Turn embeddings of images towards the direction from one text to another, at their norm.

    ``slerp(z, |z| (after - before) / |after - before|, theta)``, DALL-E 2, arXiv 2204.06125, section 3.3 ("text
    diffs"). Where the two texts are one, there is no direction, and z stays.

    Args:
        z: embeddings of images.
        before: embeddings of texts that describe them.
        after: embeddings of texts that describe what they shall become.
        theta: how far, 0 for not at all; the paper goes up to a number in [0.25, 0.5].
    """
    difference = after - before
    direction = torch.nn.functional.normalize(difference, dim=1)
    turned = slerp(z, direction * z.norm(dim=1, keepdim=True), theta)
    return torch.where(difference.any(1, keepdim=True), turned, z)
