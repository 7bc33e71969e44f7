"""Speech engines by name or import path. Each is a `livekit.agents.stt.STT`."""

import importlib
from collections.abc import Callable, Iterable
from typing import Any

from livekit.agents import stt

from agent.config import Stt
from agent.errors import EngineError

__all__ = ["engine_modules", "load_engine"]


def load_engine(name: str, settings: Stt) -> stt.STT[Any]:
    """Make the engine that a setting names. Its model is loaded by its `prewarm`, not here.

    Args:
        name: One of ours, or `package.module:Class` of any `livekit.agents.stt.STT`, which is made without
            arguments and takes its own settings from the environment, as the `livekit-plugins-*` do.

    Raises:
        EngineError: There is no such engine, or it cannot be made.
    """
    if (make := _OURS.get(name)) is not None:
        return make(settings)
    if ":" not in name:
        known = ", ".join(sorted(_OURS))
        raise EngineError(
            f'stt.engines "{name}" is unknown; known: {known}, or "package.module:Class" of an installed one'
        )
    return _import_engine(name)


def engine_modules(names: Iterable[str]) -> list[str]:
    """What to import ahead of engines, so that the rooms' processes share it."""
    return [f"plugins.stt.{name}" if name in _OURS else name.partition(":")[0] for name in names]


def _whisper(settings: Stt) -> stt.STT[Any]:
    # Imported late: who uses another engine does not pay for this one.
    from plugins.stt.whisper import WhisperSTT

    return WhisperSTT(
        model=settings.whisper.model,
        language=settings.language,
        threads=settings.whisper.threads,
        beam_size=settings.whisper.beam_size,
        partial_interval_s=settings.whisper.partial_interval_s,
    )


def _deepgram(settings: Stt) -> stt.STT[Any]:
    from plugins.stt.deepgram import DeepgramSTT

    return DeepgramSTT(
        api_key=settings.deepgram.api_key.get_secret_value(),
        model=settings.deepgram.model,
        language=settings.language,
        base_url=settings.deepgram.base_url,
        keyterms=settings.keyterms,
        smart_format=settings.deepgram.smart_format,
        mip_opt_out=settings.deepgram.mip_opt_out,
    )


def _openai(settings: Stt) -> stt.STT[Any]:
    from plugins.stt.openai import OpenAISTT

    return OpenAISTT(
        api_key=settings.openai.api_key.get_secret_value(),
        base_url=settings.openai.base_url,
        stream_model=settings.openai.stream_model,
        turn_model=settings.openai.turn_model,
        language=settings.language,
        keyterms=settings.keyterms,
        realtime=settings.openai.realtime,
    )


def _import_engine(path: str) -> stt.STT[Any]:
    module_name, _, class_name = path.partition(":")
    try:
        engine_class: Any = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise EngineError(
            f'stt.engines "{path}" cannot be imported: {error}; is it installed here?'
        ) from error
    if not (isinstance(engine_class, type) and issubclass(engine_class, stt.STT)):
        raise EngineError(f'stt.engines "{path}" is not a livekit.agents.stt.STT')
    make: Callable[[], stt.STT[Any]] = engine_class
    try:
        return make()
    except Exception as error:
        raise EngineError(f'stt.engines "{path}" cannot be made: {error}') from error


_OURS: dict[str, Callable[[Stt], stt.STT[Any]]] = {
    "whisper": _whisper,
    "deepgram": _deepgram,
    "openai": _openai,
}
