"""Encoded bytes to arrays and back: the only place that knows Pillow and PyAV.

Both decode untrusted bytes here, so both are held short. Only the formats listed are tried, sizes
are checked before pixels or samples exist, nothing but the bytes given can be reached, and
whatever a decoder raises leaves as `InvalidImage` or `InvalidAudio`.
"""

from talkgen.codecs.pictures import (
    as_pixels,
    decode_image,
    encode_image,
    flatten,
    parse_colour,
    pixels_of,
    resize,
)
from talkgen.codecs.recordings import decode_audio
from talkgen.codecs.samples import (
    as_samples,
    check_rate,
    check_seconds,
    decode_samples,
    encode_m4a,
    encode_samples,
    encode_wav,
)
from talkgen.codecs.video import first_frame

__all__ = [
    "as_pixels",
    "as_samples",
    "check_rate",
    "check_seconds",
    "decode_audio",
    "decode_image",
    "decode_samples",
    "encode_image",
    "encode_m4a",
    "encode_samples",
    "encode_wav",
    "first_frame",
    "flatten",
    "parse_colour",
    "pixels_of",
    "resize",
]
