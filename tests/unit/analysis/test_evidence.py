"""What an engine claims is stored only where the transcript says it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.analysis.evidence import Drop, check
from agent.analysis.language import language_of
from agent.analysis.statement import Claim, Quote
from agent.analysis.text import tokens
from agent.analysis.transcript import Transcript, Utterance
from agent.values import Speaker

ENGLISH = language_of("en")
NORA, OMAR, INES = Speaker("nora", "Nora Lind"), Speaker("omar", "Omar"), Speaker("ines", "Ines")

SAID = [
    ("1-1", NORA, "Good. Omar adds the proxy to the renewal by Friday. Who looks at the alert?"),
    ("1-2", INES, "I will lower the threshold"),
    ("1-3", OMAR, "Right."),
    ("1-4", INES, "to one percent today."),
    ("1-5", NORA, "We still do not know why the on-call phone did not ring."),
    ("1-6", OMAR, "Two hundred and thirteen customers, and about nine thousand euros."),
]
TRANSCRIPT = Transcript(
    [Utterance(id_, who, text, 1_000 * at, 1_000 * at + 900) for at, (id_, who, text) in enumerate(SAID)],
    present=[Speaker("greta", "Greta")],
)


def claim(text, quote, *utterances, kind="highlight", owner="", due=""):
    return Claim(kind, text, (Quote(utterances, quote),), owner=owner, due=due)


def dropped(*claims):
    return dict(check(claims, TRANSCRIPT, ENGLISH).drops)


def kept(one):
    [statement] = check([one], TRANSCRIPT, ENGLISH).statements
    return statement


def test_evidence_is_the_transcripts_own_words_at_their_place():
    statement = kept(
        claim(
            "Omar adds the proxy to the renewal.",
            "omar adds the proxy, to the renewal by friday",
            "1-1",
            owner="Omar",
            due="Friday",
        )
    )
    [evidence] = statement.evidence
    text = SAID[0][2]
    assert (
        text[evidence.start : evidence.end] == evidence.text == "Omar adds the proxy to the renewal by Friday"
    )
    assert evidence.speaker == NORA
    assert 0 < evidence.start_ms < evidence.end_ms < 900
    assert statement.owner == OMAR
    assert statement.support == "lexical"


@pytest.mark.parametrize(
    ("said", "quote"),
    [
        ("The alert was set to 5%.", "set to 5%"),
        ("It cost $5 a day.", "$5 a day"),
        ("It cost 5€, all in all.", "It cost 5€"),
        ("Es liegt bei 5\u00a0%, also.", "liegt bei 5\u00a0%"),
        ("It is $ 5 a day.", "$ 5 a day"),
        ("It had -5 degrees.", "-5 degrees"),
        ("It was 3-5 degrees.", "5 degrees"),
        ("So 5 + 3 is it.", "So 5"),
        ("So it is (nearly) done.", "nearly"),
    ],
)
def test_evidence_has_the_signs_of_its_numbers_and_no_punctuation(said, quote):
    heard = Transcript([Utterance("1-1", NORA, said, 0, 900)], present=[])
    [statement] = check([claim(quote, quote, "1-1")], heard, ENGLISH).statements
    assert [each.text for each in statement.evidence] == [quote]


def test_quote_may_go_on_in_the_next_utterance_of_its_speaker():
    statement = kept(
        claim(
            "Ines will lower the threshold to one percent", "lower the threshold to one percent", "1-2", "1-4"
        )
    )
    assert [(each.utterance, each.text) for each in statement.evidence] == [
        ("1-2", "lower the threshold"),
        ("1-4", "to one percent"),
    ]


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (claim("The proxy is renewed.", "", "1-1"), Drop.NO_QUOTE),
        (claim("The proxy is renewed.", "Omar adds the proxy", "9-9"), Drop.UNKNOWN_UTTERANCE),
        (claim("The proxy is renewed.", "Omar adds the proxy"), Drop.UNKNOWN_UTTERANCE),
        (claim("Ines lowers it.", "I will lower the threshold right", "1-2", "1-3"), Drop.NOT_CONSECUTIVE),
        (claim("Ines lowers it.", "to one percent today I will", "1-4", "1-2"), Drop.NOT_CONSECUTIVE),
        (claim("The proxy is sold.", "the proxy will be sold to somebody", "1-1"), Drop.QUOTE_NOT_FOUND),
        (claim("Omar adds the proxy.", "Omar adds the proxy", "1-5"), Drop.QUOTE_NOT_FOUND),
        (claim("We know why the on-call phone did ring.", SAID[4][2], "1-5"), None),
        (claim("The phone did ring.", "the on-call phone did not ring", "1-5"), Drop.NEGATION),
        (claim("Lower the threshold to two percent.", "to one percent today", "1-4"), Drop.NUMBER),
        (claim("There are 214 customers.", SAID[5][2], "1-6"), Drop.NUMBER),
        (claim("There are 213 customers.", SAID[5][2], "1-6"), None),
        (claim("Felix adds the proxy.", "Omar adds the proxy", "1-1", owner="Felix"), Drop.OWNER_ABSENT),
        (claim("Omar adds the proxy.", "Omar adds the proxy", "1-1", due="Monday"), Drop.DUE_NOT_SAID),
        (claim("Omar adds the proxy.", "Omar adds the proxy", "1-1", due="2026-02-31"), Drop.DUE_NOT_SAID),
        (claim("Omar adds the proxy.", "Omar adds the proxy", "1-1", due="2026-02-27"), None),
        (claim("The budget is approved.", "Omar adds the proxy", "1-1"), Drop.UNSUPPORTED),
    ],
)
def test_claim_that_the_transcript_does_not_bear_out_is_dropped_and_counted(one, reason):
    assert dropped(one) == ({} if reason is None else {reason: 1})


def test_owner_may_be_somebody_who_said_nothing_and_is_known_by_a_part_of_the_name():
    assert kept(claim("Adds the proxy", "adds the proxy", "1-1", owner="Greta")).owner == Speaker(
        "greta", "Greta"
    )
    assert kept(claim("Adds the proxy", "adds the proxy", "1-1", owner="nora")).owner == NORA


@given(st.data())
def test_every_quote_from_the_transcript_is_found_where_it_stands(data):
    utterance = data.draw(st.sampled_from(list(TRANSCRIPT)))
    words = tokens(utterance.text)
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    quote = utterance.text[words[first].start : words[last].end]
    statement = kept(claim(quote, quote, utterance.id))
    [evidence] = statement.evidence
    assert evidence.text == quote or utterance.text.count(quote) > 1


@given(st.text(max_size=200), st.text(max_size=80))
def test_nothing_that_an_engine_writes_breaks_the_check(text, quote):
    checked = check([claim(text, quote, "1-1", owner=text[:10], due=quote[:10])], TRANSCRIPT, ENGLISH)
    assert len(checked.statements) + checked.drops.total() == 1
    for statement in checked.statements:
        for evidence in statement.evidence:
            utterance = TRANSCRIPT.get(evidence.utterance)
            assert utterance.text[evidence.start : evidence.end] == evidence.text


def test_owner_is_known_by_identity_where_several_have_a_name_or_one_has_none():
    anna, other, nameless = Speaker("anna-1", "Anna"), Speaker("anna-2", "Anna"), Speaker("phone", "")
    said = Transcript(
        [
            Utterance("1-1", anna, "I will send the mail.", 0, 900),
            Utterance("1-2", other, "I will call them.", 1_000, 1_900),
            Utterance("1-3", nameless, "I will check the proxy.", 2_000, 2_900),
        ]
    )

    def owner(given: str) -> Speaker | Drop | None:
        made = claim("I will send the mail.", "I will send the mail", "1-1", owner=given)
        checked = check([made], said, ENGLISH)
        return checked.statements[0].owner if checked.statements else next(iter(checked.drops))

    assert (owner("anna-1"), owner("anna-2"), owner("phone")) == (anna, other, nameless)
    assert owner("Anna") is Drop.OWNER_AMBIGUOUS
    assert owner("Omar") is Drop.OWNER_ABSENT
    assert owner("") is None
