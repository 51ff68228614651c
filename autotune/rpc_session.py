"""A session with one device over TVM's RPC, in a process of its own: calls that never return can then be given up.

Served by a :class:`~.workers.Worker`.
"""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import sys
import tarfile
import tempfile
from typing import Any

from ..codegen.task import Task
from ..errors import DeviceUnavailableError, MeasurementError
from .cases import KEPT_CASES, Cases
from .rpc_server import REVISION


class RpcSession:
    """Uploads what a device does not have yet, and has it measured there."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mlc-rpc-")
        self._cases: Cases | None = None
        self._session: Any = None
        self._libraries: set[str] = set()
        self._archives: list[str] = []

    def connect(self, host: str, port: int, key: str, seed: int) -> dict[str, Any]:
        """Opens the session; what the device says of itself (:func:`~.rpc_server.describe`). ``seed`` fixes inputs."""
        from tvm import rpc

        self._cases = Cases(pathlib.Path(self._folder.name) / "cases", seed)
        self._session = rpc.connect(host, port, key)
        try:
            describe = self._session.get_function("mlc.describe")
        except Exception as error:
            raise DeviceUnavailableError(f"no server of mlc; start 'mlc devices serve' there ({error})") from error
        found: dict[str, Any] = json.loads(describe())
        if found["revision"] != REVISION:
            raise DeviceUnavailableError(f"a server of another version of mlc (revision {found['revision']}, not {REVISION}); update it")
        return found

    def measure(self, task: str, built: list[tuple[str, Any]], protocol: str, limits: str) -> Any:
        """Records, as JSON-like data, of ``built``: pairs of a config and a built kernel's document, or why there is none.

        A text instead says why none of them can be measured. DeviceUnavailableError when the device cannot measure at all.
        """
        assert self._cases is not None
        parsed = Task.parse(task)
        try:
            case = self._cases.manifest(parsed)
        except MeasurementError as error:
            return str(error)
        archive = self._upload_case(parsed, case.parent)
        there = [(config, document if isinstance(document, str) else self._upload_library(document)) for config, document in built]
        request = {"task": task, "built": there, "case": archive, "protocol": protocol, "limits": limits}
        answer = json.loads(self._session.get_function("mlc.measure")(json.dumps(request)))
        if "error" in answer:
            raise DeviceUnavailableError(answer["error"])
        return answer["records"]

    def _upload_library(self, document: dict[str, Any]) -> dict[str, Any]:
        """The document with the name that the library has on the device."""
        content = pathlib.Path(document["library"]).read_bytes()
        name = f"{hashlib.sha256(content).hexdigest()[:24]}.so"
        if name not in self._libraries:
            self._session.upload(bytearray(content), name)
            self._libraries.add(name)
        return document | {"library": name}

    def _upload_case(self, task: Task, folder: pathlib.Path) -> str:
        """The name of the case's archive on the device, which keeps the latest few."""
        name = f"case-{task.key}.tar"
        if name not in self._archives:
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w") as archive:
                for path in sorted(folder.iterdir()):
                    archive.add(path, path.name)
            self._session.upload(bytearray(packed.getbuffer()), name)
            self._archives = [*self._archives, name][-KEPT_CASES:]
        return name


def session() -> RpcSession:
    """A session in a process without torch: tvm_ffi would import it, for seconds, in vain."""
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    return RpcSession()
