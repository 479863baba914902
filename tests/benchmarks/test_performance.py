"""The benchmarks of speed: turns, medians, equal work, growth and the page. No times: those are not tests."""

import importlib
import importlib.util
import itertools
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from benchmarks import performance, sampling_speed, scaling, training_speed
from benchmarks.speed import memory, overhead
from benchmarks.speed.libraries import LIBRARIES
from benchmarks.speed.page import page
from benchmarks.speed.rounds import fastest, interleaved, ratio
from benchmarks.speed.section import Claim, Plot, Section, Table, read
from benchmarks.speed.sizes import Library, Sizes, matched, parameters, trainer, training_flops

SMALL = Sizes(mults=(1, 2), num_res_blocks=1, size=8)


def test_candidates_take_turns_in_both_orders() -> None:
    called: list[str] = []
    ticks = itertools.count()
    calls = {name: lambda name=name: called.append(name) for name in "abc"}
    seconds = interleaved(calls, 3, clock=lambda: float(next(ticks)))
    assert "".join(called) == "abc" + "abc" + "cba" + "abc"
    assert seconds == {name: [1.0] * 3 for name in "abc"}


def test_ratios_are_of_one_round_and_so_free_of_drift() -> None:
    """The machine is three times as slow in the second round, and ten in the third: one is still twice the other."""
    seconds = {"slow": [2.0, 6.0, 20.0], "fast": [1.0, 3.0, 10.0]}
    assert ratio(seconds, "slow", "fast") == 2.0
    assert fastest(seconds, ["slow", "fast"]) == "fast"


@pytest.fixture(params=LIBRARIES)
def each(request: pytest.FixtureRequest) -> Library:
    """Every library that is installed."""
    found = LIBRARIES[request.param]
    if importlib.util.find_spec(found.package) is None:
        pytest.skip(f"{found.package} is compared with, in .venv-peers")
    return found


def test_all_libraries_do_the_same_work(each: Library) -> None:
    ours = LIBRARIES["diffusion_labs"]
    sizes = matched(each, SMALL, training_flops(ours, SMALL))
    assert training_flops(each, sizes) == pytest.approx(training_flops(ours, SMALL), rel=0.1)
    assert parameters(each.network(sizes)) == pytest.approx(parameters(ours.network(SMALL)), rel=0.15)


def test_all_libraries_train_and_sample(each: Library) -> None:
    """A step changes the weights; as many samples as noise, and guidance that is not idle where the weights say so."""
    network = each.network(SMALL)
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    trainer(each, network, SMALL, 2)()
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))

    x, label = SMALL.images(2)
    samples = []
    for scale in (1.0, 3.0):
        torch.manual_seed(1)
        samples.append(each.sample(network, SMALL, 2, scale)(x, label))
    assert samples[0].shape == x.shape
    assert not torch.allclose(*samples)


@pytest.mark.parametrize(("share", "batches"), [(1.0, [4, 4, 4, 4]), (0.5, [2, 2, 4, 4])])
def test_guidance_acts_in_its_share_of_the_steps(share: float, batches: list[int]) -> None:
    ours = LIBRARIES["diffusion_labs"]
    network = ours.network(SMALL)
    seen: list[int] = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    x, label = SMALL.images(2)
    ours.sample(network, SMALL, 4, 3.0, guided_share=share)(x, label)
    assert seen == batches


def test_flops_are_those_of_the_convolutions() -> None:
    """Four times the pixels are four times the work, but for what is done once an image, and attention."""
    ours = LIBRARIES["diffusion_labs"]
    large = training_flops(ours, replace(SMALL, size=16))
    assert 3.5 < large / training_flops(ours, SMALL) < 4.5


def test_growth_is_against_the_best_before_and_leaves_the_smallest_out() -> None:
    assert scaling.growth({1: 9.0, 4: 3.0, 16: 2.0, 64: 2.2}) == pytest.approx(1.1)
    assert scaling.growth({1: 1.0, 4: 5.0, 16: 4.0}) == 1.0
    assert scaling.growth({10: 1.0, 100: 2.0}, skip=0) == 2.0


def test_the_share_of_the_peak_is_of_the_same_round() -> None:
    peak = training_speed.gemm_flops()
    seconds = {"GEMM": [1.0, 2.0, 5.0], "net": [2.0, 4.0, 10.0]}  # half of the peak, whatever that is
    assert training_speed.gemm_share(seconds, "net", peak) == pytest.approx(0.5)


SECONDS = {
    "GEMM": [1.0, 1.0],
    "diffusion_labs": [2.0, 2.0],
    "diffusion_labs, compiled": [1.0, 1.0],
    "a": [3.0, 3.0],
    "b": [4.0, 4.0],
}


