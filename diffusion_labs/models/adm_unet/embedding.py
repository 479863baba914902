"""From the time and the conditions to one embedding vector and the context of the attention."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.layers import TimeEmbedding
from diffusion_labs.models.adm_unet.blocks import Context


class ClassCondition(nn.Module):
    """Looks up a class in a table of n + 1 rows, of which row n is the null class: an absent condition.

    Args:
        name: key of the conditional input, integers ``[b]``.
        num_classes: the number of classes n.
        embed_dim: width of the output.
    """

    def __init__(self, name: str, num_classes: int, embed_dim: int) -> None:
        super().__init__()
        self.name = name
        self.num_classes = num_classes
        self.table = nn.Embedding(num_classes + 1, embed_dim)

    def forward(self, conditions: ConditionalInputs, timestep: Tensor) -> Tensor:
        index = conditions.get(self.name)
        if index is None:
            index = torch.full(timestep.shape, self.num_classes, device=timestep.device)
        elif index.dtype.is_floating_point or index.dtype.is_complex or index.dtype == torch.bool:
            raise ValueError(f"{self.name!r} has dtype {index.dtype}, but class indices must be integers; use .long()")
        elif index.shape != timestep.shape:
            raise ValueError(
                f"{self.name!r} has shape {list(index.shape)}, but must be {list(timestep.shape)}: one class "
                "index for each sample"
            )
        embedding: Tensor = self.table(index.long())
        return embedding


class VectorCondition(nn.Module):
    """Projects a vector; an absent one is zeros.

    Args:
        name: key of the conditional input ``[b, width]``.
        width: width of the input.
        embed_dim: width of the output.
    """

    def __init__(self, name: str, width: int, embed_dim: int) -> None:
        super().__init__()
        self.name = name
        self.linear = nn.Linear(width, embed_dim)

    def forward(self, conditions: ConditionalInputs, timestep: Tensor) -> Tensor:
        shape = [timestep.shape[0], self.linear.in_features]
        vector = conditions.get(self.name)
        if vector is None:
            vector = torch.zeros(shape, device=timestep.device)
        elif list(vector.shape) != shape:
            raise ValueError(
                f"{self.name!r} has shape {list(vector.shape)}, but must be {shape}: one vector of that "
                "width for each sample"
            )
        embedding: Tensor = self.linear(vector.to(self.linear.weight.dtype))
        return embedding


class TokenCondition(nn.Module):
    """Projects tokens to the context; absent ones are one zero token.

    Args:
        name: key of the conditional input ``[b, n, width]``. The input ``<name>_mask`` is optional:
            bool ``[b, n]``, true for valid tokens. A mask without its tokens is ignored, so that
            dropping the tokens is enough to drop the condition.
        width: width of the input.
        context_dim: width of the output.
    """

    def __init__(self, name: str, width: int, context_dim: int) -> None:
        super().__init__()
        self.name = name
        self.linear = nn.Linear(width, context_dim)

    def forward(self, conditions: ConditionalInputs, timestep: Tensor) -> Context:
        batch, width = timestep.shape[0], self.linear.in_features
        tokens, mask = conditions.get(self.name), conditions.get(f"{self.name}_mask")
        if tokens is None:
            tokens, mask = torch.zeros(batch, 1, width, device=timestep.device), None
        elif tokens.dim() != 3 or tokens.shape[0] != batch or tokens.shape[2] != width:
            raise ValueError(
                f"{self.name!r} has shape {list(tokens.shape)}, but must be [{batch}, n, {width}]: n tokens "
                "of that width for each sample"
            )
        elif mask is not None and (mask.dtype != torch.bool or mask.shape != tokens.shape[:2]):
            raise ValueError(
                f"'{self.name}_mask' is {mask.dtype} of shape {list(mask.shape)}, but must be torch.bool of "
                f"shape {list(tokens.shape[:2])}: true for the valid tokens of {self.name!r}"
            )
        return Context(self.linear(tokens.to(self.linear.weight.dtype)), mask)


class ConditionEmbedding(nn.Module):
    """Embeds the time and named conditions of three kinds, each of which may be absent.

    ``embedding = time(t) + sum_i table_i[class_i] + sum_j Linear_j(vector_j)``, and the context is
    the concatenation of ``Linear_k(tokens_k)``.

    A network built for a condition also runs without it, and every parameter still takes part, as
    DistributedDataParallel needs. The absent condition is one that can be given, so a single sample
    of a batch loses its condition by the class n, by a zero vector, or by zero tokens with a mask
    that is true for the first alone.

    Args:
        time: the embedding of the time.
        classes: number of classes by name, see ``ClassCondition``.
        vectors: width by name, see ``VectorCondition``.
        tokens: width by name, see ``TokenCondition``.
        context_dim: width of the context.

    Attributes:
        null_conditions: the index of the null class, by name.
        condition_shapes: the shape of one sample's condition, by name; ``None`` is any number of tokens.
        condition_names: the names of all inputs.

    Raises:
        ValueError: if two conditions share a name, or a name cannot be that of a submodule.
    """

    def __init__(
        self,
        time: TimeEmbedding,
        *,
        classes: Mapping[str, int],
        vectors: Mapping[str, int],
        tokens: Mapping[str, int],
        context_dim: int,
    ) -> None:
        super().__init__()
        names = [*classes, *vectors, *tokens, *(f"{name}_mask" for name in tokens)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the condition name {name!r} is used twice in {names}; rename one of them")
            if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
                raise ValueError(
                    f"the condition name {name!r} must be a Python identifier and no attribute of "
                    "nn.ModuleDict; rename it"
                )
        self.null_conditions = dict(classes)
        self.condition_shapes: dict[str, tuple[int | None, ...]] = {
            **dict.fromkeys(classes, ()),
            **{name: (width,) for name, width in vectors.items()},
            **{name: (None, width) for name, width in tokens.items()},
        }
        self.condition_names = frozenset(names)
        self.time = time
        self.classes = nn.ModuleDict(
            {name: ClassCondition(name, number, time.embed_dim) for name, number in classes.items()}
        )
        self.vectors = nn.ModuleDict(
            {name: VectorCondition(name, width, time.embed_dim) for name, width in vectors.items()}
        )
        self.tokens = nn.ModuleDict({name: TokenCondition(name, width, context_dim) for name, width in tokens.items()})

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
        embedding = self.time(timestep)
        for condition in (*self.classes.values(), *self.vectors.values()):
            embedding = embedding + condition(conditions, timestep)

        contexts = [condition(conditions, timestep) for condition in self.tokens.values()]
        return embedding, concatenate(contexts) if contexts else None


def concatenate(contexts: list[Context]) -> Context:
    """Join contexts along the tokens; one without a mask counts as valid where another has one."""
    tokens = torch.cat([context.tokens for context in contexts], dim=1)
    if all(context.mask is None for context in contexts):
        return Context(tokens, None)
    masks = [
        context.tokens.new_ones(context.tokens.shape[:2], dtype=torch.bool) if context.mask is None else context.mask
        for context in contexts
    ]
    return Context(tokens, torch.cat(masks, dim=1))
