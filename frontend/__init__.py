"""From PyTorch to the graph IR: export, our own decomposition table, one converter per ATen operation.

The room imports torch, so it is loaded only when a model is compiled.
"""

from .export import Exported, export_model
from .importer import Imported, State, import_exported, import_model

__all__ = ["Exported", "Imported", "State", "export_model", "import_exported", "import_model"]
