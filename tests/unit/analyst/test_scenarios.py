"""Which scenarios there are, and what is said where one cannot be used."""

import re
from pathlib import Path

import pytest

from agent.analyst.scenarios import load_scenarios
from agent.errors import ConfigError

SOURCE = """+++
id = "{id}"
version = 7
title = "Ours"
language = "en"
[[statements]]
id = "decision"
title = "What we agreed on"
+++
# system
Read it.
# decision
What we agreed on.
"""


def write(folder: Path, name: str, source: str = SOURCE) -> None:
    (folder / f"{name}.md").write_text(source.format(id=name), encoding="utf-8")


def test_the_packaged_scenarios_can_be_used() -> None:
    assert set(load_scenarios("")) == {"meeting", "interview"}


def test_one_of_our_own_stands_beside_the_packaged_ones_or_in_the_place_of_one(tmp_path: Path) -> None:
    write(tmp_path, "meeting")
    write(tmp_path, "standup")
    (tmp_path / "notes.txt").write_text("no scenario", encoding="utf-8")

    scenarios = load_scenarios(str(tmp_path))

    assert set(scenarios) == {"meeting", "interview", "standup"}
    assert scenarios["meeting"].version == 7


def test_what_is_wrong_is_told_with_its_file(tmp_path: Path) -> None:
    write(tmp_path, "broken", SOURCE.replace("version = 7", ""))

    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "broken.md"))):
        load_scenarios(str(tmp_path))


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "broken.md").write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match=r"broken\.md cannot be read: it is not in UTF-8"):
        load_scenarios(str(tmp_path))


def test_a_folder_that_is_not_there_is_told_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"analysis\.scenarios_dir .* is no folder"):
        load_scenarios(str(tmp_path / "nowhere"))
