"""What torchrun starts for each process of a node: the share of its rank, as if a scheduler had started that share.

    python -m torch.distributed.run ... -m eval.benchmarks.node_process JOB.json CACHE

Shares talk to each other through the folder alone, so nothing of torchrun's goes on but the number of the share, and
which GPU is this process': it sees that one alone. Imports nothing that could have asked for GPUs before.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from eval import PACKAGE

# a library that finds these would join a process group, and wait for shares that need not run any more
_OF_THE_GROUP = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")


def process_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a share from that of a process of torchrun: no group, and one GPU where there are any."""
    found = {
        name: value
        for name, value in env.items()
        if name not in _OF_THE_GROUP and not name.startswith(("TORCHELASTIC_", "ROLE_", "GROUP_WORLD"))
    }
    found.pop("ACCELERATE_USE_CPU", None)  # else the stock models would look for one GPU per process
    local, visible = int(env["LOCAL_RANK"]), env.get("CUDA_VISIBLE_DEVICES")
    devices = None if visible is None else [device for device in visible.split(",") if device.strip()]
    if devices is None:
        found["CUDA_VISIBLE_DEVICES"] = str(local)
    elif devices:
        found["CUDA_VISIBLE_DEVICES"] = devices[local % len(devices)]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Become the share of this rank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", help="file of the run, kept for the other processes")
    parser.add_argument("cache", help="folder for the library of the questions")
    given = parser.parse_args(arguments)
    share = ["--share", os.environ["RANK"], "--keep"]
    command = [sys.executable, "-m", f"{PACKAGE}.benchmarks.shares", given.job, given.cache, *share]
    os.execve(sys.executable, command, process_environment(os.environ))


if __name__ == "__main__":
    main()
