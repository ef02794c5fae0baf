"""Two machines, as network namespaces with an address each, and TCP between them.

It needs root, `ip`, and a kernel that allows namespaces; and MPICH, whose launcher is configured
with two variables to start programs on other hosts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from launched import Launched, launched

from rumus.distributed.mpi_library import installed_wheels

NAMES = ("rumus0", "rumus1")
HOSTS = "10.77.0.1,10.77.0.2"
AGENT = """#!/bin/sh
# As ssh would: options, a host, a command. The host is an address of a namespace.
while [ "${1#-}" != "$1" ]; do shift; done
number=$((${1##*.} - 1)); shift
exec ip netns exec rumus$number sh -c "$*"
"""


def ip(*arguments: str, check: bool = True) -> int:
    run = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if check and run.returncode:
        raise OSError(run.stderr)
    return run.returncode


def removed() -> None:
    for name in NAMES:
        ip("netns", "del", name, check=False)


def linked() -> None:
    """Make both namespaces, and a pair of interfaces between them."""
    for name in NAMES:
        ip("netns", "add", name)
    ip("link", "add", NAMES[0], "netns", NAMES[0], "type", "veth",
       "peer", "name", NAMES[1], "netns", NAMES[1])  # fmt: skip
    for name, host in zip(NAMES, HOSTS.split(","), strict=True):
        ip("-n", name, "addr", "add", f"{host}/24", "dev", name)
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "link", "set", name, "up")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """The program that starts another one on a host."""
    if "mpich" not in installed_wheels():
        pytest.skip("the launcher of MPICH is told how to reach a namespace")
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces take root and the program ip")
    removed()
    try:
        linked()
    except OSError as error:
        removed()
        pytest.skip(f"no network namespaces here: {error}")
    program = tmp_path / "agent"
    program.write_text(AGENT)
    program.chmod(0o755)
    yield str(program)
    removed()


def trained(agent: str, *arguments: str) -> Launched:
    """Train on both hosts, with only TCP between them."""
    env = {"HYDRA_LAUNCHER": "ssh", "HYDRA_LAUNCHER_EXEC": agent, "UCX_TLS": "tcp,self"}
    within = ("ip", "netns", "exec", NAMES[0])
    return launched(2, *arguments, hosts=HOSTS, within=within, **env)


def test_two_hosts_train_as_one_and_resume_after_an_interruption(
    agent: str, tmp_path: Path
) -> None:
    alone = launched(1).found[0]["found"]
    assert trained(agent).found[0]["found"] == alone

    folder = str(tmp_path / "checkpoints")
    cut = trained(agent, "--fault", "cut", "--deadline", "3", "--folder", folder)
    assert cut.code
    assert cut.seconds < 30
    words = " ".join(cut.errors.split())
    assert "at step 4 (deadline 3 s) no answer from rank 1 of 2" in words
    ip("-n", NAMES[1], "link", "set", NAMES[1], "up")

    resumed = trained(agent, "--folder", folder)
    assert resumed.found[0]["found"] == alone, resumed.errors
