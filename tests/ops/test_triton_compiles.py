"""The kernels compile for the GPUs they are meant for, ahead of time and without one: Ampere and Hopper."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

# In a process of its own: this one may have Triton's interpreter on.
SCRIPT = """
import json, re, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from kontrast.ops import triton_kernels
from kontrast.ops.triton_tiles import BLOCKS

def build(name, kind, capability):
    kernel, block = getattr(triton_kernels, name), BLOCKS[kind]
    constants = dict(
        COUNT=2, ROWS=True, COLUMNS=True, KEYS=1, WITHIN=False, SLOTS=2, BLOCK_ROWS=block.rows,
        BLOCK_COLUMNS=block.columns, BLOCK_WIDTH=block.width, PRECISION="ieee" if kind == "bfloat16" else kind,
    )
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    rows = "*bf16" if kind == "bfloat16" else "*fp32"
    types = dict(
        q=rows, k=rows, out=rows, row_codes="*i32", column_codes="*i32", slots="*i32", beta_0="fp32", beta_1="fp32",
        r0="i32", r1="i32", c0="i32", c1="i32", n="i32", m="i32", d="i32",
    )
    signature = {key: "constexpr" if key in constants else types.get(key, "*fp32") for key in kernel.arg_names}
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, key in enumerate(kernel.arg_names)
        if signature[key].startswith("*") or key == "d"
    }
    source = ASTSource(
        fn=kernel, signature=signature, attrs=aligned,
        constexprs={(kernel.arg_names.index(key),): value for key, value in constants.items()},
    )
    options = {"num_warps": block.warps, "num_stages": block.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    ptx = compiled.asm["ptx"]
    return {
        "kernel": name, "kind": kind, "shared": compiled.metadata.shared, "binary": len(compiled.asm["cubin"]),
        "wgmma": "wgmma.mma_async" in ptx, "mma": "mma.sync" in ptx,
        "atomic": re.search(r"(?<![a-z])(atom|red)\\.", ptx) is not None,
    }

print(json.dumps([build(name, kind, int(sys.argv[1])) for name, kind in json.loads(sys.argv[2])]))
"""

# Shared memory of one program, in KiB, at most: of compute capability 8.6 for Ampere, of 9.0 for Hopper.
SHARED = {80: 99, 90: 227}


KERNELS = [
    ("logsumexp_parts", "bfloat16"),
    ("logsumexp_weights", "bfloat16"),
    ("softplus_parts", "tf32x3"),
    ("softplus_weights", "bfloat16"),
    ("logsumexp_weights", "tf32"),
    ("logsumexp_weights", "ieee"),
]


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile(capability: int) -> None:
    variables = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(capability), json.dumps(KERNELS)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, env=variables)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert len(found) == len(KERNELS)
    for one in found:
        assert one["binary"] > 0, one
        assert one["shared"] <= SHARED[capability] * 1024, one
        assert not one["atomic"], f"atomics would make the bits depend on timing: {one}"
        if one["kind"] != "ieee":
            assert one["wgmma" if capability == 90 else "mma"], f"no tensor cores: {one}"
