"""Every error mlc raises on purpose derives from :class:`Error`.

A message names what went wrong, where (operation, module path, the user's source line when known) and what to do about it.
"""

from __future__ import annotations


class Error(Exception):
    """Base class of all errors raised by mlc."""

    locations: tuple[object, ...] = ()
    """The places in the model (``ir.Location``) whose operations cannot be compiled, where the error is about such."""


class FallbackWarning(UserWarning):
    """A part of the model, or all of it, runs in PyTorch instead of compiled; the message says which and why."""


class OptionError(Error, ValueError):
    """An argument of the public face has a value that mlc does not know or cannot honour."""


class UnsupportedOpError(Error):
    """The model uses operations that mlc cannot compile; the message lists all of them at once."""


class ExportError(Error):
    """torch.export could not turn the model into a graph."""


class ModelSourceError(Error, ValueError):
    """The text that names a model on the command line names none, or its function gives none."""


class SignatureError(Error, TypeError):
    """A call's arguments do not fit the compiled signature (structure, shape, dtype or device)."""


class SizeError(SignatureError):
    """An input has a size outside of what the compiled program was made for; the message names input, axis, size and range."""


class TextFormError(Error, ValueError):
    """IR text does not parse; the message gives line, column and what was expected."""


class VerificationError(Error):
    """A graph violates an invariant of the IR; the message names the node and the rule."""


class TypeInferenceError(Error, TypeError):
    """An operation cannot take operands of these types or attributes."""


class EncodingError(Error, ValueError):
    """Numbers cannot be stored in an encoding, or the parts of an encoded constant do not fit its type."""


class PassError(Error):
    """A pass failed or broke the graph; the message names the pass."""


class PipelineSyntaxError(Error, ValueError):
    """The text form of a pass pipeline is malformed or names an unknown pass or option."""


class TargetError(Error, ValueError):
    """A target string is malformed or describes a device that mlc does not know."""


class LoweringError(Error):
    """No template takes a fused graph, or code generation for it failed."""


class BuildError(Error):
    """The native tool chain (LLVM, C compiler, linker) failed."""


class CapacityError(Error):
    """A program does not fit the memory of the device it is compiled for; the message says by how much."""


class ArtifactError(Error):
    """An artifact is truncated, edited, of another format version, or not an artifact."""


class DeviceUnavailableError(Error):
    """The device or CPU feature that a compiled program needs is not present."""


class KernelError(Error, RuntimeError):
    """A native kernel reported failure while running."""


class DatabaseError(Error):
    """A tuning database cannot be read or written, or holds records of a foreign format."""


class MeasurementError(Error):
    """A candidate kernel could not be built, run or verified."""


class CostModelError(Error):
    """A cost model's file is missing, damaged, or made for other features; compilation works without it."""


class DataSetError(Error):
    """A data set of measured kernels is missing, damaged, or cannot be written."""
