import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.captions.text import clean


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("  Nora \n Nováková ", "Nora Nováková"),
        ("a\x00b\x1b[31mred", "ab[31mred"),
        ("👩‍💻 Ines", "👩‍💻 Ines"),
        ("שלום", "שלום"),
        ("safe\u202egnp.exe", "safegnp.exe"),
        ("", ""),
    ],
)
def test_names_are_shown_without_what_could_disturb_a_line(raw, shown):
    assert clean(raw) == shown


@given(st.text())
def test_cleaning_is_idempotent_and_leaves_no_control_characters(text):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in cleaned)
