"""OpenVINO as a peer, in fp32 and in what it has for lower precision. It and NNCF are imported only where they are timed."""

from __future__ import annotations

import enum
import pathlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import MeasurementError
from .peers import export
from .prepared import Prepared, reason


class Compression(enum.Enum):
    """What NNCF makes of a model, and with which settings."""

    NONE = enum.auto()
    W8 = enum.auto()
    """Weights in 8-bit integers, by output channel."""
    W4 = enum.auto()
    """Weights in symmetric 4-bit integers in groups of 128, the embedding and the last layer in 8 bits."""
    INT8 = enum.auto()
    """Weights and activations in 8-bit integers, with ranges from the example inputs."""


@dataclass(frozen=True)
class OpenVino:
    """OpenVINO's CPU plug-in, tuned for the latency of one request; the model comes by torch.export, else by ONNX.

    ``hint`` is what arithmetic may round to; None leaves the choice to the plug-in, which takes bf16 where the processor has it.
    """

    hint: str | None = "f32"
    compression: Compression = Compression.NONE

    def prepare(self, model: Any, inputs: Sequence[Any], threads: int) -> Prepared:
        import openvino

        options: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        if self.hint is not None:
            options["INFERENCE_PRECISION_HINT"] = self.hint
        arrays = [value.contiguous().numpy() for value in inputs if isinstance(value, Tensor)]
        failures = []
        for convert in (_from_export, _from_onnx):
            try:
                converted = _compressed(convert(model, inputs), arrays, self.compression)
                compiled = openvino.Core().compile_model(converted, "CPU", options)
                request = compiled.create_infer_request()
                for position, array in enumerate(arrays):
                    request.set_input_tensor(position, openvino.Tensor(array, shared_memory=True))
                request.infer()  # some models compile, and are refused only here
                break
            except Exception as error:  # whatever the converters and the plug-in stumble over
                failures.append(reason(error))
        else:
            raise MeasurementError(f"neither torch.export nor ONNX leads to a model that runs: {'; '.join(failures)}")
        outputs = range(len(compiled.outputs))

        def call() -> None:
            request.start_async()
            request.wait()

        return Prepared(call, lambda _: [torch.from_numpy(request.get_output_tensor(position).data.copy()) for position in outputs])


def _compressed(model: Any, arrays: Sequence[Any], compression: Compression) -> Any:
    """``model`` after NNCF, which takes the example inputs for calibration."""
    if compression is Compression.NONE:
        return model
    import nncf

    if compression is Compression.W8:
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    if compression is Compression.W4:
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=128, ratio=1.0)
    attends = any(operation.get_type_name() in ("ScaledDotProductAttention", "Softmax") for operation in model.get_ops())
    kind = nncf.ModelType.TRANSFORMER if attends else None
    return nncf.quantize(model, nncf.Dataset([list(arrays)]), subset_size=1, model_type=kind)


def _from_export(model: Any, inputs: Sequence[Any]) -> Any:
    import openvino

    with torch.no_grad():
        return openvino.convert_model(torch.export.export(model, tuple(inputs)))


def _from_onnx(model: Any, inputs: Sequence[Any]) -> Any:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        return openvino.convert_model(str(export(model, inputs, pathlib.Path(folder))))
