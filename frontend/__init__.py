"""From PyTorch to the graph IR: export, our own decomposition table, one converter per ATen operation.

The room imports torch, so it is loaded only when a model is compiled.
"""

from .importer import Imported, State, import_model

__all__ = ["Imported", "State", "import_model"]
