"""The loss of CLIP with several positives: closed forms, and the loss of transformers where all captions differ."""

import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import diffusion_labs as dl
from diffusion_labs.training.contrastive_objective import contrastive_loss, equal_rows
from tests.catalogue import tiny_clip

CAPTIONS = ["a", "b", "a", "longer", "b", "a"]


def batch() -> dict[str, object]:
    return {"x": torch.rand(6, 1, 8, 8) * 2 - 1, "caption": CAPTIONS, "class": torch.tensor([0, 1, 0, 1, 1, 0])}


def equal(values: list[int]) -> Tensor:
    rows = torch.tensor(values)[:, None]
    return equal_rows(rows, rows)


def both(logits: Tensor, same: Tensor) -> Tensor:
    return contrastive_loss(logits, logits.mT, same)


def test_the_loss_is_that_of_its_formula() -> None:
    """Term by term, in floats."""
    logits, same = torch.randn(6, 6).double(), equal([ord(text[0]) for text in CAPTIONS])
    expected = 0.0
    for rows in (logits.tolist(), logits.T.tolist()):
        for i, row in enumerate(rows):
            total = math.log(sum(math.exp(value) for value in row))
            own = [j for j in range(6) if CAPTIONS[j] == CAPTIONS[i]]
            expected += sum(total - row[j] for j in own) / len(own) / 6 / 2
    assert both(logits, same).item() == pytest.approx(expected, rel=1e-12)


def test_the_least_loss_is_that_of_positives_that_are_equally_probable() -> None:
    """The mean of log |P(i)|; where equal captions counted as wrong ones, it could not be reached."""
    same = equal([0, 1, 0, 2, 1, 0])
    least = (3 * math.log(3) + 2 * math.log(2)) / 6
    assert both(100.0 * same.double(), same).item() == pytest.approx(least)
    assert both(torch.zeros(6, 6).double(), same).item() == pytest.approx(math.log(6))
    logits = (100.0 * same.double()).requires_grad_()
    both(logits, same).backward()
    assert logits.grad.abs().max() < 1e-12


def test_with_different_captions_it_is_the_loss_of_transformers() -> None:
    clip = tiny_clip(frozen=False)
    objective = dl.ContrastiveObjective(clip)
    x, captions = torch.rand(4, 1, 8, 8) * 2 - 1, ["a", "b", "c", "d"]
    expected = clip.model(input_ids=clip.tokenize(captions), pixel_values=x, return_loss=True).loss
    torch.testing.assert_close(objective({"x": x, "caption": captions}), expected)
    torch.testing.assert_close(objective({"x": x, "caption": clip.tokenize(captions)}), expected)


@pytest.mark.parametrize("group", [None, "class"])
def test_positives_are_equal_captions_or_groups(group: str | None) -> None:
    clip, data = tiny_clip(frozen=False), batch()
    values = data["class"].tolist() if group else CAPTIONS
    same = torch.tensor([[a == b for b in values] for a in values])
    objective = dl.ContrastiveObjective(clip, group_field=group)
    loss = objective(data)
    image, text = clip.encode_image(data["x"]), clip.encode_text(CAPTIONS).embedding
    logits = clip.logit_scale.exp() * image @ text.T
    torch.testing.assert_close(loss, both(logits, same))
    loss.backward()  # every parameter takes part, as DistributedDataParallel needs
    assert all(parameter.grad is not None for parameter in objective.parameters())
    hits = [same[i, int(logits[i].argmax())].item() for i in range(6)]
    assert objective.metrics()["accuracy"].item() == pytest.approx(sum(hits) / 6)


def test_the_factor_of_the_similarities_is_bounded() -> None:
    objective = dl.ContrastiveObjective(tiny_clip(frozen=False))
    with torch.no_grad():
        objective.clip.logit_scale.fill_(7.0)
    objective.after_update(1)
    assert objective.clip.logit_scale.exp().item() == pytest.approx(100.0)


def test_a_missing_field_is_named() -> None:
    data = batch()
    del data["class"]
    with pytest.raises(KeyError, match=r"lacks \['class'\]"):
        dl.ContrastiveObjective(tiny_clip(frozen=False), group_field="class")(data)


