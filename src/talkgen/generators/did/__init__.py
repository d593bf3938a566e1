"""D-ID: videos made by somebody else's service, for money."""

from talkgen.generators.did.client import DIdClient
from talkgen.generators.did.finding import Wanted, find_talk
from talkgen.generators.did.generator import DIdGenerator
from talkgen.generators.did.request import (
    Expression,
    TalkConfig,
    TalkRequest,
    audio_script,
    text_script,
)
from talkgen.generators.did.results import (
    AudioUpload,
    Credits,
    FaceBox,
    ImageUpload,
    Talk,
    TalkPage,
    Voice,
)
from talkgen.generators.did.timing import Clock, Polling, RetryPolicy

__all__ = [
    "AudioUpload",
    "Clock",
    "Credits",
    "DIdClient",
    "DIdGenerator",
    "Expression",
    "FaceBox",
    "ImageUpload",
    "Polling",
    "RetryPolicy",
    "Talk",
    "TalkConfig",
    "TalkPage",
    "TalkRequest",
    "Voice",
    "Wanted",
    "audio_script",
    "find_talk",
    "text_script",
]
