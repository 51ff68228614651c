"""What a build worker serves.

torch is kept out of its process: the tool chain would import it, for a second, in vain. Nothing that imports the tool chain may stand at
the top of this module, which comes before torch is barred.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .building import TemplateBuilder


def builder() -> TemplateBuilder:
    """The builder of a process that only builds."""
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    from .building import TemplateBuilder

    return TemplateBuilder()
