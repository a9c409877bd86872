"""The script that kills commands at random moments, in a reduced form."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_anywhere.py"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_five_kills_leave_readable_runs_that_go_on():
    words = [sys.executable, str(SCRIPT), "--kills", "5", "--seed", "1"]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.endswith("5 kills, 0 faults\n")
