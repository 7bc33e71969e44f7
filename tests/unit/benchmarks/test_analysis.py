"""What the benchmark of analyses counts, and the gate that keeps them from becoming worse."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.analysis.language import language_of
from agent.analysis.statement import Statement
from agent.errors import InputError
from agent.values import Speaker
from benchmarks import analysis
from benchmarks.analysis import Fact, Judged, Rates, judge, pairs, read_baseline, write_baseline
from benchmarks.options import MEETINGS

ENGLISH = language_of("en")
SAID = [
    ("Nora", "We agreed that the office moves to Porto."),
    ("Omar", "I will send the contract to the landlord by Friday."),
    ("Ines", "I will book the movers."),
    ("Nora", "There is a risk that the lift is too small."),
]


@pytest.fixture
def meeting(tmp_path: Path) -> Path:
    folder = tmp_path / "move"
    folder.mkdir()
    return folder


def judged(folder: Path, **facts: Any) -> Judged:
    segments = [
        {"speaker": speaker, "text": text, "start": float(at), "end": at + 0.9}
        for at, (speaker, text) in enumerate(SAID)
    ]
    (folder / "truth.json").write_text(json.dumps({"segments": segments, "facts": facts}))
    return judge(folder, ENGLISH)


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in MEETINGS.glob("*/truth.json")), ids=lambda path: path.name
)
def test_no_meeting_falls_below_its_baseline(folder: Path) -> None:
    baseline = read_baseline()
    assert folder.name in baseline, f"{folder.name} has no baseline; `{analysis.RENEW}` gives it one"
    found, least = judge(folder, ENGLISH), baseline[folder.name]
    missed = [(fact.kind, fact.text) for fact in found.missed]
    wrong = [(statement.kind, statement.text) for statement in found.wrong]
    for name in ("precision", "recall"):
        rate, wanted = getattr(found.rates, name) or 0.0, getattr(least, name)
        assert rate >= wanted, (
            f"{name} is {rate}, the baseline {wanted}; missed {missed}, wrong {wrong}. "
            f"If that is meant, `{analysis.RENEW}` renews the baseline"
        )
    assert all(statement.evidence for statement in found.statements)
    assert found.claims == len(found.statements)


def test_right_are_statements_with_the_kind_the_words_and_the_owner_of_a_fact(meeting: Path) -> None:
    found = judged(
        meeting,
        decisions=["The office moves to Porto"],
        actions=[["Omar", "send the contract to the landlord", "Friday"], ["Nora", "book the movers", None]],
        risks=[],
    )
    assert [fact.text for fact, _ in found.found] == [
        "The office moves to Porto",
        "send the contract to the landlord",
    ]
    assert found.missed == [Fact("action", "book the movers", "Nora")]
    assert [statement.kind for statement in found.wrong] == ["action", "risk"]
    assert found.rates == Rates(precision=0.5, recall=0.667)


def test_half_of_the_words_are_enough_and_less_are_not(meeting: Path) -> None:
    assert judged(meeting, decisions=["Porto office, spring budget"]).rates.recall == 1.0
    assert judged(meeting, decisions=["Porto, spring budget"]).rates.recall == 0.0


def test_statement_is_right_for_one_fact(meeting: Path) -> None:
    twice = judged(meeting, decisions=["The office moves", "The office moves to Porto"])
    assert (len(twice.found), len(twice.missed)) == (1, 1)


def test_as_many_facts_as_possible_are_found() -> None:
    owner = Speaker("omar", "Omar")
    short, long = (
        Statement("action", text, (), owner, "", 1.0, "lexical") for text in ("Send mail", "Send contract")
    )
    # The first fact fits both statements, the second but the one that comes first.
    either, one = Fact("action", "send", "Omar"), Fact("action", "mail", "omar")
    assert pairs([either, one], [short, long], ENGLISH) == [(one, short), (either, long)]


def test_kinds_that_the_facts_do_not_list_are_neither_right_nor_wrong(meeting: Path) -> None:
    found = judged(meeting, decisions=["The office moves to Porto"])
    assert {"action", "risk", "decision"} <= {statement.kind for statement in found.statements}
    assert found.rates == Rates(precision=1.0, recall=1.0)


def test_meeting_without_statements_or_facts_has_no_rates(meeting: Path) -> None:
    assert judged(meeting, open_questions=[]).rates == Rates(None, None)
    assert judged(meeting, open_questions=["Who pays for the movers"]).rates == Rates(None, 0.0)


def test_baseline_is_renewed_for_the_meetings_that_were_run_and_stays_for_others(
    meeting: Path, tmp_path: Path
) -> None:
    path = tmp_path / "baselines" / "analysis.json"
    found = judged(meeting, decisions=["The office moves to Porto"], risks=["The rent rises"])
    write_baseline([found], path)
    other = judged(meeting.rename(tmp_path / "other"), open_questions=[])
    write_baseline([other], path)
    assert read_baseline(path) == {"move": Rates(0.5, 0.5), "other": Rates(0.0, 0.0)}


def test_what_is_wrong_with_a_file_is_told_without_what_was_said(meeting: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        judge(meeting, ENGLISH)
    segment = {"speaker": "Nora", "text": 7, "start": 0, "end": 1}
    (meeting / "truth.json").write_text(json.dumps({"segments": [segment]}))
    with pytest.raises(InputError, match=r"wrong at segments\.0\.text"):
        judge(meeting, ENGLISH)
    (meeting / "truth.json").write_text(json.dumps({"segments": []}))
    with pytest.raises(InputError, match="has no facts"):
        judge(meeting, ENGLISH)
    (tmp_path / "baseline.json").write_text('{"move": {"precision": 1}}')
    with pytest.raises(InputError, match=r"wrong at move\.recall.*--baseline"):
        read_baseline(tmp_path / "baseline.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_baseline(tmp_path / "missing.json")


@pytest.mark.parametrize(("least", "code"), [(0.5, 0), (0.6, 1)])
def test_run_fails_where_a_meeting_falls_below_its_baseline(
    meeting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: float, code: int
) -> None:
    judged(meeting, decisions=["The office moves to Porto"], risks=["The rent rises"])
    baseline, results, figures = (tmp_path / name for name in ("baseline.json", "RESULTS.md", "run.json"))
    baseline.write_text(json.dumps({"move": {"precision": least, "recall": 0.5}}))
    results.write_text("# Results\n")
    monkeypatch.setattr(analysis, "read_baseline", lambda: read_baseline(baseline))
    monkeypatch.setattr(analysis, "write_section", lambda report: results.write_text(report.to_markdown()))
    assert analysis.main(["--meeting", str(meeting), "--json", str(figures)]) == code
    held = {each["name"]: each["held"] for each in json.loads(figures.read_text())["figures"]}
    assert (held["move_precision"], held["move_recall"], held["with_evidence"]) == (not code, True, True)
    # What people said is not for a file that is committed.
    assert not {"Porto", "rent", "lift"} & set(results.read_text().split())
