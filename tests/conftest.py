"""Set-up of every test: shape checks, threads, and a compiler without memory."""

import gc
import os
import signal
import sys
from typing import Any

import hypothesis
import jaxtyping
import pytest
import torch

import tests.type_checker  # noqa: F401  (jaxtyping finds it by name)


class EagerShapeChecks(type(jaxtyping.config)):
    """jaxtyping's configuration, with the checks off while torch.compile or torch.export traces.

    The tracer cannot follow the checks, and compiled code would not run them. Eager code is checked, also
    beside compiled code in one test. ``JAXTYPING_DISABLE=1`` switches the checks off for a whole run.
    """

    @property
    def jaxtyping_disable(self) -> bool:
        return self.disabled or torch.compiler.is_compiling()

    @jaxtyping_disable.setter
    def jaxtyping_disable(self, value: bool) -> None:
        self.disabled = value


def eager_jaxtyped(*args: Any, jaxtyped: Any = jaxtyping.jaxtyped, **options: Any) -> Any:
    """jaxtyping's decorator; for a function that is defined within another while that is traced, none."""
    if torch.compiler.is_compiling():
        return args[0] if args else lambda function: function
    return jaxtyped(*args, **options)


# Under nohup, or in the background of a shell, a process ignores these, and so do those that it starts.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)

# The tests of the kernels switch them on; `DIFFUSION_LABS_KERNELS=1 pytest` does so for all tests.
os.environ.setdefault("DIFFUSION_LABS_KERNELS", "0")

# The workers share the cores, and so do the processes that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)

# Before the first import of the package: its annotations become run-time checks.
jaxtyping.jaxtyped = eager_jaxtyped
jaxtyping.config.disabled = vars(jaxtyping.config).pop("jaxtyping_disable")
jaxtyping.config.__class__ = EagerShapeChecks
jaxtyping.install_import_hook("diffusion_labs", "tests.type_checker.check")

# The same examples in every run, with no deadline for a busy machine.
hypothesis.settings.register_profile("diffusion_labs", derandomize=True, deadline=None)
hypothesis.settings.load_profile("diffusion_labs")


@pytest.fixture(autouse=True)
def fresh_compiler():
    """Forget compiled code after each test.

    All shape-checked functions share jaxtyping's one wrapper, and torch.compile allows each piece of code
    eight compilations: without this the ninth test with ``fullgraph=True`` would fail for that alone.
    """
    yield
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


@pytest.fixture(autouse=True)
def seed():
    """Start each test from the same random state, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def same_threads():
    """Leave as many threads as there were: two workers of two threads each wait for each other most of the time."""
    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


def pytest_collection_finish() -> None:
    """Keep the ten thousand tests out of each later search for garbage."""
    gc.collect()
    gc.freeze()
