"""The solver report: its truth, that it counts calls and misses no solver, and what its tables say."""

import inspect
import math
import re
from functools import partial
from pathlib import Path

import pytest
import torch

import diffusion_labs as dl
from benchmarks.solvers import measure, ours, stochastic
from benchmarks.solvers.measure import BUDGETS, LIBRARIES, Run
from benchmarks.solvers.oracle import MIXTURES, PROCESSES, Mixture, Problem, distance, probability_flow, problem


def public_samplers() -> set[type]:
    public = [getattr(dl, name) for name in dl.__all__]
    return {item for item in public if inspect.isclass(item) and issubclass(item, dl.Sampler)} - {dl.Sampler}


def test_every_public_sampler_is_measured() -> None:
    """Without a line for it, and but for those of consistency-distilled models."""
    factories = [*ours.DETERMINISTIC.values(), *ours.STOCHASTIC.values()]
    assert {getattr(factory, "func", factory) for factory in factories} == public_samplers() - ours.NOT_MEASURED


def test_deterministic_samplers_are_and_the_others_are_not() -> None:
    whole = problem("edm", "plane", 2)
    for table, same in ((ours.DETERMINISTIC, True), (ours.STOCHASTIC, False)):
        for name, sampler in table.items():
            run = partial(ours.run, sampler, dl.karras, whole, 6)
            assert torch.equal(run(), run()) == same, name


def test_every_public_grid_is_measured() -> None:
    assert {"trailing", "linspace", "karras", "uniform_log_snr"} <= set(ours.grids())


