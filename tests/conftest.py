"""What all tests share: threads, real data, and a plug-in that is installed the way pip installs one."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

# The suite runs in one process per core (pytest -n), so each of them, and what it starts, keeps to one thread. Threads
# of several processes that wait for each other inside every small operation would make the tests many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

HERE = Path(__file__).parent
torch.set_num_threads(1)
HAS_GPU = torch.cuda.is_available()
if not HAS_GPU:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what this machine has nothing to run on."""
    if item.get_closest_marker("gpu") and not HAS_GPU:
        pytest.skip("needs a CUDA GPU")
    if item.get_closest_marker("interpreted"):
        if HAS_GPU:
            pytest.skip("Triton kernels run on the GPU here, not in the interpreter")
        pytest.importorskip("triton", reason="Triton is not installed")


@pytest.fixture(autouse=True)
def _same_draws():
    """A test's unseeded draws do not depend on the tests that ran before it in its process."""
    seed = int(os.environ.get("KONTRAST_TEST_SEED", "0"))  # other seeds find tests that pass by luck
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - what libraries draw from
    torch.manual_seed(seed)


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data sets; a test that asks for it skips where there is none."""
    folder = Path(os.environ.get("KONTRAST_DATA", HERE.parent.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set KONTRAST_DATA)")
    return folder


def install_plugin(site: Path) -> None:
    """Puts the toy plug-in into a site folder with the metadata that pip writes."""
    (site / "kontrast_toy.py").write_text((HERE / "plugin" / "kontrast_toy.py").read_text())
    info = site / "kontrast_toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kontrast-toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kontrast.systems]\ntoy = kontrast_toy:Toy\n")


@pytest.fixture(scope="session")
def plugin(tmp_path_factory):
    """A folder on the path with the toy plug-in in it."""
    site = tmp_path_factory.mktemp("site")
    install_plugin(site)
    sys.path.insert(0, str(site))
    yield site
    sys.path.remove(str(site))
