"""The engine of livekit-plugins-deepgram on a server of one's own: `tests.support.deepgram_plugin:STT`.

Everything else is the plugin's own, as an operator gets it who names its class in `stt.engines`.
"""

import os

from livekit.plugins import deepgram

URL = "DEEPGRAM_STAND_IN_URL"


class STT(deepgram.STT):
    def __init__(self) -> None:
        super().__init__(base_url=f"{os.environ[URL]}/v1/listen")
