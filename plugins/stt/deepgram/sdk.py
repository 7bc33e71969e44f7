"""What we use of deepgram-sdk, imported in one place.

The SDK looks for what websockets deprecated in 2024, and warns when it is imported. Its own connection is
built on that; ours is not (`connection.py`), so nothing of it runs.
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    # The SDK would import these late, at the first request.
    import deepgram.listen.v1.client
    import deepgram.listen.v1.media.client  # noqa: F401
    from deepgram import AsyncDeepgramClient
    from deepgram.core.api_error import ApiError
    from deepgram.environment import DeepgramClientEnvironment
    from deepgram.listen.v1.socket_client import AsyncV1SocketClient
    from deepgram.listen.v1.types.listen_v1configure import ListenV1Configure
    from deepgram.listen.v1.types.listen_v1configure_failure import ListenV1ConfigureFailure
    from deepgram.listen.v1.types.listen_v1configure_success import ListenV1ConfigureSuccess
    from deepgram.listen.v1.types.listen_v1error import ListenV1Error
    from deepgram.listen.v1.types.listen_v1metadata import ListenV1Metadata
    from deepgram.listen.v1.types.listen_v1results import ListenV1Results
    from deepgram.listen.v1.types.listen_v1speech_started import ListenV1SpeechStarted
    from deepgram.listen.v1.types.listen_v1utterance_end import ListenV1UtteranceEnd

__all__ = [
    "ApiError",
    "AsyncDeepgramClient",
    "AsyncV1SocketClient",
    "DeepgramClientEnvironment",
    "ListenV1Configure",
    "ListenV1ConfigureFailure",
    "ListenV1ConfigureSuccess",
    "ListenV1Error",
    "ListenV1Metadata",
    "ListenV1Results",
    "ListenV1SpeechStarted",
    "ListenV1UtteranceEnd",
]