def test_the_fastest_of_ours_is_compared_with_the_fastest_peer_and_memory_with_the_lowest() -> None:
    peaks = {"diffusion_labs": 90.0, "a": 200.0, "b": 100.0}
    counts, flops = dict.fromkeys(peaks, 1), dict.fromkeys(peaks, training_speed.gemm_flops())
    section = training_speed.section(SECONDS, peaks, flops, counts, 0.5, 1)
    assert [claim.figure for claim in section.claims] == [3.0, 0.9, 1.0, 0.5]
    assert [claim.holds for claim in section.claims] == [True, True, True, False]
    assert "(a)" in section.claims[0].question
    assert "(b)" in section.claims[1].question


def test_intervals_are_compared_with_full_guidance() -> None:
    half, plain = sampling_speed.HALF, sampling_speed.PLAIN
    seconds = {
        "diffusion_labs": [2.0],
        f"diffusion_labs, {half}": [1.0],
        f"diffusion_labs, {plain}": [0.5],
        "a": [3.0],
        f"a, {plain}": [0.1],
    }
    section = sampling_speed.section(seconds, 4, 2)
    assert [claim.figure for claim in section.claims] == [1.5, 3.0]


def test_overheads_are_compared_with_the_lowest_of_the_others() -> None:
    steps = {
        "diffusion_labs": {"DDIM": 17.0, "DPM-Solver++ 2M": 21.0, "DDPM": 39.0},
        "a": {"DDIM": 34.0, "DDPM": 30.0},
        "b": {"DDIM": 68.0},
    }
    claims = overhead.section({"us per step": steps}).claims
    assert [claim.holds for claim in claims] == [True, False, True, True, False]
    assert claims[3].figure == 0.5
    assert claims[4].figure == pytest.approx(1.3)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells peaks of memory")
def test_memory_is_that_of_the_call_and_not_of_a_higher_peak_before() -> None:
    torch.ones(400 * 2**18)  # 400 MiB, freed
    measured = memory.growth(lambda: torch.ones(100 * 2**18))
    assert measured / 2**20 == pytest.approx(100, abs=10)


MACHINE = {
    "date": "2026-01-02",
    "processor": "P",
    "cores": 2,
    "threads": 2,
    "load": 1.0,
    "system": "S",
    "python": "3",
    "versions": {"torch": "9"},
}
SECTION = Section(
    "scaling",
    "Growth",
    "What it is.",
    [Claim("is it fast", 2.0, 1.5), Claim("is it small", 2.0, 1.5, at_most=True, unit="s")],
    [Table("T", ["n", "x"], [["1", "2.5"]])],
    [Plot("bars", "x", "", {"diffusion_labs": 1.0, "b": 2.0}), Plot("lines", "x", "y", {"a": [[1, 2], [2, 3]]}, "xy")],
)


def test_a_section_is_read_as_it_was_written(tmp_path: Path) -> None:
    SECTION.write(tmp_path, ["--rounds", "3"])
    found = read(tmp_path / "scaling.json")
    assert (found.claims, found.tables, found.plots) == (SECTION.claims, SECTION.tables, SECTION.plots)
    assert found.command == "python -m benchmarks scaling --rounds 3"
    assert found.machine["versions"]["torch"] == version("torch")


def test_the_page_has_every_claim_table_and_picture_and_says_what_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures")
    SECTION.write(tmp_path / "out", ["--threads", "2"])
    performance.write_page(tmp_path / "out", tmp_path / "docs")
    text = (tmp_path / "docs" / "performance.md").read_text()
    assert "1 of 2 hold" in text
    assert "| is it fast | at least 1.5 | 2 | yes |" in text
    assert "| is it small | at most 1.5 s | 2 s | **no** |" in text
    assert "| 1 | 2.5 |" in text
    assert "python -m benchmarks scaling --threads 2" in text
    assert "Not measured here: training_speed" in text
    for name in ("performance/scaling-1.svg", "performance/scaling-2.svg"):
        assert f"]({name})" in text
        assert (tmp_path / "docs" / name).read_text().startswith("<?xml")


@pytest.mark.parametrize(("change", "warning"), [({"command": "x --quick"}, "--quick"), ({}, "other work")])
def test_the_page_warns_of_figures_that_are_none(change: dict[str, str], warning: str) -> None:
    quiet = page([replace(SECTION, machine=MACHINE)], [], "p")
    assert "**Measured" not in quiet
    assert "other work" not in quiet
    busy = MACHINE | ({} if change else {"load": 9.0})
    assert warning in page([replace(SECTION, machine=busy, **change)], [], "p")


def test_every_question_takes_the_arguments_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command lines of all parts, as the whole writes them."""
    options = performance.Options(quick=True)
    for name in performance.QUESTIONS:
        if name == "sampler_overhead":  # it has another form
            continue
        module = importlib.import_module(f"benchmarks.{name}")
        measured: list[object] = []
        monkeypatch.setattr(module, "measure", lambda options, measured=measured: measured.append(options) or SECTION)
        monkeypatch.setattr(Section, "write", lambda self, out, arguments: None)
        main: Callable[[list[str]], None] = module.main
        main(performance.arguments_of(name, options))
        assert measured, name
