"""What the analysis without a model finds of what a meeting came to: precision and recall by kind.

    python -m benchmarks.analysis [--meeting DIR …] [--language TAG] [--baseline] [--json FILE]

It reads what was really said, so that recognition does not matter, and compares with `facts` of truth.json. A
statement is right where it has the kind of a fact, at least half of its words of content, and its owner if it
has one; a statement is right for one fact, and a fact is found once. Kinds that a meeting's facts do not list
are neither right nor wrong, and counted apart. Every meeting that the baseline knows has to come to at least
its precision and recall; `--baseline` writes down what the meetings come to now.
"""

import json
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from rich.console import Console

from agent.analysis.evidence import check
from agent.analysis.extractive import extract
from agent.analysis.language import Language, language_of
from agent.analysis.scenario import KINDS
from agent.analysis.statement import Statement
from agent.analysis.text import folded, tokens
from agent.analysis.transcript import Transcript, Utterance
from agent.cli.ending import end_process
from agent.errors import InputError, RoomscribeError
from agent.values import Speaker
from benchmarks.options import meetings, parser
from benchmarks.report import Figure, Report, current_commit, current_machine, write_section

__all__ = ["BASELINE", "Fact", "Judged", "Rates", "judge", "main", "pairs", "read_baseline", "write_baseline"]

