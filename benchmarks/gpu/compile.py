"""The Triton kernels compiled for Hopper on a machine without a GPU: registers, spills, shared memory, and whether the matrix units are used as meant.

    python benchmarks/gpu/compile.py --json

Needs the triton extra, not its interpreter. "between" counts the exponentials that stand between two matrix instructions of the machine code: with the next
product begun ahead there are many, without it hardly any.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

CASES = [(128, 128, 1), (128, 64, 1), (128, 32, 1), (128, 128, 7), (128, 64, 7), (64, 128, 1)]
"""head_dim, block_size, heads that share a list."""


class Absent(DriverBase):
    """A driver for a device that is not there: enough to compile for it."""

    def __init__(self, capability: int):
        self.target = GPUTarget("cuda", capability, 32)

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_target(self):
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device=None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self):
        return None

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty


def attention(dim: int, size: int, sharing: int, tuned) -> object:
    from mezzotint.kernels.block_sparse.fused import attend_tiles, described

    heads = 2 * sharing
    q, k = (torch.empty(1, 4096, h, dim, dtype=torch.bfloat16).transpose(1, 2) for h in (heads, 2))
    lists = torch.empty(64, dtype=torch.int32)
    view = described(k, tuned.columns) if tuned.descriptors else (k, (0, 0, 0))
    strides, keys = q.stride()[:3], k.stride()[:3]
    arguments = (q, k, k, view[0], view[0], q, strides, keys, keys, strides, view[1], view[1], *[lists] * 2, q, *[lists] * 3, q)
    cut = {"ROWS": tuned.rows, "COLUMNS": tuned.columns, "PACK": tuned.heads, "DESCRIBED": tuned.descriptors, "AHEAD": tuned.ahead}
    shape = {"LISTS": 2, "SHARING": sharing, "GROUPS": sharing, "DIM": dim, "SIZE": size, "PADDED": False, "SUMMED": False}
    return attend_tiles.warmup(*arguments, 0.1, 32, 32, 4096, 4096, **shape, **cut, num_warps=tuned.warps, num_stages=tuned.stages, grid=(1, 1))


def mass(dim: int, size: int) -> object:
    from mezzotint.kernels.block_mass.fused import TOGETHER, weigh_tiles

    q, numbers, out = torch.empty(1, 4096, 8, dim, dtype=torch.bfloat16).transpose(1, 2), torch.empty(64, dtype=torch.int32), torch.empty(64)
    piece = min(size, 128)
    shape = {"TAKEN": 4, "GROUPS": 1, "DIM": dim, "SIZE": size, "ROWS": piece, "COLUMNS": piece, "PADDED": False, "TOGETHER": TOGETHER}
    arguments = (q, q, q.stride()[:3], q.stride()[:3], numbers, numbers, q, out, out, out, 0.1, 8, 32, 4096, 0)
    return weigh_tiles.warmup(*arguments, **shape, num_warps=8 if piece >= 128 else 4, num_stages=3, grid=(1, 1))


def report(kernel) -> dict:
    """What the machine code says."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage, code = (
            subprocess.run([str(tools / "cuobjdump"), what, file.name], capture_output=True, text=True, check=True).stdout
            for what in ("--dump-resource-usage", "--dump-sass")
        )
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", usage).groups()
    order = re.findall(r"\b(HGMMA|HMMA|MUFU\.EX2|WARPGROUP\.DEPBAR)", code)
    runs = re.findall(r"(?<=m)e+(?=m)", "".join({"HGMMA": "m", "MUFU.EX2": "e", "HMMA": "h"}.get(o, "w") for o in order))
    return {
        "registers": int(registers),
        "spilled_bytes": int(stack),
        "shared_bytes": kernel.metadata.shared,
        "wgmma": order.count("HGMMA"),
        "mma": order.count("HMMA"),
        "waits": order.count("WARPGROUP.DEPBAR"),
        "between": sum(map(len, runs)),
        "bulk_copies": len(re.findall(r"\bUTMALDG", code)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, default=90, help="compute capability without the dot (default: 90, Hopper)")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    triton.runtime.driver.set_active(Absent(args.capability))
    from mezzotint.kernels.block_sparse.fused import tuning

    rows = []
    for dim, size, sharing in CASES:
        tuned = tuning(dim, size, sharing, args.capability >= 90)
        rows.append(
            {"kernel": "attention", "head_dim": dim, "block_size": size, "sharing": sharing, **asdict(tuned), **report(attention(dim, size, sharing, tuned))}
        )
        if sharing == 1:
            rows.append({"kernel": "mass", "head_dim": dim, "block_size": size, **report(mass(dim, size))})
    if not args.json:
        for row in rows:
            print(json.dumps(row))
    print(json.dumps({"rows": rows, "capability": args.capability, "triton": triton.__version__}))


if __name__ == "__main__":
    main()
