"""Hints: every model gets key terms the way that it takes them."""

import pytest

from plugins.stt.openai.hints import Hints, hints_for


@pytest.mark.parametrize("model", ["gpt-live-transcribe", "gpt-transcribe", "gpt-transcribe-2026-09-01"])
def test_newer_models_take_keywords(model: str) -> None:
    assert hints_for(model, "en", ["Ines", " ", "Nora "]) == Hints("en", keywords=("Ines", "Nora"))


@pytest.mark.parametrize("model", ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "any/other"])
def test_older_models_and_other_servers_take_a_prompt(model: str) -> None:
    assert hints_for(model, "en", ["Ines", "Nora"]) == Hints("en", prompt="Ines, Nora")


@pytest.mark.parametrize("model", ["gpt-realtime-whisper", "gpt-4o-transcribe-diarize"])
def test_some_models_take_no_hint(model: str) -> None:
    assert hints_for(model, "en", ["Ines", "Nora"]) == Hints("en")


def test_prompt_that_comes_back_is_no_speech() -> None:
    hints = hints_for("whisper-1", "en", ["Ines", "Nora"])
    assert hints.is_echo("Ines, Nora.")
    assert not hints.is_echo("Ines, Nora, good morning.")
    assert not hints_for("gpt-transcribe", "en", ["Ines", "Nora"]).is_echo("Ines, Nora.")
    assert not hints_for("whisper-1", "en", []).is_echo("")
