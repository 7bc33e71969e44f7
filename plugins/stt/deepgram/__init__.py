"""Deepgram's service, streaming and pre-recorded."""

from plugins.stt.deepgram.engine import DeepgramSTT

__all__ = ["DeepgramSTT"]
