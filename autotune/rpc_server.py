"""The machines' side of measuring through TVM's RPC: a tracker, and servers that verify and time what is uploaded to them.

A server is TVM's own, with two functions of ours registered before it starts (:func:`describe`, :func:`measure`). TVM forks a process
for each session; candidates run in a child of that (:mod:`.workers`), so that one that crashes or hangs costs only itself. Whoever
reaches a server can run code on it, as TVM's documentation says: tracker and servers listen on the loopback interface unless
told otherwise, and belong into trusted networks or behind SSH tunnels. A key sorts devices, it keeps nobody out.

TVM's ``rpc.Server`` and ``rpc.tracker.Tracker`` start a further Python process that imports PyTorch for seconds; the states that these
keep in it are started in this process instead.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import platform
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from typing import Any

from ..codegen.space import Config
from ..codegen.target import Target
from ..codegen.task import Task
from ..errors import OptionError
from .building import BuiltKernel
from .cases import KEPT_CASES
from .measure import Caches, Limits, LocalMeasurer, Protocol
from .record_lines import fields_of
from .rpc_tracker import Tracker
from .worker import end_with_parent

REVISION = 2
"""Of what client and server say to each other."""

_PORTS = 100
"""Ports that a server tries, from the one it was given on."""


def serve(host: str, port: int, tracker: Tracker, key: str, ready: Callable[[int], None]) -> None:
    """Serves this machine under ``key`` until the process ends; ``ready`` is told the port.

    OptionError when no port is free, DeviceUnavailableError when the tracker does not answer; later it may go and come again.
    """
    # Sessions are forked from here: what is imported now, they have.
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    import tvm_ffi
    from tvm.rpc.server import PopenRPCServerState

    tracker.servers()
    folder = pathlib.Path.cwd()
    tvm_ffi.register_global_func("mlc.describe", describe)
    tvm_ffi.register_global_func("mlc.measure", measure)
    while True:
        try:
            state = PopenRPCServerState(
                host,
                port,
                port + _PORTS,
                tracker_addr=(tracker.host, tracker.port),
                key=key,
                custom_addr=None if host == "0.0.0.0" else host,
                silent=True,
            )
        except (OSError, ValueError) as error:
            raise OptionError(f"cannot listen on {host}:{port}: {error}; give another --host or --port") from error
        ready(state.port)
        _wait_for(state)
        # A session that crashed took TVM's loop with it, which left the process in the session's folder.
        state.sock.close()
        os.chdir(folder)


def track(host: str, port: int, ready: Callable[[int], None]) -> None:
    """Runs a tracker until the process ends; ``ready`` is told the port."""
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    try:
        from tvm.rpc.tracker import PopenTrackerServerState
    except ImportError as error:
        raise OptionError(f"a tracker needs tornado ({error}); install it with: pip install 'mlc[rpc]'") from error
    try:
        state = PopenTrackerServerState(host, port, port + 1, silent=True)
    except (OSError, ValueError) as error:
        raise OptionError(f"cannot listen on {host}:{port}: {error}; give another --host or --port") from error
    ready(state.port)
    _wait_for(state)


def _wait_for(state: Any) -> None:
    try:
        state.thread.join()
    except KeyboardInterrupt:
        os._exit(130)  # the thread serves on and would keep the process


def describe() -> str:
    """What this machine is, as JSON. The first call of a session."""
    end_with_parent()
    return json.dumps({"revision": REVISION, "target": str(Target.parse("cpu")), "host": platform.node()})


def measure(request: str) -> str:
    """Measures built candidates: JSON of :func:`measurement_request` in, ``{"records": [...]}`` or ``{"error": ...}`` out."""
    try:
        return json.dumps({"records": _measure(json.loads(request))})
    except Exception as error:  # whatever it is, the client must hear of it
        return json.dumps({"error": f"{type(error).__name__}: {error}"})


def _measure(request: dict[str, Any]) -> list[dict[str, object]]:
    task = Task.parse(request["task"])
    built: dict[Config, BuiltKernel | str] = {}
    for text, document in request["built"]:
        if isinstance(document, dict):
            document = BuiltKernel.of(document | {"library": _uploaded(document["library"])})
        built[Config.parse(text)] = document
    measurer = _measurer(request["protocol"], request["limits"])
    records = measurer.measure_built(task, list(built), built, _case(request["case"]))
    return [fields_of(record) for record in records]


@functools.cache
def _measurer(protocol: str, limits: str) -> LocalMeasurer:
    """The measurer of this session, which writes to the session's folder: TVM removes that at the end."""
    tempfile.tempdir = str(_uploaded("."))
    return LocalMeasurer(protocol=read_protocol(protocol), limits=Limits(**json.loads(limits)))


def _uploaded(name: str) -> pathlib.Path:
    """Where an uploaded file lies."""
    import tvm_ffi

    return pathlib.Path(tvm_ffi.get_global_func("tvm.rpc.server.workpath")(name))


def _case(archive: str) -> pathlib.Path:
    """The manifest of an uploaded case, which is unpacked first."""
    packed, folder = _uploaded(archive), _uploaded(archive).with_suffix("")
    if packed.exists():
        others = sorted(packed.parent.glob("case-*/"), key=lambda kept: kept.stat().st_mtime)
        for old in others[: 1 - KEPT_CASES]:
            shutil.rmtree(old, ignore_errors=True)
        with tarfile.open(packed) as members:
            members.extractall(folder, filter="data")
        packed.unlink()
    return folder / "case.json"


def protocol_text(protocol: Protocol) -> str:
    """A protocol as JSON."""
    return json.dumps({**dataclasses.asdict(protocol), "caches": protocol.caches.value})


def read_protocol(text: str) -> Protocol:
    fields = json.loads(text)
    return Protocol(**{**fields, "caches": Caches(fields["caches"])})
