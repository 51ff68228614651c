"""Workers as seen by the harness: processes that are stopped while it is not their turn.

A system's threads may go on waiting for work in busy loops after a call, and would take time from the others' rounds. Signals stop and
continue a worker with all its threads, so that no system's way of waiting needs to be changed, which would change its speed.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import IO, Any

from ..errors import MeasurementError
from .work import Work

PATIENCE = 1800.0
"""Seconds to wait for a worker to be ready, or to answer."""


class Worker:
    """A process that runs one system on one model; ready, and stopped, once constructed.

    ``options`` are those of the system's class. Raises MeasurementError when the process fails, and when it takes longer than ``patience``
    seconds.
    """

    def __init__(
        self,
        spec: str,
        system: str,
        threads: int,
        folder: pathlib.Path,
        patience: float = PATIENCE,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        request = json.dumps({"model": spec, "system": system, "threads": threads, "options": dict(options or {})})
        self._patience = patience
        self._log: IO[str] = open(folder / f"{system}.log", "w+")  # noqa: SIM115 - closed with the worker
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlc.benchmarks.worker", request],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
            # A group of its own takes compilers that it starts along when it is stopped or ended. Should the harness die, the
            # group is orphaned, and the kernel hangs up on it even while it is stopped.
            process_group=0,
        )
        try:
            ready = self._answer()
        except BaseException:
            self.close()
            raise
        self.prepare_s: float = ready["prepare_s"]
        self.moved: int = ready["moved"]
        self.work = Work(**(ready["work"] or {}))
        self._signal(signal.SIGSTOP)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, **command: Any) -> dict[str, Any]:
        """The answer to a command (see :mod:`.worker`); the process runs only as long as this takes."""
        assert self._process.stdin is not None, "opened as a pipe"
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):  # the answer says why
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        try:
            answer = self._answer()
        except MeasurementError:
            self._signal(signal.SIGKILL)  # nothing more is expected of it, and it must not disturb the others
            raise
        self._signal(signal.SIGSTOP)
        return answer

    def close(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.communicate()
        self._log.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.killpg(self._process.pid, number)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "opened as a pipe"
        begin = time.monotonic()
        ready, _, _ = select.select([self._process.stdout], [], [], self._patience)
        if not ready:
            raise MeasurementError(f"not done within {time.monotonic() - begin:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            last = [text for text in self._log.read().splitlines() if text.strip()][-3:]
            raise MeasurementError(f"the process ended with code {code}: " + " | ".join(last))
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise MeasurementError(answer["failed"])
        return answer
