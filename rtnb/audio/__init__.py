"""Samples: bytes to arrays and back, sample rates, sound files, a synthetic voice. NumPy and soundfile only.

`audio` is float32, shape (n_samples,), mono, full scale ±1; `pcm` is bytes.

>>> from rtnb.audio import decode_pcm16, encode_pcm16
>>> decode_pcm16(encode_pcm16([0.0, 0.5])).round(2).tolist()
[0.0, 0.5]
"""

from rtnb.audio.formats import RATE_HZ, Codec, codec, decode_pcm16, encode_pcm16
from rtnb.audio.resampler import Resampler, resample
from rtnb.audio.samples import Audio, as_audio, ms_to_samples
from rtnb.audio.synth import Utterance, Word, babble
from rtnb.audio.wav import read_wav, write_wav

__all__ = [
    "RATE_HZ", "Audio", "Codec", "Resampler", "Utterance", "Word", "as_audio", "babble", "codec", "decode_pcm16",
    "encode_pcm16", "ms_to_samples", "read_wav", "resample", "write_wav",
]  # fmt: skip
