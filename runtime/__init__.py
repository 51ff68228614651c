"""Loading, calling and profiling compiled programs. Needs neither torch nor TVM."""

from .executable import Executable
from .model import LoadedModel, Model, load
from .report import FallbackReport, KernelReport, ProgramReport, Report

__all__ = ["Executable", "FallbackReport", "KernelReport", "LoadedModel", "Model", "ProgramReport", "Report", "load"]
