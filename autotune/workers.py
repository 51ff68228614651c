"""Worker processes that may crash or hang: each costs the request in flight, and the next request gets a fresh process.

A worker is a Python process that serves one object's methods over its pipes, one JSON document a line (see :mod:`.worker`). It
runs in a session of its own, so that Ctrl-C reaches the parent alone, which then ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from ..errors import MeasurementError


class WorkerLost(MeasurementError):
    """The worker crashed or exceeded its time; what it was asked for did not happen."""


class Worker:
    """A process that serves the object that ``factory`` makes, restarted when it is lost.

    ``factory`` is ``package.module:name`` or ``file.py:name``. ``generation`` counts the processes started, so that a caller knows
    when state it had put into the worker is gone. ``memory_bytes`` limits the process' data (None: no limit). Temporary files of the
    process go to ``folder``, since it has no chance to remove them.
    """

    def __init__(self, factory: str, *, folder: pathlib.Path | None = None, memory_bytes: int | None = None) -> None:
        self.factory = factory
        self.folder = folder
        self.memory_bytes = memory_bytes
        self.generation = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: Any = None

    def start(self) -> None:
        """Starts the process if there is none, without waiting for it."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        self._errors = tempfile.TemporaryFile(prefix="mlc-worker-")  # noqa: SIM115  # closed in close()
        command = [sys.executable, "-m", "mlc.autotune.worker", self.factory, str(self.memory_bytes or 0)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | ({"TMPDIR": str(self.folder)} if self.folder is not None else {}),
            start_new_session=True,
            bufsize=0,
        )
        self.generation += 1

    def request(self, method: str, timeout: float, **arguments: Any) -> Any:
        """The result of a method of the served object. WorkerLost, MeasurementError for an error it raised."""
        self.start()
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        line = json.dumps({"method": method, "arguments": arguments}).encode() + b"\n"
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(line)
            answer = self._read_line(process, time.monotonic() + timeout)
        except BaseException:  # Ctrl-C included: an answer still to come must not be taken for the next one's
            self.close()
            raise
        if answer is None:
            raise WorkerLost(self._epitaph(process, method))
        document = json.loads(answer)
        if "error" in document:
            raise MeasurementError(document["error"])
        return document["result"]

    def _read_line(self, process: subprocess.Popen[bytes], deadline: float) -> bytes | None:
        """The next line of the worker, None when it ended; WorkerLost when the deadline passes."""
        assert process.stdout is not None
        received = b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise WorkerLost("timed out: the worker was ended")
                part = os.read(process.stdout.fileno(), 1 << 16)
                if not part:
                    return None
                received += part
        return received

    def _epitaph(self, process: subprocess.Popen[bytes], method: str) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        if process.poll() is None:
            process.kill()
        code = process.wait()
        reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._errors.seek(max(0, os.fstat(self._errors.fileno()).st_size - 2000))
        last = self._errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        return f"crashed during {method}: {reason}" + (f"; {last[-1]}" if last else "")

    def close(self) -> None:
        """Ends the process, at once."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()
