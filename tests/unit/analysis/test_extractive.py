"""An analysis without a model: what it finds in a meeting, and that all of it bears its evidence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.analysis.centrality import centrality
from agent.analysis.evidence import check
from agent.analysis.extractive import extract
from agent.analysis.language import language_of
from agent.analysis.transcript import Transcript, Utterance
from agent.ingest.meeting import load_meeting
from agent.values import Speaker
from tests.support.meetings import INCIDENT_REVIEW

ENGLISH = language_of("en")
KINDS = ("decision", "action", "question", "risk", "highlight")


def transcript(*said: tuple[str, str]) -> Transcript:
    return Transcript(
        Utterance(f"1-{number}", Speaker(name.lower(), name), text, 1_000 * number, 1_000 * number + 900)
        for number, (name, text) in enumerate(said, start=1)
    )


def found(kind: str, *said: tuple[str, str]) -> list[tuple[str, str, str]]:
    names = {"": "", **{name.lower(): name for name, _ in said}, "felix": "Felix"}
    claims = extract(transcript(*said), ENGLISH, [kind])
    return [(claim.text, names[claim.owner], claim.due) for claim in claims]


def test_who_promises_something_owns_it_and_says_until_when():
    assert found("action", ("Omar", "I can add the proxy. I will have that done by Friday.")) == [
        ("I can add the proxy. I will have that done by Friday.", "Omar", "friday")
    ]


@pytest.mark.parametrize(
    ("said", "due"),
    [
        ("can add the proxy to the automatic renewal.", ""),
        ("Will send the numbers to the customers.", ""),
        ("We'll have the renewal done by Friday.", "friday"),
    ],
)
def test_promise_whose_first_word_was_not_recognised_is_one_all_the_same(said: str, due: str):
    assert found("action", ("Omar", said)) == [(said, "Omar", due)]


@pytest.mark.parametrize(
    "said",
    ["Can anybody add the proxy?", "Will they renew the certificate.", "We will see about the renewal."],
)
def test_what_nobody_promises_is_no_action(said: str):
    assert found("action", ("Omar", said)) == []


def test_who_is_asked_owns_it():
    asked = [("Nora", "Felix, could you check the second proxy tomorrow?"), ("Felix", "Okay.")]
    assert found("action", *asked) == [(asked[0][1], "Felix", "tomorrow")]
    unnamed = [("Nora", "Could you check the second proxy?"), ("Omar", "Sure.")]
    assert found("action", *unnamed) == [(unnamed[0][1], "Omar", "")]


def test_politeness_promises_nothing():
    assert found("action", ("Felix", "I can imagine the broken radios. Thank you for joining us.")) == []


def test_proposal_is_a_decision_when_somebody_else_agrees():
    proposal = ("Nora", "I propose that we send an apology with a voucher. Does anybody object?")
    assert found("decision", proposal, ("Felix", "No objection.")) == [
        ("I propose that we send an apology with a voucher.", "", "")
    ]
    assert found("decision", proposal, ("Felix", "That is not enough.")) == []
    assert found("decision", proposal, ("Nora", "Fine.")) == []


def test_proposal_is_no_decision_of_its_own_where_the_decision_is_told_in_other_words():
    proposal = ("Felix", "Let us say two percent for the first week.")
    agreed = ("Ines", "Two percent is fine with me.")
    told = ("Nora", "Then we agreed: the alert fires at two percent.")
    assert [text for text, *_ in found("decision", proposal, agreed)] == [proposal[1]]
    assert [text for text, *_ in found("decision", proposal, agreed, told)] == [told[1]]
    other = ("Nora", "We agreed to move the office to Porto.")
    assert len(found("decision", proposal, agreed, other)) == 2


def test_promise_that_only_refers_to_something_is_told_with_it():
    risk = ("Omar", "One risk is the second proxy. It has the same kind of certificate.")
    promise = ("Felix", "Oh. I can check that right after this call.")
    assert found("action", risk, ("Nora", "Hm."), promise) == [
        (f"{risk[1]} I can check that right after this call.", "Felix", "right after this call")
    ]
    own = ("Felix", "The second proxy is next. I can check that today.")
    assert found("action", risk, own) == [("I can check that today.", "Felix", "today")]


def test_who_was_asked_to_tell_something_and_did_has_nothing_left_to_do():
    asked = ("Nora", "Felix, please walk us through what happened.")
    told = ("Felix", "The checkout service returned errors, orders failed, customers called support.")
    assert found("action", asked, told) == []
    assert found("action", asked, ("Felix", "Sure, after the break."), told) == [(asked[1], "Felix", "")]
    promised = ("Felix", "I will write a report of the checkout service, its errors, orders and customers.")
    assert asked[1] in [text for text, *_ in found("action", asked, promised)]
    due = ("Nora", "Felix, please write down what happened by Friday.")
    assert found("action", due, told) == [(due[1], "Felix", "friday")]


def test_who_is_asked_a_question_is_not_asked_to_do_something():
    assert found("action", ("Felix", "How would you begin a restoration?"), ("Ines", "Slowly.")) == []


def test_question_that_somebody_takes_on_is_an_action():
    unknown = ("Omar", "I do not know when the certificate expires.")
    assert found("question", unknown, ("Felix", "I can check that today.")) == []
    assert len(found("question", unknown, ("Felix", "Okay."))) == 1


def test_question_that_is_said_to_stay_open_is_one_question():
    said = "We still do not know why the phone did not ring. Let us keep that open until Thursday."
    assert found("question", ("Nora", said)) == [(said, "", "")]


def test_question_that_is_answered_after_another_one_is_not_open():
    said = [("Greta", "What do we tell the customers?"), ("Nora", "How many customers are there?")]
    assert found("question", *said, ("Greta", "Two hundred."), ("Nora", "We write to them.")) == []
    assert [text for text, *_ in found("question", *said)] == [text for _, text in said]


def test_question_that_somebody_answers_is_not_open():
    assert found("question", ("Nora", "How many customers are there?"), ("Greta", "Two hundred.")) == []
    assert found("question", ("Nora", "We still do not know why the phone did not ring.")) == [
        ("We still do not know why the phone did not ring.", "", "")
    ]


def test_sentence_with_a_number_says_more_than_one_without():
    said = (
        "Ines",
        "Grandfather repaired wooden radios daily. Grandfather repaired forty seven wooden clocks.",
    )
    assert [text for text, *_ in found("highlight", said)] == [
        "Grandfather repaired forty seven wooden clocks."
    ]


def test_highlight_is_no_sentence_that_another_statement_has():
    said = transcript(
        ("Omar", "The second proxy of the checkout is a risk for two hundred customers of the shop."),
        ("Nora", "The first proxy of the checkout serves most customers of the shop."),
    )
    claims = extract(said, ENGLISH, ["highlight", "risk"])
    assert [(claim.kind, claim.text.split()[1]) for claim in claims] == [
        ("highlight", "first"),
        ("risk", "second"),
    ]
    assert [claim.text.split()[1] for claim in extract(said, ENGLISH, ["highlight"])] == ["second"]


def test_same_thing_said_twice_is_one_statement():
    assert (
        len(
            found(
                "risk", ("Omar", "The risk is the second proxy."), ("Nora", "So the second proxy is a risk.")
            )
        )
        == 1
    )


def test_language_of_the_transcript_decides_what_is_recognised():
    said = transcript(("Ольга", "Я проверю второй сервер до пятницы."))
    [claim] = extract(said, language_of("ru"), ["action"])
    assert (claim.owner, claim.due) == ("ольга", "до пятницы")
    assert extract(said, ENGLISH, ["action"]) == []


def test_whole_meeting_has_its_decisions_and_its_actions_with_owner_and_date():
    segments = load_meeting(INCIDENT_REVIEW).segments
    said = transcript(*((segment.speaker, segment.text) for segment in segments))
    checked = check(extract(said, ENGLISH, KINDS), said, ENGLISH)
    assert not checked.drops
    actions = {
        (statement.owner.name, statement.due)
        for statement in checked.statements
        if statement.kind == "action" and statement.owner is not None
    }
    assert {("Omar", "friday"), ("Ines", "today"), ("Felix", "right after this call")} <= actions
    decisions = [statement.text for statement in checked.statements if statement.kind == "decision"]
    assert "The alert fires at two percent from today." in decisions
    assert any("voucher" in text for text in decisions)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Ada", "Ben", "Cem"]),
            st.text(st.characters(codec="utf-8"), max_size=60)
            | st.sampled_from(
                [
                    "I will not pay 2,000 by Friday.",
                    "We agreed. Why?",
                    "Let us say: none!",
                    "I can do that today.",
                    "It is not mine. Is it?",
                ]
            ),
        ),
        max_size=12,
    )
)
def test_every_statement_is_words_of_the_transcript(said):
    heard = transcript(*said)
    claims = extract(heard, ENGLISH, KINDS)
    checked = check(claims, heard, ENGLISH)
    assert len(checked.statements) == len(claims)


def test_what_says_most_of_the_whole_is_rated_highest():
    shares = centrality([{"proxy", "certificate"}, {"proxy", "friday"}, {"voucher"}, {"proxy", "alert"}])
    assert shares.sum() == pytest.approx(1)
    assert shares.argmin() == 2
    assert centrality([]).shape == (0,)
