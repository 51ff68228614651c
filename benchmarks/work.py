"""What a call of a model cannot do without: floating-point operations, and bytes that come from memory or go there.

Both are read off one call in eager PyTorch, so that they are the same for every system. Operations are those of matrix products,
convolutions and attention, computed directly: an algorithm with less arithmetic, such as Winograd's for convolutions, may beat a bound
made of them. Bytes are every weight once, as far as it is read (of an embedding the rows that are taken), the inputs and the outputs;
what passes from layer to layer might stay in a cache and does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from . import accuracy

_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ROWS = (torch.ops.aten.embedding, torch.ops.aten.index_select, torch.ops.aten.index, torch.ops.aten.gather)


@dataclass(frozen=True)
class Work:
    """``flops`` count a multiply-add as two; ``weights`` and ``ends`` (inputs and outputs) are bytes."""

    flops: int = 0
    weights: int = 0
    ends: int = 0

    @property
    def nbytes(self) -> int:
        return self.weights + self.ends

    @property
    def intensity(self) -> float:
        """Floating-point operations per byte."""
        return self.flops / self.nbytes if self.nbytes else 0.0

    def bound(self, flops: float, bandwidth: float, cache: int = 0) -> float:
        """The least seconds at ``flops`` and ``bandwidth`` (bytes) per second; what fits ``cache`` bytes can stay there between calls."""
        return max(self.flops / flops, self.nbytes / bandwidth if self.nbytes > cache else 0.0)


def work(model: Callable[..., Any], inputs: Sequence[Any]) -> Work:
    """The work of ``model(*inputs)``."""
    owned = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    counter = _Counter({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in owned})
    with torch.no_grad(), counter:
        outputs = model(*inputs)
    ends = [*accuracy.tensors(inputs), *accuracy.tensors(outputs)]
    weights = sum(min(read, counter.owned[place]) for place, read in counter.read.items())
    return Work(counter.flops, weights, sum(tensor.nbytes for tensor in ends))


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves it so
    """``owned`` and ``read`` are bytes of the weights by the address of their storage."""

    def __init__(self, owned: dict[int, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.owned = owned
        self.read: dict[int, int] = {}
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet is _ATTENTION:
            self.flops += _attention(*args, **(kwargs or {}))
        elif packet in flop_registry:
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=result)
        if not func.is_view:
            written = sum(tensor.nbytes for tensor in pytree.tree_leaves(result) if isinstance(tensor, Tensor))
            for tensor in pytree.tree_leaves((args, kwargs)):
                if isinstance(tensor, Tensor) and (place := tensor.untyped_storage().data_ptr()) in self.owned:
                    size = min(tensor.nbytes, written) if packet in _ROWS else tensor.nbytes
                    self.read[place] = self.read.get(place, 0) + size
        return result


def _attention(query: Tensor, key: Tensor, value: Tensor, dropout_p: float = 0.0, is_causal: bool = False, **options: Any) -> int:
    """Of [batch, heads, queries, width] and [batch, heads, keys, width]; under a causal mask query number i has i + 1 keys."""
    batch, heads, queries, width = query.shape
    keys = key.shape[2]
    pairs = sum(min(row + 1, keys) for row in range(queries)) if is_causal else queries * keys
    return 2 * batch * heads * pairs * (width + value.shape[3])
