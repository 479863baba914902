"""What ``keep_memory`` saves."""

import os
import subprocess
import sys

import pytest

from diffusion_labs.memory import LARGE_PAGES, OWN_SETTINGS

FAULTS = """
import resource, sys
from diffusion_labs.memory import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
import torch
torch.set_num_threads(1)

def use():
    first = torch.ones(20_000_000)
    return (first + 1).sum()

for _ in range(3):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(kind: str, **environment: str) -> int:
    clean = {key: value for key, value in os.environ.items() if key not in (LARGE_PAGES, *OWN_SETTINGS)}
    command = [sys.executable, "-c", FAULTS, kind]
    run = subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
def test_large_tensors_get_no_new_pages_after_the_first() -> None:
    assert faults("kept") < 20
    assert faults("given back") > 200


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
def test_what_the_environment_says_of_malloc_stays() -> None:
    assert faults("kept", MALLOC_MMAP_THRESHOLD_="100000") > 200
