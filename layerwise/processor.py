"""How many processor cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path


def cores() -> int:
    """The processor cores this process may use: its affinity, and the quota of its control group where one is set."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        limit, period = quota.read_text().split()
        if limit != "max":
            count = min(count, max(1, round(int(limit) / int(period))))
    return count
