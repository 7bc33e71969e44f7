"""What an analysis looks for is read from a file, and a mistake in it is found where it stands."""

import re
from contextlib import suppress
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.analysis.scenario import KINDS, Kind, parse
from agent.errors import ConfigError

SOURCE = """+++
id = "retro"
version = 2
title = "Retrospective"
language = "en"

[[statements]]
id = "action"
title = "Next steps"
has_owner = true

[[statements]]
id = "risk"
title = "Worries"
+++

# system

You read a transcript.

## Not a section

# action

What somebody will do.

# risk

What somebody fears.
"""
PACKAGED = {file.name: file for file in files("prompts").iterdir() if file.name.endswith(".md")}


def test_scenario_has_its_kinds_in_order_and_its_texts_by_heading() -> None:
    scenario = parse("retro", SOURCE)
    assert (scenario.id, scenario.version, scenario.title, scenario.language) == (
        "retro", 2, "Retrospective", "en",
    )  # fmt: skip
    assert scenario.kinds == (
        Kind(id="action", title="Next steps", has_owner=True),
        Kind(id="risk", title="Worries"),
    )
    assert scenario.texts == {
        "system": "You read a transcript.\n\n## Not a section",
        "action": "What somebody will do.",
        "risk": "What somebody fears.",
    }


def test_line_ends_of_another_system_change_nothing() -> None:
    assert parse("retro", SOURCE.replace("\n", "\r\n")) == parse("retro", SOURCE)


@pytest.mark.parametrize("name", ["interview", "meeting"])
def test_packaged_scenario_can_be_read(name: str) -> None:
    scenario = parse(name, PACKAGED[f"{name}.md"].read_text(encoding="utf-8"))
    assert {kind.id for kind in scenario.kinds} <= set(KINDS)
    assert {"system", *(kind.id for kind in scenario.kinds)} == set(scenario.texts)


def test_no_packaged_scenario_is_left_untested() -> None:
    assert set(PACKAGED) == {"interview.md", "meeting.md"}


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("+++\nid", "id", "between two lines of +++"),
        ("+++\n\n# system", "# system", "between two lines of +++"),
        ("version = 2", "version = ", "line 3"),
        ('title = "Worries"', 'title = "Worries', "line 14"),
        ('id = "risk"', 'id = "mood"', "statements.1.id"),
        ('id = "risk"', 'id = "action"', "the kind 'action' twice"),
        ('title = "Worries"', 'title = ""', "statements.1.title"),
        ('title = "Worries"', 'colour = "red"', "statements.1"),
        ("has_owner = true", "has_owner = 7", "statements.0.has_owner"),
        ("version = 2", "version = 0", "version"),
        ("version = 2\n", "", "version"),
        ('language = "en"', 'language = "English"', "language"),
        ('id = "retro"', 'id = "Retro"', "id"),
        ('id = "retro"', 'id = "review"', "its id is 'review'"),
        ("# system\n\nYou", "You", "has to begin with a heading"),
        ("# system", "# preface", "the section 'system' is missing"),
        ("# risk", "# riks", "the section 'risk' is missing"),
        ("# risk", "# action", "the section 'action' is there twice"),
        ("What somebody fears.", "", "the section 'risk' is empty"),
        ("# risk\n\nWhat somebody fears.\n", "", "the section 'risk' is missing"),
    ],
)
def test_mistake_is_told_with_the_file_and_the_place(old: str, new: str, place: str) -> None:
    assert SOURCE.count(old) == 1
    with pytest.raises(ConfigError, match=f"^scenario retro: .*{re.escape(place)}"):
        parse("retro", SOURCE.replace(old, new))


def test_scenario_without_statements_is_refused() -> None:
    head, _, _ = SOURCE.partition("[[statements]]")
    with pytest.raises(ConfigError, match=r"^scenario retro: statements is wrong"):
        parse("retro", f"{head}statements = []\n+++\n# system\nText.\n")


@given(st.text(max_size=300) | st.text(max_size=100).map(lambda text: SOURCE.replace("version = 2", text)))
def test_nothing_but_a_mistake_comes_of_any_file(source: str) -> None:
    with suppress(ConfigError):
        assert parse("retro", source).id == "retro"
