"""Whisper on this machine's processor, streaming."""

from plugins.stt.whisper.engine import WhisperSTT

__all__ = ["WhisperSTT"]
