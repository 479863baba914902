"""Tables of key rules: both directions, and what they refuse."""

import pytest
import torch
from torch import nn

from diffusion_labs.interop import KeyRule, KeyRules, TensorChange, load_foreign
from diffusion_labs.interop.key_rules import nested

TRANSPOSED = TensorChange(lambda tensor: tensor.mT, lambda tensor: tensor.mT)
RULES = KeyRules(
    [
        KeyRule("up.{level}.block.{i}.*", "levels.{3-level}.{i+2}.*"),
        KeyRule("to.{i+1}.weight", "out.{i}.weight", TRANSPOSED),
        KeyRule("pair.{i}.{i}.*", "pair.{i}.*"),
        KeyRule("list.{2*i}.*", "even.{i}.*"),
        KeyRule("list.{2*i+1}.*", "odd.{i}.*"),
        KeyRule("end", "last.value"),
    ],
    ignored=["loss.*", "step"],
    older=[KeyRule("query.{i}.*", "to.{i}.*")],
)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("up.0.block.4.bias", "levels.3.6.bias"),
        ("up.3.block.0.weight", "levels.0.2.weight"),
        ("to.1.weight", "out.0.weight"),
        ("to.12.weight", "out.11.weight"),
        ("pair.5.5.weight", "pair.5.weight"),
        ("list.6.bias", "even.3.bias"),
        ("list.7.bias", "odd.3.bias"),
        ("list.0.bias", "even.0.bias"),
        ("end", "last.value"),
    ],
)
def test_a_rule_is_read_both_ways(theirs: str, ours: str) -> None:
    assert RULES.our_key(theirs) == ours
    assert RULES.their_key(ours) == theirs


@pytest.mark.parametrize(
    "key",
    [
        "up.4.block.0.bias",  # there are levels 0 to 3
        "up.0.block.1.conv.bias",  # * is one part
        "up.x.block.1.bias",
        "up.00.block.1.bias",  # would come back as another key
        "to.0.weight",
        "pair.5.6.weight",
        "ends",
        "xend",
        "upx0.block.4.bias",  # a dot is a dot
    ],
)
def test_other_keys_fit_no_rule(key: str) -> None:
    assert RULES.our_key(key) is None
    assert RULES.to_ours({key: torch.zeros(1)}) == ({}, [key])


def test_our_keys_without_a_foreign_name_are_refused() -> None:
    for key in ("levels.4.2.bias", "levels.0.1.bias"):
        with pytest.raises(ValueError, match=r"the other format has no name for \['levels"):
            RULES.to_theirs({key: torch.zeros(1)})


def test_tensors_change_and_change_back() -> None:
    tensors = {"to.2.weight": torch.randn(2, 3), "up.1.block.0.bias": torch.randn(4)}
    ours, unknown = RULES.to_ours({**tensors, "loss.weight": torch.zeros(1), "step": torch.zeros(1)})
    assert unknown == []
    assert torch.equal(ours["out.1.weight"], tensors["to.2.weight"].mT)
    back = RULES.to_theirs(ours)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[key], tensors[key]) for key in tensors)


def test_older_spellings_are_read_and_never_written() -> None:
    assert RULES.our_key("query.3.weight") == "out.2.weight"
    assert RULES.their_key("out.2.weight") == "to.3.weight"
    both = {"query.3.weight": torch.zeros(1, 1), "to.3.weight": torch.zeros(1, 1)}
    with pytest.raises(ValueError, match=r"'to.3.weight' and another key both stand for 'out.2.weight'"):
        RULES.to_ours(both)


def test_rules_that_cannot_be_read_backwards_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'a.{i}' to 'b.{j}' has \['i', 'j'\] on one side only"):
        KeyRules([KeyRule("a.{i}", "b.{j}")])
    ambiguous = KeyRules([KeyRule("a.*", "b.*"), KeyRule("a.{i}", "c.{i}")])
    with pytest.raises(ValueError, match=r"several rules fit 'a.1': to \['b.1', 'c.1'\]"):
        ambiguous.our_key("a.1")


def test_blocks_are_nested_in_their_places() -> None:
    rules = KeyRules(nested({"a.{i}": "x.{i}", "b": "y"}, [KeyRule("w.*", "v.*", TRANSPOSED)]))
    assert rules.our_key("a.7.w.bias") == "x.7.v.bias"
    assert rules.our_key("b.w.bias") == "y.v.bias"
    assert rules.to_ours({"b.w.weight": torch.ones(2, 3)})[0]["y.v.weight"].shape == (3, 2)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.ModuleList([nn.Linear(2, 3, bias=False), nn.Linear(2, 3, bias=False)])


def test_loading_lists_all_that_does_not_fit_by_the_foreign_names() -> None:
    module = Small()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    weights = {"to.1.weight": torch.zeros(3, 3), "to.3.weight": torch.zeros(2, 3), "more": torch.zeros(1)}
    with pytest.raises(ValueError, match="the weights are not those of this Small") as error:
        load_foreign(module, weights, RULES)
    for part in (
        "1 missing: ['to.2.weight']",
        "2 unexpected: ['more', 'to.3.weight']",
        "1 of another shape (after renaming): ['to.1.weight: [3, 3] instead of [3, 2]']",
    ):
        assert part in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_loading_what_fits() -> None:
    module = Small()
    weights = {"to.1.weight": torch.ones(2, 3), "to.3.weight": torch.zeros(2, 3), "more": torch.zeros(1)}
    mismatch = load_foreign(module, weights, RULES, strict=False)
    assert mismatch == (["to.2.weight"], ["more", "to.3.weight"])
    assert torch.equal(module.out[0].weight, torch.ones(3, 2))


def test_long_lists_are_cut() -> None:
    weights = {f"more{i}": torch.zeros(1) for i in range(25)}
    with pytest.raises(ValueError, match=r"25 unexpected: \['more0', .*'more9'\] and 15 more"):
        load_foreign(Small(), weights, RULES)


def test_rows_of_one_tensor_that_have_keys_of_their_own() -> None:
    rules = KeyRules([KeyRule("attn.to_q,to_k.*", "attention.qk.*")], joined=[("to_q", "to_k")])
    theirs = {"attn.to_q.weight": torch.tensor([[1.0], [2.0]]), "attn.to_k.weight": torch.tensor([[3.0], [4.0]])}
    ours, unknown = rules.to_ours(theirs)
    assert not unknown
    assert torch.equal(ours["attention.qk.weight"], torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    back = rules.to_theirs(ours)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], value) for key, value in theirs.items())
    # One that lacks the others, or does not fit them, is reported by its own name
    for lonely in ({"attn.to_q.weight": torch.ones(2, 1)}, theirs | {"attn.to_k.weight": torch.ones(2, 2)}):
        ours, unknown = rules.to_ours(lonely)
        assert (ours, unknown) == ({}, list(lonely))


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_what_is_no_float_is_no_weight(dtype: torch.dtype) -> None:
    module = nn.Linear(1, 1)
    weights = {"w": torch.ones(1, 1, dtype=dtype), "b": torch.zeros(1)}
    rules = KeyRules([KeyRule("w", "weight"), KeyRule("b", "bias")])
    with pytest.raises(ValueError, match=rf"1 that are no floats: .*w: {dtype} instead of torch.float32"):
        load_foreign(module, weights, rules)
    load_foreign(module, weights | {"w": torch.full((1, 1), 1.5, dtype=torch.float8_e4m3fn)}, rules)
    assert module.weight.item() == 1.5