BASELINE = Path(__file__).parent / "baselines" / "analysis.json"
LEAST_SHARED = 0.5  # of a fact's words of content
DIGITS = 3  # of a rate: a meeting has far less than a thousand facts
RENEW = "python -m benchmarks.analysis --baseline"


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that a good analysis of a meeting finds; `owner` is empty where it has none."""

    kind: str
    text: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Rates:
    """How much of what was found is right, and how much of what is right was found; None of nothing."""

    precision: float | None
    recall: float | None


@dataclass(frozen=True, slots=True)
class Judged:
    """The statements about a meeting, beside its facts.

    `kinds` are those that its facts list, maybe without one fact. `found` are pairs of a fact and the
    statement that is right for it. `claims` is how many statements were made before they were checked.
    """

    name: str
    kinds: frozenset[str]
    facts: Sequence[Fact]
    statements: Sequence[Statement]
    found: Sequence[tuple[Fact, Statement]]
    claims: int

    @property
    def judged(self) -> list[Statement]:
        """The statements that are right or wrong."""
        return [statement for statement in self.statements if statement.kind in self.kinds]

    @property
    def missed(self) -> list[Fact]:
        found = [id(fact) for fact, _ in self.found]
        return [fact for fact in self.facts if id(fact) not in found]

    @property
    def wrong(self) -> list[Statement]:
        right = [id(statement) for _, statement in self.found]
        return [statement for statement in self.judged if id(statement) not in right]

    @property
    def rates(self) -> Rates:
        return _rates(len(self.found), len(self.judged), len(self.facts))


class _Segment(BaseModel):
    speaker: str
    text: str
    start: float
    end: float


class _Facts(BaseModel):
    """Lists that are not there say nothing of their kind. An action is owner, task and due date."""

    model_config = ConfigDict(extra="ignore")

    decisions: tuple[str, ...] | None = None
    actions: tuple[tuple[str, str, str | None], ...] | None = None
    open_questions: tuple[str, ...] | None = None
    risks: tuple[str, ...] | None = None
    highlights: tuple[str, ...] | None = None

    def by_kind(self) -> dict[str, list[Fact]]:
        listed = {
            "decision": self.decisions,
            "question": self.open_questions,
            "risk": self.risks,
            "highlight": self.highlights,
        }
        facts = {
            kind: [Fact(kind, text) for text in texts] for kind, texts in listed.items() if texts is not None
        }
        if self.actions is not None:
            facts["action"] = [Fact("action", task, owner) for owner, task, _ in self.actions]
        return facts


class _Truth(BaseModel):
    model_config = ConfigDict(extra="ignore")

    segments: tuple[_Segment, ...]
    facts: _Facts | None = None


class _Baseline(BaseModel):
    model_config = ConfigDict(extra="forbid")

    precision: float
    recall: float


_BASELINES: TypeAdapter[dict[str, _Baseline]] = TypeAdapter(dict[str, _Baseline])


def judge(folder: Path, language: Language) -> Judged:
    """Analyse what was said in a meeting, and compare with its facts.

    Raises:
        InputError: The folder has no truth.json with facts.
    """
    truth = _read_truth(folder / "truth.json")
    if truth.facts is None:
        raise InputError(f"meeting {folder} has no facts in truth.json to compare with; choose another one")
    transcript = Transcript(
        Utterance(
            f"1-{number}",
            Speaker(segment.speaker, segment.speaker),
            segment.text,
            round(segment.start * 1000),
            round(segment.end * 1000),
        )
        for number, segment in enumerate(sorted(truth.segments, key=lambda segment: segment.start), start=1)
    )
    claims = extract(transcript, language, KINDS)
    statements = check(claims, transcript, language).statements
    by_kind = truth.facts.by_kind()
    facts = [fact for kind in KINDS for fact in by_kind.get(kind, ())]
    return Judged(
        name=folder.resolve().name,
        kinds=frozenset(by_kind),
        facts=facts,
        statements=statements,
        found=pairs(facts, statements, language),
        claims=len(claims),
    )


def read_baseline(path: Path = BASELINE) -> dict[str, Rates]:
    """What meetings, by their names, have to come to.

    Raises:
        InputError: The file is not there or wrong.
    """
    try:
        found = _BASELINES.validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; `{RENEW}` writes it") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path} is wrong{f' at {where}' if where else ''}: {first['msg']}; `{RENEW}` writes it"
        ) from None
    return {name: Rates(each.precision, each.recall) for name, each in found.items()}


def write_baseline(judged: Iterable[Judged], path: Path = BASELINE) -> None:
    """Write down what meetings come to now, and leave the others as they are.

    Raises:
        InputError: What is there already is wrong.
    """
    known = read_baseline(path) if path.exists() else {}
    known |= {each.name: each.rates for each in judged}
    rates = {
        # Nothing found, or nothing to find, is no reason to fail later.
        name: {"precision": each.precision or 0.0, "recall": each.recall or 0.0}
        for name, each in sorted(known.items())
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rates, indent=2) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and write down what was found; exit code 1 where a meeting falls below its baseline."""
    options = parser("analysis", __doc__.split("\n", maxsplit=1)[0])
    options.add_argument(
        "--language", default="en", metavar="TAG", help="what the meetings are in, as BCP 47 (en)"
    )
    options.add_argument(
        "--baseline", action="store_true", help="from now on meetings have to come to what they come to now"
    )
    asked = options.parse_args(arguments)
    console = Console(soft_wrap=True)
    try:
        report = _measure(asked, console)
        if asked.json:
            asked.json.write_text(report.to_json() + "\n", encoding="utf-8")
    except (RoomscribeError, OSError) as error:
        console.print(f"benchmarks.analysis: {error}", style="red", markup=False)
        return 1
    report.print(console)
    write_section(report)
    return 1 if report.has_missed else 0


def _measure(asked: Namespace, console: Console) -> Report:
    started_at = datetime.now(UTC)
    language = language_of(asked.language)
    judged = [judge(folder, language) for folder in meetings(asked)]
    for each in judged:
        _tell(each, console)
    if asked.baseline:
        write_baseline(judged)
        console.print(f"{BASELINE} is written", markup=False)
    return Report(
        benchmark="analysis",
        commit=current_commit(),
        machine=current_machine(),
        started_at=started_at,
        parameters={"meetings": [each.name for each in judged], "language": language.code},
        figures=[*_figures(judged), *_gates(judged, read_baseline())],
        remarks=[
            "On what was really said, against the facts that truth.json lists: a statement is right with the "
            "same kind, half of the words of content and the same owner.",
            "Dropped: statements whose evidence did not hold. Unjudged: of kinds that the facts do not list.",
            "The rules were written with incident_review at hand: of other meetings they find less.",
            f"The targets are the committed baseline; `{RENEW}` renews it.",
        ],
    )


