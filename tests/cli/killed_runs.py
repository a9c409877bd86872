"""Runs the command line in forked children that die at a chosen moment; started by test_killed_runs.py.

Reads a list of jobs from standard input: ``{"words": [...], "rename": k}`` dies just before the k-th rename of the run
(every file of a run is written under another name and renamed), ``{"words": [...], "seconds": s}`` after that time,
and ``{"words": [...]}`` runs to its end. Writes for each job how it ended and how many renames it made.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import torch

import kontrast.pipeline.train
import kontrast.systems.pairs
import kontrast.training._engine
from kontrast.cli.main import main


def child(job: dict, report: int) -> None:
    torch.set_num_threads(1)
    kontrast.pipeline.train.installed = lambda extra: False
    renames = 0
    plain = {"rename": os.rename, "replace": os.replace}

    def counted(name):
        def rename(*args, **kwargs):
            nonlocal renames
            renames += 1
            if renames == job.get("rename"):
                os.kill(os.getpid(), signal.SIGKILL)
            return plain[name](*args, **kwargs)

        return rename

    for name in plain:
        setattr(os, name, counted(name))
    if "seconds" in job:
        signal.setitimer(signal.ITIMER_REAL, job["seconds"])
    started = time.monotonic()
    try:
        main(job["words"])
    except SystemExit as end:
        signal.setitimer(signal.ITIMER_REAL, 0)
        facts = {"code": end.code or 0, "renames": renames, "seconds": time.monotonic() - started}
        os.write(report, json.dumps(facts).encode())
    os._exit(0)


def run(job: dict) -> dict:
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reader)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        child(job, writer)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = stream.read()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return json.loads(said) if said else {"killed": -code}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
