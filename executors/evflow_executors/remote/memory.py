"""Whether the kernel killed a process of this container for want of memory.

A platform says so of a container whose first process was killed. The kernel chooses the largest one, which is the step's; only newer kubelets have it kill
all of them together. So whoever outlives it looks at the counter of the container's cgroup (`memory.events`, or `memory.oom_control` of version 1).
"""

from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")
_COUNTERS: Final = ("memory.events", "memory/memory.oom_control")
TOO_LITTLE: Final = (
    "A process of the step was killed because its container used more memory than it may, or its machine had no more. "
    "Give the step more: @resources(memory=…), in MB."
)


def killed_for_memory(cgroup: Path = _CGROUP) -> int:
    """How many processes of this container were killed so; 0 where the kernel does not tell. Blocking."""
    for name in _COUNTERS:
        try:
            lines = (cgroup / name).read_text("ascii").splitlines()
        except OSError:
            continue
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0
