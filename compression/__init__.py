"""Linear layers replaced by products of smaller matrices, under a bound on the error of their results."""

from .compress import Compressed, Method, compress
from .modules import FactoredLinear, LowRankLinear, MonarchLinear
from .report import CompressionReport, LayerReport

__all__ = ["Compressed", "CompressionReport", "FactoredLinear", "LayerReport", "LowRankLinear", "Method", "MonarchLinear", "compress"]