def _tell(judged: Judged, console: Console) -> None:
    """Show what is missing and what is wrong: on the terminal alone, since it is what people said."""
    for fact in judged.missed:
        owner = f" of {fact.owner}" if fact.owner else ""
        console.print(f"{judged.name}: missed {fact.kind}{owner}: {fact.text}", markup=False)
    for statement in judged.wrong:
        owner = f" of {statement.owner.name}" if statement.owner is not None else ""
        console.print(f"{judged.name}: wrong {statement.kind}{owner}: {statement.text}", markup=False)


def _figures(judged: Sequence[Judged]) -> Iterator[Figure]:
    found = Counter(fact.kind for each in judged for fact, _ in each.found)
    made = Counter(statement.kind for each in judged for statement in each.judged)
    listed = Counter(fact.kind for each in judged for fact in each.facts)
    yield from _rate_figures("", _rates(found.total(), made.total(), listed.total()))
    for kind in KINDS:
        if made[kind] or listed[kind]:
            yield from _rate_figures(f"{kind}_", _rates(found[kind], made[kind], listed[kind]))
    statements = [statement for each in judged for statement in each.statements]
    claims = sum(each.claims for each in judged)
    yield Figure("facts", listed.total(), "")
    yield Figure("statements", len(statements), "")
    yield Figure("dropped", claims - len(statements), "")
    with_evidence = sum(bool(statement.evidence) for statement in statements)
    share = round(with_evidence / len(statements), DIGITS) if statements else None
    yield Figure("with_evidence", share, "", "1", share == 1.0 if statements else None)
    unjudged = Counter(statement.kind for statement in statements)
    unjudged.subtract(made)
    for kind in KINDS:
        if unjudged[kind]:
            yield Figure(f"unjudged_{kind}", unjudged[kind], "")


def _gates(judged: Iterable[Judged], baseline: Mapping[str, Rates]) -> Iterator[Figure]:
    """Each meeting's rates, with the baseline as target where it has one."""
    nothing = Rates(None, None)
    for each in judged:
        yield from _rate_figures(f"{each.name}_", each.rates, baseline.get(each.name, nothing))


def _rate_figures(prefix: str, rates: Rates, least: Rates | None = None) -> Iterator[Figure]:
    for name in ("precision", "recall"):
        value: float | None = getattr(rates, name)
        wanted: float | None = getattr(least, name, None)
        if wanted is None:
            yield Figure(f"{prefix}{name}", value, "")
        else:
            yield Figure(f"{prefix}{name}", value, "", f">= {wanted:g}", (value or 0.0) >= wanted)


def _rates(found: int, made: int, listed: int) -> Rates:
    return Rates(
        round(found / made, DIGITS) if made else None,
        round(found / listed, DIGITS) if listed else None,
    )


def pairs(
    facts: Sequence[Fact], statements: Sequence[Statement], language: Language
) -> list[tuple[Fact, Statement]]:
    """As many facts with a statement each as there can be.

    A maximum matching of a bipartite graph, by augmenting paths (Kuhn 1955).
    """
    candidates = [
        [number for number, statement in enumerate(statements) if _fits(fact, statement, language)]
        for fact in facts
    ]
    fact_of: dict[int, int] = {}

    def place(fact: int, tried: set[int]) -> bool:
        for statement in candidates[fact]:
            if statement in tried:
                continue
            tried.add(statement)
            if statement not in fact_of or place(fact_of[statement], tried):
                fact_of[statement] = fact
                return True
        return False

    for fact in range(len(facts)):
        place(fact, set())
    return [(facts[fact], statements[statement]) for statement, fact in sorted(fact_of.items())]


def _fits(fact: Fact, statement: Statement, language: Language) -> bool:
    if statement.kind != fact.kind:
        return False
    if fact.owner and (statement.owner is None or folded(statement.owner.name) != folded(fact.owner)):
        return False
    wanted = language.content(tokens(fact.text))
    shared = wanted & language.content(tokens(statement.text))
    return bool(wanted) and len(shared) >= LEAST_SHARED * len(wanted)


def _read_truth(path: Path) -> _Truth:
    try:
        return _Truth.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path} is wrong{f' at {where}' if where else ''}: {first['msg']}") from None


if __name__ == "__main__":
    end_process(main())
