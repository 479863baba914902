"""Texts as the frequent parts of words."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from diffusion_labs.models.encoders.byte_tokenizer import END, PADDING, START
from diffusion_labs.models.encoders.tokenizer import import_transformers

SPECIAL = {"<|startoftext|>": START, "<|endoftext|>": END, "<|padding|>": PADDING}


def learn_merges(texts: Iterable[str], count: int) -> list[str]:
    """The pairs of tokens that are joined first to last, for ``bpe_tokenizer``: byte-pair encoding (arXiv 1508.07909).

    A word begins with the space before it, as in GPT-2. Pairs that occur once in all texts are not joined.

    Args:
        texts: what to learn from, such as all captions of a data set.
        count: the largest number of pairs.

    Returns:
        Pairs as lines of a file ``merges.txt`` of transformers: both parts, and a space between them.

    Raises:
        ImportError: without the package ``transformers``.
        ValueError: for a negative count.

    Example:
        >>> learn_merges(["a red apple", "a red heart"], 3)
        ['Ġ a', 'e d', 'r ed']
    """
    if count < 0:
        raise ValueError(f"count ({count}) must not be negative")
    import_transformers("learn_merges")
    from tokenizers import Tokenizer, models, trainers

    alphabet = _alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + count, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    learner = _with_words(Tokenizer(models.BPE()))
    learner.train_from_iterator(texts, trainer)
    return [" ".join(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]


def bpe_tokenizer(merges: Sequence[str]) -> Any:
    """A tokenizer of transformers for lower-case texts as bytes, of which pairs are joined, between a start and an end.

    Args:
        merges: which pairs, first to last; see ``learn_merges``. Without any, tokens are bytes.

    Returns:
        ``PreTrainedTokenizerFast``, whose ``save_pretrained`` writes the layout that all libraries read.

    Raises:
        ImportError: without the package ``transformers``.
        ValueError: if a pair has a part that is no byte and that no pair before it makes.

    Example:
        >>> tokenizer = bpe_tokenizer(learn_merges(["a red apple", "a red heart"], 50))
        >>> tokenizer.tokenize("A red apple")
        ['Ġa', 'Ġred', 'Ġa', 'p', 'p', 'l', 'e']
    """
    transformers = import_transformers("bpe_tokenizer")
    from tokenizers import Tokenizer, decoders, models, processors

    vocabulary = {character: i for i, character in enumerate(_alphabet())} | SPECIAL
    pairs = []
    for merge in merges:
        parts = merge.split(" ")
        if len(parts) != 2 or not all(part in vocabulary for part in parts):
            raise ValueError(
                f"merge {merge!r} is not two tokens, bytes or made by merges before it, and a space between"
            )
        pairs.append((parts[0], parts[1]))
        vocabulary.setdefault("".join(parts), len(vocabulary))
    tokenizer = _with_words(Tokenizer(models.BPE(vocab=vocabulary, merges=pairs)))
    tokenizer.decoder = decoders.ByteLevel()
    start, end, padding = SPECIAL
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, START), (end, END)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=start, eos_token=end, pad_token=padding
    )


def _alphabet() -> list[str]:
    """A character for each byte, as GPT-2 writes them."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _with_words(tokenizer: Any) -> Any:
    """A tokenizer of lower-case words that begin with their space, also the first."""
    from tokenizers import normalizers, pre_tokenizers

    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer
