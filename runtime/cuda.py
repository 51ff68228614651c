"""Programs for NVIDIA GPUs: the weights live on the device, torch CUDA tensors are passed as they are, host tensors are copied.

The program's own C entry launches the kernels (``codegen/native/cuda_launch.c``); here is what surrounds it: memory, copies, streams.
"""

from __future__ import annotations

import contextlib
import ctypes
import statistics
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ..errors import ArtifactError, DeviceUnavailableError, KernelError, SignatureError
from ..ir.program import TensorSpec
from . import _native, cuda_driver
from .cuda_driver import CudaDevice, CudaEvent
from .executable import Executable
from .frameworks import framework_of, is_torch_tensor, nbytes, random_inputs, row_major_strides, torch_framework
from .report import ProgramReport
from .states import State, States

_ALIGNMENT = 256
_ERROR_BYTES = 256

_PROFILE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32)


class _Context(ctypes.Structure):
    """``mlc_context`` of ``native/mlc_abi.h``."""

    _fields_ = (
        ("abi_version", ctypes.c_uint32),
        ("threads", ctypes.c_int32),
        ("constants", ctypes.c_void_p),
        ("parallel_for", ctypes.c_void_p),
        ("profile", ctypes.c_void_p),
        ("profile_data", ctypes.c_void_p),
        ("stream", ctypes.c_void_p),
        ("error", ctypes.c_char_p),
        ("user", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class _Place:
    """Where a call runs: the device, the stream, and the torch device that outputs shall be on (None: on the host)."""

    device: CudaDevice
    stream: int
    torch_device: Any


@dataclass(frozen=True)
class _Buffer:
    """An input, an output or a state of a call: where it lies, and whether the program reads and writes it."""

    spec: TensorSpec
    tensor: Any
    address: int
    read: bool
    written: bool

    @property
    def on_device(self) -> bool:
        return _is_on_device(self.tensor)

    @property
    def nbytes(self) -> int:
        return nbytes(self.spec)


class CudaExecutable(Executable):
    """One compiled signature for a GPU.

    Outputs are CUDA tensors if any input is one, and are then ready in the order of torch's current stream, which the kernels run on.
    Otherwise inputs and outputs are on the host, and a call returns when the outputs are there. DeviceUnavailableError without a GPU.
    """

    dispatches: ClassVar[bool] = False

    @cached_property
    def _entry(self) -> Any:
        try:
            entry = getattr(ctypes.CDLL(str(self.library)), self.program.entry)
        except (OSError, AttributeError) as error:
            name = self.program.name
            raise ArtifactError(f"the native library of '{name}' cannot be loaded: {error}; compile the model again") from error
        entry.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        entry.restype = ctypes.c_int32
        return entry

    @cached_property
    def _constants(self) -> dict[CudaDevice, int]:
        """Address of the weights on each device that a call has run on."""
        return {}

    def make_runner(self, states: Sequence[State], guard: _native.Guard) -> _native.Runner:
        raise DeviceUnavailableError(f"'{self.program.name}' is a program for '{self.program.target}', which no native runner calls")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call_generally(args, kwargs)

    def check(self, leaves: Sequence[Any]) -> None:
        """SignatureError unless every flat input has the spec's dtype and shape, and all CUDA tensors are on one device."""
        leaves = leaves[: len(self.signature.inputs)]
        framework = framework_of(leaves)
        for spec, leaf in zip(self.signature.inputs, leaves, strict=True):
            if _is_on_device(leaf):
                torch_framework().check_anywhere(spec, leaf)
            elif framework.check(spec, leaf) is not leaf and spec.mutated:
                raise SignatureError(f"input '{spec.name}' is changed in place; pass a tensor or an array, not a {type(leaf).__name__}")
        devices = {leaf.device for leaf in leaves if _is_on_device(leaf)}
        if len(devices) > 1:
            raise SignatureError(f"the inputs are on different devices ({', '.join(sorted(map(str, devices)))}); move them to one")

    def run(self, leaves: Sequence[Any], states: States | None = None) -> Any:
        """Runs on the flat inputs (behind them the objects that the result contains) and gives the outputs in their structure."""
        return self._run(leaves, states if states is not None else self.states, None)

    def profile(self, leaves: Sequence[Any] | None = None, *, calls: int = 20, warmup: int = 3) -> ProgramReport:
        """Runs the program ``calls`` times after ``warmup`` and reports the median time of each kernel on the device."""
        if calls < 1:
            raise ValueError("profile needs at least one call")
        leaves = random_inputs(self.signature) if leaves is None else leaves
        samples = []
        for _ in range(warmup + calls):
            recorder = _Recorder(len(self.program.calls))
            self._run(leaves, self.states, recorder)
            samples.append(recorder.seconds)
        return self.report([statistics.median(times) for times in zip(*samples[warmup:], strict=True)])

    def _run(self, leaves: Sequence[Any], states: States, recorder: _Recorder | None) -> Any:
        self.check(leaves)
        count = len(self.signature.inputs)
        given, passed = leaves[:count], leaves[count:]
        place = self._place(given)
        framework = framework_of(given)
        inputs = [self._input(spec, leaf, framework) for spec, leaf in zip(self.signature.inputs, given, strict=True)]
        self._check_overlaps(self.signature, inputs)
        outputs = [_empty_on(spec, place.torch_device) if place.torch_device else framework.empty(spec) for spec in self.signature.outputs]
        with states.guard if self.program.states else contextlib.nullcontext():
            if not states.direct:
                states.fetch()
            held = states.of(self)
            ends = self.signature
            buffers = [
                *(_Buffer(spec, *tensor, read=True, written=spec.mutated) for spec, tensor in zip(ends.inputs, inputs, strict=True)),
                *(_Buffer(spec, *tensor, read=False, written=True) for spec, tensor in zip(ends.outputs, outputs, strict=True)),
                *(_Buffer(state.spec, state.tensor, state.address, read=True, written=True) for state in held),
            ]
            self._run_on(place, buffers, recorder)
            if not states.direct:
                states.store()
        for index in self._mutated:
            if inputs[index][0] is not given[index]:
                framework.assign(given[index], inputs[index][0])
        if self._mutated:
            framework.note_mutation([given[index] for index in self._mutated])
        return self._build([*(tensor for tensor, _ in outputs), *(passed if self._mutated else ())])

    def _run_on(self, place: _Place, buffers: Sequence[_Buffer], recorder: _Recorder | None) -> None:
        """Runs with these inputs, outputs and states; those on the host are copied to the device and back."""
        device, stream = place.device, place.stream
        offsets, staging_bytes = _offsets([0 if buffer.on_device else buffer.nbytes for buffer in buffers])
        with device.current(), device.scratch(staging_bytes + self.program.arena_bytes + _ALIGNMENT, stream) as memory:
            io = [buffer.address if buffer.on_device else memory + offset for buffer, offset in zip(buffers, offsets, strict=True)]
            staged = [(buffer, address) for buffer, address in zip(buffers, io, strict=True) if not buffer.on_device]
            for buffer, address in staged:
                if buffer.read:
                    device.upload(address, buffer.address, buffer.nbytes, stream)
            self._launch(place, io, memory + staging_bytes, recorder)
            for buffer, address in staged:
                if buffer.written:
                    device.download(buffer.address, address, buffer.nbytes, stream)
            if staged or recorder is not None:
                device.synchronise(stream)
            if recorder is not None:
                recorder.finish()

    def _launch(self, place: _Place, io: Sequence[int], arena: int, recorder: _Recorder | None) -> None:
        """Calls the entry, which enqueues every kernel."""
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        hook = _PROFILE(recorder.hook(place)) if recorder is not None else None
        context = _Context(
            abi_version=_native.ABI_VERSION,
            threads=1,
            constants=self._weights_on(place.device),
            profile=ctypes.cast(hook, ctypes.c_void_p) if hook is not None else None,
            stream=place.stream or None,
            error=ctypes.cast(error, ctypes.c_char_p),
        )
        addresses = (ctypes.c_void_p * max(len(io), 1))(*io)
        code = self._entry(ctypes.byref(context), addresses, None, arena)
        if code != 0:
            text = error.value.decode(errors="replace")
            raise KernelError(f"a kernel of '{self.program.name}' could not be launched (code {code}): {text}")

    def _weights_on(self, device: CudaDevice) -> int | None:
        """The address of the weights on ``device``, copied there at the first call."""
        if not self.program.constant_bytes:
            return None
        if device not in self._constants:
            weights = np.frombuffer(memoryview(self.weights), np.uint8)[: self.program.constant_bytes]
            address = device.allocate(weights.nbytes)
            device.upload(address, weights.ctypes.data, weights.nbytes)
            device.synchronise()
            weakref.finalize(self, device.release, address).atexit = False
            self._constants[device] = address
        return self._constants[device]

    def _place(self, leaves: Sequence[Any]) -> _Place:
        """The device of the CUDA tensors and torch's stream there, else the first device and its default stream."""
        tensor = next((leaf for leaf in leaves if _is_on_device(leaf)), None)
        number = 0 if tensor is None else int(tensor.device.index or 0)
        device = cuda_driver.device(number)
        wanted = int(self.program.target.partition("-arch=sm_")[2].split()[0])
        if device.capability < wanted:
            raise DeviceUnavailableError(
                f"'{self.program.name}' was compiled for '{self.program.target}', the GPU here is of architecture sm_{device.capability}; "
                f"compile it with target='cuda -arch=sm_{device.capability}'"
            )
        if tensor is None:
            return _Place(device, 0, None)
        return _Place(device, int(sys.modules["torch"].cuda.current_stream(tensor.device).cuda_stream), tensor.device)

    @staticmethod
    def _input(spec: TensorSpec, leaf: Any, framework: Any) -> tuple[Any, int]:
        """A dense row-major tensor with the content of an input, and its address."""
        if not _is_on_device(leaf):
            prepared: tuple[Any, int] = framework.prepare(spec, leaf)
            return prepared
        plain = leaf.is_contiguous() and not leaf.is_conj() and not leaf.is_neg()
        dense = leaf if plain else leaf.detach().resolve_conj().resolve_neg().contiguous()
        return dense, dense.data_ptr()


class _Recorder:
    """Events around every kernel call of a program, and the seconds that each call took in all."""

    def __init__(self, calls: int) -> None:
        self._events: list[list[CudaEvent]] = [[] for _ in range(calls)]
        self.seconds: list[float] = []

    def hook(self, place: _Place) -> Any:
        def record(context: int, call: int, begin: int) -> None:
            self._events[call].append(place.device.mark(place.stream))

        return record

    def finish(self) -> None:
        """Reads the events, which have happened."""
        # A call in a loop runs several times, one in a branch perhaps not at all.
        self.seconds = [sum(after.seconds_since(before) for before, after in zip(own[::2], own[1::2], strict=True)) for own in self._events]
        for own in self._events:
            for event in own:
                event.destroy()


def _is_on_device(value: Any) -> bool:
    return is_torch_tensor(value) and value.device.type == "cuda"


def _empty_on(spec: TensorSpec, device: Any) -> tuple[Any, int]:
    framework = torch_framework()
    shape = spec.static_shape
    tensor = framework.torch.empty_strided(shape, row_major_strides(shape), dtype=framework.dtypes[spec.dtype], device=device)
    return tensor, tensor.data_ptr()


def _offsets(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Aligned offsets of buffers one after the other, and where the last ends."""
    offsets, end = [], 0
    for size in sizes:
        offsets.append(end)
        end += -(-size // _ALIGNMENT) * _ALIGNMENT
    return offsets, end
