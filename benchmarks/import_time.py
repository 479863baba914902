"""What ``import diffusion_labs`` costs beyond ``import torch``, in CPU seconds: the median of fresh processes."""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence

CODE = """
import time
began = time.process_time()
import torch
torch_done = time.process_time()
import diffusion_labs
library_done = time.process_time()
for name in diffusion_labs.__all__:
    getattr(diffusion_labs, name)
print(torch_done - began, library_done - torch_done, time.process_time() - library_done)
"""


def main(arguments: Sequence[str] = ()) -> None:
    """Print the figures as JSON."""
    runs = [
        [float(value) for value in subprocess.check_output([sys.executable, "-c", CODE], text=True).split()]
        for _ in range(7)
    ]
    names = ("import torch", "import diffusion_labs", "first use of every public name")
    columns = zip(*runs, strict=True)
    figures = {name: round(statistics.median(column), 3) for name, column in zip(names, columns, strict=True)}
    print(json.dumps(figures, indent=2))
