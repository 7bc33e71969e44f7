"""Models: found on this machine or refused in words that help; never fetched."""

from pathlib import Path

import pytest

from agent.errors import EngineError
from plugins.stt.whisper.models import find_model


def test_name_finds_the_packaged_model() -> None:
    assert (find_model("tiny.en") / "model.bin").is_file()


def test_path_finds_a_folder() -> None:
    folder = find_model("tiny.en")
    assert find_model(str(folder)) == folder


@pytest.mark.parametrize("model", ["tinny", "large-v3", "/nowhere/model", ""])
def test_unknown_model_says_what_is_known(model: str) -> None:
    with pytest.raises(EngineError, match=r"is unknown; known: tiny\.en, or the path of a CTranslate2"):
        find_model(model)


def test_incomplete_folder_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(EngineError, match=r"lacks config\.json, tokenizer\.json"):
        find_model(str(tmp_path))
