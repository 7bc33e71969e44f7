"""A report is one file, and what people said never becomes a part of its markup."""

import re
from html.parser import HTMLParser
from typing import Literal

import pytest

from agent.console.report import render
from tests.support.console_values import ADA, analysis, evidence, session, statement, utterance

EVIL = "</style><script>alert(1)</script>{{ 7 * 7 }} \" onload='x'"


class Tags(HTMLParser):
    """Collects the tags of a page, and the targets of its links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.targets: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "id":
                self.ids.add(value or "")
            elif name in ("href", "src"):
                self.targets.add(value or "")


def test_links_of_evidence_lead_to_its_words_within_the_file() -> None:
    said = utterance(1, ADA, "We agreed. It fires at two.")
    page = Tags(render(session(), [said], analysis(statement("risk", "It fires", evidence(said, 11, 19)))))
    assert "#e-1-1" in page.targets
    assert {target.removeprefix("#") for target in page.targets} <= page.ids | {"main"}


def test_words_are_never_markup() -> None:
    evil = ADA.model_copy(update={"name": EVIL})
    said = utterance(1, evil, EVIL)
    about = session().model_copy(update={"room": EVIL})
    text = render(about, [said], analysis(statement("risk", EVIL, evidence(said, 2, 20))))
    assert "script" not in Tags(text).tags
    assert "{{ 7 * 7 }}" in text


def test_session_without_an_analysis_is_a_transcript() -> None:
    text = render(session(), [utterance(1, ADA, "Good morning.")], None)
    assert "was not analysed" in text
    assert "Good morning." in text
    assert re.search(r"https?://", text) is None


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("failed", "The analysis failed</strong> while mixing the recording"),
        ("running", "The analysis was being made"),
    ],
)
def test_analysis_that_is_not_done_is_said_whether_or_not_an_older_one_is_shown(
    status: Literal["failed", "running"], words: str
) -> None:
    said = utterance(1, ADA, "Good morning.")
    problem = "The disk is full." if status == "failed" else ""
    older = analysis(statement("risk", "It fires", evidence(said, 0, 4))).model_copy(
        update={"newest_version": 2, "status": status, "step": "mix", "problem": problem}
    )
    text = render(session(), [said], older)
    assert words in text
    assert problem in text
    assert "What follows is version 1" in text
    assert "not version 2" in text
    assert "It fires" in text

    text = render(session(), [said], older.model_copy(update={"version": 2, "statements": ()}))
    assert words in text
    assert "What follows is" not in text
    assert "What this rests on" not in text
