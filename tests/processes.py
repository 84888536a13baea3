"""Starts tests/process_group.py and asks it for jobs on several processes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

LIMIT = 60.0  # seconds after which a process counts as hung


class Processes:
    """The server of process_group.py: runs a job on some processes; gives exit codes and what each of them logged."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("process_group.py")
        self.server = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       text=True, bufsize=1)

    def run(self, folder: Path, size: int, job: str, **arguments: Any) -> tuple[list[int], list[dict[str, Any]]]:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        order = {"folder": str(folder), "size": size, "job": job, "limit": LIMIT, **arguments}
        watch = threading.Timer(2 * LIMIT, self.server.kill)  # a server that hangs ends the test too
        watch.start()
        self.server.stdin.write(json.dumps(order) + "\n")
        answer = self.server.stdout.readline()
        watch.cancel()
        logs = [folder / f"log-{rank}.json" for rank in range(size)]
        return json.loads(answer), [json.loads(log.read_text()) if log.exists() else {} for log in logs]

    def close(self) -> None:
        """Ends the server."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.close()
        self.server.stdout.close()
        self.server.wait(LIMIT)

    def train(self, run: Path, size: int, settings: list[str], **arguments: Any) -> list[dict[str, Any]]:
        codes, logs = self.run(run.with_name(f"{run.name} of {size}"), size, "train", run=str(run), settings=settings,
                               **arguments)
        assert codes == [0] * size, [log.get("error") for log in logs]
        return logs
