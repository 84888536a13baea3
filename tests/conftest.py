"""What every test stands on: one thread a worker, no network, a cache of its own, the same examples every time."""
# ruff: noqa: E402 (the numbers of threads must be set before torch and numpy are imported)

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path

# Inherited by the commands that tests start: two workers on two cores.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["MPLBACKEND"] = "agg"

import pytest
import torch
from hypothesis import settings

from tests.processes import Processes

torch.set_num_threads(1)
settings.register_profile("tests", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("tests")

Address = tuple[str, int] | tuple[str, int, int, int] | str | bytes


def refuse_strangers(address: Address) -> None:
    """RuntimeError where `address` is not on this machine: no test needs the network."""
    if isinstance(address, (str, bytes)):  # a socket in the file system
        return
    host = address[0]
    local = host == "localhost"
    if not local:
        try:
            local = ipaddress.ip_address(host).is_loopback
        except ValueError:
            local = False
    if not local:
        raise RuntimeError(f"a test tried to reach {host}: no test needs the network")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection from this process to anywhere but this machine is refused."""
    connect = socket.socket.connect

    def guarded(this: socket.socket, address: Address) -> None:
        refuse_strangers(address)
        connect(this, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def own_determinism() -> Iterator[None]:
    """What a training asks of torch ends with its test: no other test depends on which ran before it."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    """Several real processes, forked by a server that lives as long as the module's tests."""
    one = Processes()
    yield one
    one.close()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache and data folders are neither read nor written by tests."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    cache.mkdir(exist_ok=True)
    if "MPLCONFIGDIR" not in os.environ:  # matplotlib's list of fonts takes seconds to make: once a session
        monkeypatch.setenv("MPLCONFIGDIR", str(cache))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv("LAYERWISE_DATA", raising=False)
    return cache
