"""What the tests of the kernels share."""

import pytest

from diffusion_labs.kernels.build import library


@pytest.fixture
def kernels_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switches the kernels on; the test is skipped where there are none."""
    monkeypatch.setenv("DIFFUSION_LABS_KERNELS", "1")
    if library() is None:
        pytest.skip("needs Linux, a processor with AVX2 and g++")
