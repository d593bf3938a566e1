"""A picture and a recording as small as they can be, as values and as files."""

import numpy as np

from talkgen import codecs

RAMP = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
PNG = codecs.encode_image(RAMP, "png")
BEEP = np.sin(np.arange(1_600, dtype=np.float32) / 5) / 2
WAV = codecs.encode_wav(BEEP[None], 16_000)
