"""The CUDA driver through its C interface: devices, memory, copies, streams and events. Opened when first needed, never at import."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any

from ..errors import DeviceUnavailableError, KernelError

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*."""

REMEDY = "run it on a machine with an NVIDIA GPU and its driver, or compile it with target='cpu'; it can be saved here all the same"


class CudaDriver:
    """The functions of libcuda that programs need; ``$MLC_CUDA_DRIVER`` names another library. DeviceUnavailableError without a GPU."""

    def __init__(self) -> None:
        name = os.environ.get("MLC_CUDA_DRIVER") or "libcuda.so.1"
        try:
            self._library = ctypes.CDLL(name)
        except OSError as error:
            raise DeviceUnavailableError(f"there is no CUDA driver on this machine ({error}); {REMEDY}") from None
        code = self._library.cuInit(0)
        count = ctypes.c_int()
        if code == 0:
            code = self._library.cuDeviceGetCount(ctypes.byref(count))
        if code != 0 or count.value == 0:
            raise DeviceUnavailableError(f"there is no NVIDIA GPU that this process may use ({self.error(code)}); {REMEDY}")
        self.devices = count.value

    def error(self, code: int) -> str:
        """The driver's words for an error code."""
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(code, ctypes.byref(text))
        return text.value.decode() if text.value else f"CUDA error {code}"

    def call(self, function: str, *arguments: Any) -> None:
        """Calls a function of the driver; KernelError, with its words, when it fails (also with what a kernel did before)."""
        code = getattr(self._library, function)(*arguments)
        if code != 0:
            raise KernelError(f"{function} failed: {self.error(code)}")


@functools.cache
def driver() -> CudaDriver:
    """The driver of this machine; DeviceUnavailableError without a GPU."""
    return CudaDriver()


class CudaDevice:
    """One GPU in its primary context, which torch uses as well. Memory is kept for the next call that runs on the same stream."""

    def __init__(self, number: int) -> None:
        self._driver = driver()
        handle, context = ctypes.c_int(), ctypes.c_void_p()
        self._driver.call("cuDeviceGet", ctypes.byref(handle), number)
        self._driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
        self._context = context
        self.capability = 10 * self._attribute(_CAPABILITY_MAJOR, handle) + self._attribute(_CAPABILITY_MINOR, handle)
        self._idle: dict[int, list[tuple[int, int]]] = {}
        self._lock = threading.Lock()

    def _attribute(self, attribute: int, handle: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self._driver.call("cuDeviceGetAttribute", ctypes.byref(value), attribute, handle)
        return value.value

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes this device's context that of the thread."""
        before = ctypes.c_void_p()
        self._driver.call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self._driver.call("cuCtxPopCurrent_v2", ctypes.byref(before))

    def allocate(self, nbytes: int) -> int:
        """The address of new device memory."""
        address = ctypes.c_uint64()
        self._driver.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(nbytes, 1)))
        return address.value

    def free(self, address: int) -> None:
        """Frees what :meth:`allocate` gave."""
        self._driver.call("cuMemFree_v2", ctypes.c_uint64(address))

    def release(self, address: int) -> None:
        """Frees memory whose owner is gone, whatever context is current; once the driver has shut down there is nothing to free."""
        with contextlib.suppress(KernelError), self.current():
            self.free(address)

    @contextlib.contextmanager
    def scratch(self, nbytes: int, stream: int) -> Iterator[int]:
        """Memory for what is enqueued on ``stream`` meanwhile; calls on the same stream follow each other and so may share it."""
        with self._lock:
            idle = self._idle.setdefault(stream, [])
            fitting = [block for block in idle if block[0] >= nbytes]
            # One that is too small makes room for one that is not.
            block = min(fitting) if fitting else max(idle, default=None)
            if block is not None:
                idle.remove(block)
        if block is not None and block[0] < nbytes:
            self.free(block[1])
            block = None
        block = block or (nbytes, self.allocate(nbytes))
        try:
            yield block[1]
        finally:
            with self._lock:
                self._idle[stream].append(block)

    def upload(self, address: int, host: int, nbytes: int, stream: int = 0) -> None:
        """Enqueues a copy from host memory."""
        if nbytes:
            self._driver.call(
                "cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), ctypes.c_void_p(host), ctypes.c_size_t(nbytes), ctypes.c_void_p(stream)
            )

    def download(self, host: int, address: int, nbytes: int, stream: int = 0) -> None:
        """Enqueues a copy to host memory."""
        if nbytes:
            self._driver.call(
                "cuMemcpyDtoHAsync_v2", ctypes.c_void_p(host), ctypes.c_uint64(address), ctypes.c_size_t(nbytes), ctypes.c_void_p(stream)
            )

    def synchronise(self, stream: int = 0) -> None:
        """Waits for all that was enqueued on ``stream``; KernelError when any of it failed."""
        self._driver.call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def mark(self, stream: int) -> CudaEvent:
        """An event at this point of ``stream``."""
        return CudaEvent(self._driver, stream)


class CudaEvent:
    """A point in a stream of work."""

    def __init__(self, driver: CudaDriver, stream: int) -> None:
        self._driver = driver
        self._event = ctypes.c_void_p()
        driver.call("cuEventCreate", ctypes.byref(self._event), 0)
        driver.call("cuEventRecord", self._event, ctypes.c_void_p(stream))

    def seconds_since(self, earlier: CudaEvent) -> float:
        """Device time between two events that have happened."""
        milliseconds = ctypes.c_float()
        self._driver.call("cuEventElapsedTime", ctypes.byref(milliseconds), earlier._event, self._event)
        return milliseconds.value * 1e-3

    def destroy(self) -> None:
        self._driver.call("cuEventDestroy_v2", self._event)


@functools.cache
def device(number: int) -> CudaDevice:
    """GPU ``number``; DeviceUnavailableError when there is none."""
    if number >= driver().devices:
        raise DeviceUnavailableError(f"this machine has {driver().devices} GPUs, number {number} is not among them; {REMEDY}")
    return CudaDevice(number)
