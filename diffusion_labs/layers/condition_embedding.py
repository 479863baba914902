"""From the time and the conditions to one embedding vector and the context of the attention."""

import keyword
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from diffusion_labs.conditioning import ConditionalInputs, mask_of
from diffusion_labs.keeping import kept, stepped
from diffusion_labs.layers.class_condition import ClassCondition
from diffusion_labs.layers.condition_layers import (
    Context,
    JointCondition,
    NumberCondition,
    ProjectedTokenCondition,
    TokenCondition,
    VectorCondition,
    VectorTokens,
)
from diffusion_labs.layers.embeddings import TimeEmbedding


class ConditionEmbedding(nn.Module):
    """Embeds the time and named conditions of several kinds, each of which may be absent.

    ``embedding = time(t) + sum_i table_i[class_i] + sum_j Linear_j(vector_j) + joint``, and the context is
    the concatenation of ``Linear_k(tokens_k)``, or of the tokens themselves.

    A network built for a condition also runs without it, and every parameter still takes part, as
    DistributedDataParallel needs. The absent condition is one that can be given, so a single sample
    of a batch loses its condition by the class n, by a zero vector, or by zero tokens with a mask
    that is true for the first alone.

    Args:
        time: the embedding of the time.
        classes: number of classes by name, see ``ClassCondition``.
        vectors: width by name, see ``VectorCondition``.
        tokens: width by name, see ``TokenCondition``.
        context_dim: width of the context; ``None`` for tokens as they are, all of one width.
        joint: vectors and numbers that are embedded together, if there are any.
        vector_tokens: of how many tokens of the context a vector also makes, by name, see ``VectorTokens``. They come
            before the others.
        project_tokens: makes the projection of tokens to the context, from name, width and ``context_dim``.

    Attributes:
        null_conditions: the index of the null class, by name.
        condition_shapes: the shape of one sample's condition, by name; ``None`` is any number of tokens.
        condition_names: the names of all inputs.

    Raises:
        ValueError: if two conditions share a name, a name cannot be that of a submodule, or tokens as they are
            differ in width.
    """

    def __init__(
        self,
        time: TimeEmbedding,
        *,
        classes: Mapping[str, int] | None = None,
        vectors: Mapping[str, int] | None = None,
        tokens: Mapping[str, int] | None = None,
        context_dim: int | None = None,
        joint: JointCondition | NumberCondition | None = None,
        vector_tokens: Mapping[str, int] | None = None,
        project_tokens: Callable[[str, int, int], TokenCondition] = ProjectedTokenCondition,
    ) -> None:
        super().__init__()
        classes, vectors, tokens = classes or {}, vectors or {}, tokens or {}
        for kind, sizes in {"classes": classes, "vectors": vectors, "tokens": tokens}.items():
            if not isinstance(sizes, Mapping):
                raise TypeError(f"{kind} ({sizes!r}) must be sizes by name, such as {{'class': 10}}")
        joint_shapes = {} if joint is None else joint.condition_shapes
        names = [*classes, *vectors, *joint_shapes, *tokens, *map(mask_of, tokens)]
        check_names(names)
        vector_tokens = vector_tokens or {}
        if not vector_tokens.keys() <= vectors.keys() or (vector_tokens and context_dim is None):
            raise ValueError(
                f"vector_tokens ({dict(vector_tokens)}) are made of vectors ({dict(vectors)}), and in a context of a "
                "given width; name them in vectors too"
            )
        if context_dim is None and len(set(tokens.values())) > 1:
            raise ValueError(
                f"tokens ({dict(tokens)}) must all have one width, that of the context: they enter without a "
                "projection; project them to one width before, or build the network with a context_dim"
            )
        self.null_conditions = dict(classes)
        self.condition_shapes: dict[str, tuple[int | None, ...]] = {
            **dict.fromkeys(classes, ()),
            **{name: (width,) for name, width in vectors.items()},
            **joint_shapes,
            **{name: (None, width) for name, width in tokens.items()},
        }
        self.condition_names = frozenset(names)
        self.vector_names = (*classes, *vectors, *joint_shapes)
        self.time = time
        self.classes = nn.ModuleDict(
            {entry_name(name): ClassCondition(name, number, time.embed_dim) for name, number in classes.items()}
        )
        self.vectors = nn.ModuleDict(
            {entry_name(name): VectorCondition(name, width, time.embed_dim) for name, width in vectors.items()}
        )
        self.joint = joint
        self.vector_tokens = nn.ModuleDict(
            {
                entry_name(name): VectorTokens(name, vectors[name], number, context_dim or 0)
                for name, number in vector_tokens.items()
            }
        )
        self.tokens = nn.ModuleDict(
            {
                entry_name(name): TokenCondition(name, width)
                if context_dim is None
                else project_tokens(name, width, context_dim)
                for name, width in tokens.items()
            }
        )

    def forward(self, timestep: Tensor, conditions: ConditionalInputs) -> tuple[Tensor, Context | None]:
        """Embed.

        Args:
            timestep: the time of each sample, ``[b]``.
            conditions: any subset of the known conditions; other keys are left alone.

        Returns:
            The embedding ``[b, embed_dim]``, and the context, or ``None`` without token conditions.

        Raises:
            ValueError: for a condition of the wrong shape or dtype.
        """
        of_vector = {name: conditions[name] for name in self.vector_names if name in conditions}
        embedding = stepped(self.vector, timestep, of_vector)

        conditions_of_context = (*self.vector_tokens.values(), *self.tokens.values())
        contexts = [condition(conditions, timestep) for condition in conditions_of_context]
        return embedding, kept(self.joined, contexts) if contexts else None

    def vector(self, timestep: Tensor, conditions: ConditionalInputs) -> Tensor:
        """The embedding at times ``[..., b]``, ``[..., b, embed_dim]``."""
        embedding: Tensor = self.time(timestep.flatten()).unflatten(0, timestep.shape)
        times = (
            timestep if timestep.ndim == 1 else timestep.flatten(0, -2)[0]
        )  # of one step: conditions are of the batch
        for condition in (*self.classes.values(), *self.vectors.values()):
            embedding = embedding + condition(conditions, times)
        if self.joint is not None:
            embedding = embedding + self.joint(conditions, times)
        return embedding

    def joined(self, contexts: Sequence[Context]) -> Context:
        """The context of all conditions."""
        return concatenate(contexts)


def check_names(names: Sequence[str]) -> None:
    """Raise a ``ValueError`` unless all inputs have names of their own, which submodules can have."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the condition name {name!r} is used twice in {names}; rename one of them")
        if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
            raise ValueError(
                f"the condition name {name!r} must be a Python identifier and no attribute of nn.ModuleDict; rename it"
            )


def entry_name(name: str) -> str:
    """The entry of a condition in a ``ModuleDict``: no keyword, as programs of ``torch.export`` write it as Python."""
    return f"{name}_" if keyword.iskeyword(name) else name


def concatenate(contexts: Sequence[Context]) -> Context:
    """Join contexts along the tokens; one without a mask counts as valid where another has one."""
    tokens = torch.cat([context.tokens for context in contexts], dim=1)
    if all(context.mask is None for context in contexts):
        return Context(tokens, None)
    masks = [
        context.tokens.new_ones(context.tokens.shape[:2], dtype=torch.bool) if context.mask is None else context.mask
        for context in contexts
    ]
    return Context(tokens, torch.cat(masks, dim=1))