def bars(count: int) -> dict[str, Tensor | list[str]]:
    """Bright rows or columns on a dark ground, in one of two words each."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(0, 2, (count,), generator=generator)
    place = torch.randint(0, 8, (count,), generator=generator)
    lit = F.one_hot(place, 8).float()[:, None, None] * 2 - 1
    x = torch.where(kind[:, None, None, None] == 1, lit.expand(-1, 1, 8, 8), lit.mT.expand(-1, 1, 8, 8))
    words = [["row", "a row", "column", "a column"][2 * int(k) + int(p) % 2] for k, p in zip(kind, place, strict=True)]
    return {"x": x, "caption": words}


def test_what_has_no_loss_is_named() -> None:
    data, clip = bars(4), dl.small_clip(image_size=8)
    with pytest.raises(ValueError, match="4 images, 3 captions"):
        dl.ContrastiveObjective(clip)({**data, "caption": data["caption"][:3]})
    with pytest.raises(ValueError, match="of type list"):
        dl.ContrastiveObjective(clip, group_field="word")({**data, "word": data["caption"]})


def test_a_frozen_clip_is_refused_and_a_part_of_it_is_not() -> None:
    clip = tiny_clip(frozen=True)
    with pytest.raises(ValueError, match=r"all parameters of clip are frozen.*frozen=False"):
        dl.ContrastiveObjective(clip)
    clip.model.text_projection.requires_grad_()
    dl.ContrastiveObjective(clip)(batch()).backward()
    assert clip.model.text_projection.weight.grad.any()


def test_the_loop_trains_it(tmp_path: Path) -> None:
    """Twenty updates tell rows from columns better than before."""
    torch.manual_seed(0)
    clip = dl.small_clip(
        image_size=8, max_tokens=12, embed_dim=8, image_dim=16, image_depth=1, text_dim=16, text_depth=1, num_heads=2
    )
    objective = dl.ContrastiveObjective(clip)
    data = bars(64)
    before = copy.deepcopy(objective)(data)
    samples = [{"x": data["x"][i], "caption": data["caption"][i]} for i in range(64)]
    experiment = dl.Experiment(
        objective=objective,
        model=clip,
        batches=dl.Batches(samples, 32, seed=0),
        optimizer=torch.optim.AdamW(objective.parameters(), 5e-3),
        steps=20,
        ema_decay=0.5,
    )
    state = dl.train(experiment, tmp_path, dl.TrainOptions(log_every=10, save_every=20))
    objective.clip = state.ema.model
    after = objective(data)
    assert after < before - 0.3
    assert '"accuracy"' in (tmp_path / "metrics.jsonl").read_text()


TWO_AND_ONE = """
import os, sys, torch, copy
import diffusion_labs as dl
from diffusion_labs.training.parallelism import Sharing, shard, whole
from diffusion_labs.training.world import current_world
folder, group = sys.argv[1], sys.argv[2] or None
rank = int(os.environ["RANK"])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
torch.manual_seed(0)
clip = dl.small_clip(
    image_size=8, max_tokens=12, embed_dim=8, image_dim=16, image_depth=1, text_dim=16, text_depth=1, num_heads=2
).double()
alone, cut = copy.deepcopy(clip), copy.deepcopy(clip)
x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double() * 2 - 1
captions = ["a", "b", "a", "c", "a", "longer", "longest", "b"]
classes = torch.tensor([0, 1, 0, 1, 1, 0, 2, 2])
def batch(chosen):
    return {"x": x[chosen], "caption": captions[chosen], "class": classes[chosen]}

objective = torch.nn.parallel.DistributedDataParallel(dl.ContrastiveObjective(clip, group_field=group))
in_parts = dl.ContrastiveObjective(cut, group_field=group)
shard(in_parts, Sharing("fsdp", 2), current_world(), torch.device("cpu"))
own = batch(slice(4 * rank, 4 * rank + 4))
losses = []
for model in (objective, in_parts):
    for _ in range(2):
        loss = model(own) / 2
        loss.backward()  # gradients add up
    torch.distributed.all_reduce(loss.detach_())
    losses.append(loss)
gradients = [whole(parameter.grad) for parameter in cut.parameters()]
torch.distributed.destroy_process_group()  # from here on, alone
expected = dl.ContrastiveObjective(alone, group_field=group)(batch(slice(None)))
expected.backward()
for loss in losses:
    torch.testing.assert_close(loss, expected.detach())
for one, part, other in zip(clip.parameters(), gradients, alone.parameters(), strict=True):
    torch.testing.assert_close(one.grad, other.grad)
    torch.testing.assert_close(part, other.grad)
"""


@pytest.mark.slow
@pytest.mark.parametrize("group", ["", "class"])
def test_two_processes_have_the_loss_and_the_gradient_of_one_with_both_batches(tmp_path: Path, group: str) -> None:
    """Captions of different lengths, and some that only the other process has."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_AND_ONE, str(tmp_path), group],
            env={**os.environ, "OMP_NUM_THREADS": "1", "RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=600) for process in processes] == [0, 0]
