"""What a run writes beside its checkpoints: whole lines, and no error that ends the run."""

import errno
import json
import resource
import signal
from dataclasses import replace

import pytest
import torch

from diffusion_labs import files
from diffusion_labs.training import TrainOptions, log, train
from diffusion_labs.training.log import Lines, read_metrics

EVERY = TrainOptions(resume=True, log_every=1, save_every=6, preview_every=4)


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_line_that_does_not_fit_is_written_whole_later(tmp_path) -> None:
    """A limit on the size of files fails as a full disk does, after a part of the line."""
    path = tmp_path / "metrics.jsonl"
    lines = Lines(path)
    lines.append('{"step": 1}')
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (lines.end + 5, before[1]))
        with pytest.warns(UserWarning, match="metrics.jsonl cannot be written .*; training goes on"):
            lines.append('{"step": 2}')
        lines.append('{"step": 3}')  # warned of once
        assert [line["step"] for line in read_metrics(tmp_path)] == [1]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    lines.append('{"step": 4}')
    lines.close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert path.read_text().count("\n") == 4


class Full:
    """A file on a disk that is full, and TensorBoard's writer to one."""

    def write(self, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    truncate = close = add_scalar = add_image = write


def test_what_cannot_be_logged_does_not_end_the_run(make_experiment, run_dir, tmp_path, monkeypatch) -> None:
    expected = train(make_experiment(), tmp_path / "whole", EVERY)

    def preview(model, path) -> torch.Tensor:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half of a picture")
        return Full().write(path)

    monkeypatch.setattr(log, "_tensorboard", lambda *_: Full())
    monkeypatch.setattr(Lines, "__init__", full_lines)
    with pytest.warns(UserWarning, match="training goes on without it") as warned:
        state = train(make_experiment(preview=preview), run_dir, EVERY)
    for ours, theirs in zip(state.model.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    told = [str(warning.message) for warning in warned]
    assert [sum(what in one for one in told) for what in ("metrics.jsonl", "TensorBoard", ".png")] == [1, 1, 3]
    assert not [*(run_dir / "samples").iterdir()]


def full_lines(self, path) -> None:
    vars(self).update(path=path, file=Full(), end=0, waiting=b"", failed=False)


def test_metrics_survive_a_kill_at_resume_and_lose_what_is_half_or_later(make_experiment, run_dir, monkeypatch) -> None:
    train(make_experiment(steps=6), run_dir, EVERY)
    path = run_dir / "metrics.jsonl"
    with path.open("a") as file:
        file.write(json.dumps({"step": 7, "loss": 1.0}) + '\n{"step": 8, "lo')
    before = path.read_text()
    assert [line["step"] for line in read_metrics(run_dir)] == [*range(1, 8)]

    def killed(path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "flush", killed)
        with pytest.raises(KeyboardInterrupt):
            train(make_experiment(), run_dir, replace(EVERY, save_every=100))
    assert path.read_text() == before
    train(make_experiment(), run_dir, EVERY)
    assert [line["step"] for line in read_metrics(run_dir)] == [*range(1, 13)]
