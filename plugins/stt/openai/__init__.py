"""OpenAI's speech recognition, and servers that speak its API."""

from plugins.stt.openai.engine import OpenAISTT

__all__ = ["OpenAISTT"]
