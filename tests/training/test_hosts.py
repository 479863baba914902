"""Two machines: network namespaces with a cable between them, torchrun on each."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.training.test_processes import SCRIPT, carry_out, found_in

HOSTS = ("10.231.7.1", "10.231.7.2")


def ip(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """The names of two namespaces."""
    names = [f"host{number}-{os.getpid()}" for number in range(2)]
    if shutil.which("ip") is None or ip("netns", "add", names[0]).returncode != 0:
        pytest.skip("network namespaces need root and iproute2")
    try:
        ip("netns", "add", names[1])
        cable = [f"cable{number}" for number in range(2)]
        made = ip("link", "add", cable[0], "netns", names[0], "type", "veth", "peer", cable[1], "netns", names[1])
        assert made.returncode == 0, made.stderr
        for name, end, address in zip(names, cable, HOSTS, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "delete", name)


def start(hosts: list[str], folder: Path, *words: str) -> list[subprocess.Popen]:
    """The command of docs/scaling.md, on each host."""
    script = folder.with_suffix(".py")
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--master-addr", HOSTS[0], "--master-port", "29500"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    processes = []
    for rank, host in enumerate(hosts):
        command = ["ip", "netns", "exec", host, *torchrun, "--node-rank", str(rank), str(script), str(folder), *words]
        own = {**environment, "GLOO_SOCKET_IFNAME": f"cable{rank}"}
        processes.append(subprocess.Popen(command, env=own, stderr=subprocess.PIPE, text=True))
    return processes


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_on_two_hosts_is_that_on_one_and_goes_on_alone_when_one_is_lost(hosts: list[str], tmp_path: Path) -> None:
    alone = carry_out(tmp_path / "alone", (1, 10, ""))
    processes = start(hosts, tmp_path / "two", "10", "", "fsdp")
    assert [process.communicate(timeout=300) and process.returncode for process in processes] == [0, 0]
    torch.testing.assert_close(found_in(tmp_path / "two"), alone, rtol=1e-5, atol=1e-6)

    folder = tmp_path / "lost"
    first, second = start(hosts, folder, "10", "brief", "ddp")
    while not (folder / "checkpoints" / "step-00000004").exists():
        time.sleep(0.1)
    ip("-n", hosts[0], "link", "set", "cable0", "down")
    told = first.communicate(timeout=300)[1]
    assert first.returncode != 0
    assert "nothing is heard of process 1" in told
    second.send_signal(signal.SIGKILL)
    second.communicate()
    torch.testing.assert_close(carry_out(folder, (1, 10, "")), alone, rtol=1e-5, atol=1e-6)