def test_the_exact_flow_of_one_gaussian_is_its_closed_form() -> None:
    """``x_s = m_s + (x_t - m_t) sqrt(v_s / v_t)``, from pure noise to clean data."""
    mean, std = torch.tensor([[0.5, -1.0]], dtype=torch.float64), 0.3
    x = torch.randn(5, 2, dtype=torch.float64)
    time = torch.zeros(())
    t, s = dl.NoiseLevel(time, 0.0, 1.0, -math.inf), dl.NoiseLevel(time, 1.0, 0.0, math.inf)
    found = probability_flow(Mixture(mean, torch.tensor([[std]], dtype=torch.float64)), x, t, s)
    torch.testing.assert_close(found, mean + std * x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("process", PROCESSES)
def test_the_oracle_is_the_library_s_exact_denoiser(process: str, mixture: str) -> None:
    whole = problem(process, mixture, 8)
    data = MIXTURES[mixture][0]()
    ideal = dl.IdealDenoiser(whole.predictor, data.means, data.std)
    for share in (0.0, 0.1, 0.5, 1.0):
        t = whole.schedule.first + share * (whole.schedule.terminal - whole.schedule.first)
        time = torch.full((8,), t, dtype=torch.float64)
        x = whole.schedule.q_sample(data.means[:1].expand(8, -1), torch.randn_like(whole.start), time)
        found = whole.oracle(x, time).prediction
        torch.testing.assert_close(found, ideal(x, time).prediction, rtol=0, atol=1e-9)


@pytest.mark.parametrize("process", PROCESSES)
def test_the_truth_is_exact_enough(process: str) -> None:
    """A solver of high order with many steps comes far closer to it than any error in the report."""
    whole = problem(process, "plane", 8)
    x = ours.run(partial(dl.UniPCSampler, order=3), dl.uniform_log_snr, whole, 1000)
    assert distance(x, whole.estimate) < 1e-7


def test_calls_are_those_of_the_network() -> None:
    """One call a step, or two a step but the last, which is the estimate of clean data."""
    one = problem("edm", "plane", 1)
    calls = {name: measure.calls_of(case(ours.DETERMINISTIC[name], name), one, 5) for name in ours.DETERMINISTIC}
    assert calls["DDIM"] == calls["UniPC 3"] == 5
    assert calls["Heun"] == calls["DPM2"] == calls["DPM-Solver++ 2S"] == 9
    for found in ours.cases():
        if found.grid == "karras":
            for run in measure.measure(found, one, one, (15, 16, 20)):
                assert run.budget - 5 < run.calls <= run.budget, run  # PNDM's first steps are of four


def case(sampler, name: str) -> ours.Case:
    return ours.Case("diffusion_labs", name, "karras", partial(ours.run, sampler, dl.karras))


pytestmark = pytest.mark.filterwarnings("ignore")  # other libraries', about numpy and about tensors made of tensors


@pytest.fixture(scope="module")
def peers() -> tuple[Problem, dict[tuple[str, str], ours.Case]]:
    """A problem, and other libraries' solvers on ``karras``, or their own grid, by library and name."""
    pytest.importorskip("diffusers", reason="diffusers is compared with")
    pytest.importorskip("azula", reason="azula is compared with")
    try:
        found = list(measure.cases("edm", LIBRARIES[1:]))
    except ImportError as missing:
        pytest.skip(f"k-diffusion is compared with: {missing}")
    return problem("edm", "plane", 8), {(c.library, c.solver): c for c in found if c.grid in ("karras", "its own")}


SAME = [
    ("DDIM", "azula", "DDIM"),
    ("Euler", "azula", "Euler"),
    ("Heun", "azula", "Heun"),
    ("Heun", "diffusers", "Heun"),
    ("DPM2", "diffusers", "KDPM2"),
    ("DPM-Solver++ 2M", "diffusers", "DPM++ 2M"),
    ("DPM-Solver++ 2M", "diffusers", "EDM DPM++ 2M"),
    ("DPM-Solver++ 3M", "azula", "xEAB 3"),
    ("DEIS 2", "diffusers", "DEIS 2"),
    ("DEIS 2", "azula", "zEAB 2"),
    ("DEIS 3", "azula", "zEAB 3"),
    ("LMS 4", "diffusers", "LMS 4, estimate last"),
    ("Flow Adams 3", "azula", "vAB 3"),
    ("LMS 2", "azula", "zAB 2, estimate last"),
    ("LMS 3", "azula", "zAB 3, estimate last"),
    ("LMS 4", "azula", "zAB 4, estimate last"),
    ("LMS 4", "k-diffusion", "lms, order 4, estimate last"),
    ("DPM-Solver++ 2S", "k-diffusion", "dpmpp_sde, eta 0"),
]


@pytest.mark.parametrize(("our_name", "library", "their_name"), SAME)
def test_the_same_solvers_have_the_same_samples(our_name: str, library: str, their_name: str, peers) -> None:
    """Whole paths on a shared grid, in float64, azula's and diffusers' in their own coordinates."""
    whole, cases = peers
    expected = cases[library, their_name].run(whole, 16)
    found = case(ours.DETERMINISTIC[our_name], our_name).run(whole, 16)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_every_peer_has_a_sample_within_the_budget(peers) -> None:
    whole, cases = peers
    for name, found in cases.items():
        (run,) = measure.measure(found, whole, whole, (20,))
        assert not run.failure, (name, run)
        assert 10 <= run.calls <= 20, (name, run)
        assert run.error < 0.4, (name, run)


def test_the_distance_of_exact_samples_is_that_of_their_number() -> None:
    data = MIXTURES["plane"][0]()
    ideal = dl.IdealDenoiser(problem("edm", "plane", 1).predictor, data.means, data.std)
    sample = ideal.sample(4000, torch.Generator().manual_seed(0))
    assert stochastic.sliced_distance(sample, data) < 0.03
    shift = 0.1 * 2**0.5  # of the plane; of its projections, that times the mean of |cos|
    assert stochastic.sliced_distance(sample + 0.1, data) == pytest.approx(shift * 2 / math.pi, rel=0.1)


def test_the_page_and_the_picture(tmp_path: Path) -> None:
    """Made from measurements that are written here: the best are named, and each table is one."""
    pytest.importorskip("matplotlib", reason="it draws the picture")
    pytest.importorskip("azula", reason="the page has its version")
    from benchmarks.solvers import plot, report

    runs = [
        Run("edm", data, library, solver, "karras", budget, budget, error / budget, 2 * error / budget)
        for data in ("plane", "space")
        for budget in (5, 10)
        for library, solver, error in (
            ("diffusion_labs", "Good", 1.0),
            ("diffusion_labs", "Bad", 3.0),
            ("diffusers", "Theirs", 2.0 if budget == 5 else 0.5),
            ("k-diffusion", "Other", 5.0),
        )
    ]
    runs.append(Run("edm", "plane", "azula", "None", "karras", 5, 0, math.inf, math.inf, "it cannot"))
    weak = [stochastic.Weak("edm", "azula", "DDPM", "karras", 5, 0.01)]
    plot.draw(runs, tmp_path / "solvers.svg")
    assert (tmp_path / "solvers.svg").read_text().rstrip().endswith("</svg>")

    page = report.page(runs, weak, "solvers.svg")
    assert "**5 calls: Good on `karras`**, 1.00 times" in page
    assert "next Bad on `karras`, 3.00 times" in page
    assert "to 1%, at 2 of the 4 problems and budgets" in page
    assert "EDM, plane, 10 calls: diffusers's Theirs on `karras`, 5.0e-02; ours 1.0e-01, Good" in page
    assert "| 10 | 1.0e-01 Good, `karras` | **5.0e-02** Theirs, `karras` | 5.0e-01 Other, `karras` | - |" in page
    assert "azula's None on `karras`, 5 calls: it cannot" in page
    tables = re.findall(r"(?:^\|.*\|\n)+", page, flags=re.M)
    assert len(tables) == 7
    for lines in (found.splitlines() for found in tables):
        assert len({line.count("|") for line in lines}) == 1, lines


@pytest.mark.slow
def test_the_report_runs(tmp_path: Path) -> None:
    """A small one of our own solvers, from the measurements to the page."""
    pytest.importorskip("matplotlib", reason="it draws the picture")
    from benchmarks import solver_report

    options = ["--libraries", "diffusion_labs", "--processes", "edm", "--workers", "1", "--samples", "200"]
    solver_report.main(["--docs", str(tmp_path), "--budgets", "10", *options])
    page = (tmp_path / "solvers.md").read_text()
    for name in (*ours.DETERMINISTIC, *ours.STOCHASTIC):
        assert f"| {name} |" in page, name
    assert "**10 calls: " in page
    assert "<svg" in (tmp_path / "solvers.svg").read_text()
    errors = [float(text) for text in re.findall(r"\d\.\de[-+]\d\d", page)]
    assert len(errors) >= len(ours.DETERMINISTIC)
    assert max(errors) < 2


@pytest.mark.slow
def test_the_committed_page_is_of_these_solvers() -> None:
    """Every sampler is in the page: else it is old, and `make solver-report` makes it again."""
    page = (Path(__file__).parents[2] / "docs" / "solvers.md").read_text()
    for name in (*ours.DETERMINISTIC, *ours.STOCHASTIC):
        assert f"| {name} |" in page, name


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_at_every_budget_our_best_is_measured_beside_theirs() -> None:
    """What the page says of the libraries' best comes out again from one problem."""
    runs = measure.measure_problem("edm", "plane", BUDGETS, LIBRARIES)
    for budget in BUDGETS:
        best = {
            library: min(run.error for run in runs if (run.library, run.budget) == (library, budget))
            for library in LIBRARIES
        }
        assert all(math.isfinite(error) for error in best.values()), best
