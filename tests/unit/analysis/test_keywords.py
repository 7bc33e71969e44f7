"""The words that a session was about."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.analysis.keywords import keywords
from agent.analysis.language import language_of
from agent.analysis.text import tokens
from agent.analysis.transcript import Transcript, Utterance
from agent.values import Speaker

ENGLISH = language_of("en")
WORDS = [
    "the",
    "and",
    "we",
    "Omar",
    "Omar's",
    "proxy",
    "certificate",
    "certificates",
    "Renewal",
    "213",
    "ten",
    "ok",
    "UI",
]


def transcript(*texts: str, present: tuple[str, ...] = ("Omar Haddad", "Ольга")) -> Transcript:
    speakers = [Speaker(name, name) for name in present]
    return Transcript(
        (
            Utterance(f"1-{number}", speakers[0], text, 1_000 * number, 1_000 * number + 900)
            for number, text in enumerate(texts, start=1)
        ),
        speakers,
    )


@pytest.mark.parametrize(
    ("tag", "texts", "expected"),
    [
        (
            "en",
            [
                "Then we renew the certificate.",
                "Two certificates, two alerts.",
                "The certificate, and an alert",
            ],
            ("certificate", "alert"),
        ),
        (
            "ru",
            ["Сертификат истёк вчера.", "Мы обновили два сертификата.", "Сертификат на прокси.", "И прокси."],
            ("сертификат", "прокси"),
        ),
        (
            "uk",
            [
                "Сертифікат застарів.",
                "Об'єкти готові.",
                "Ми оновили два сертифікати й об\u2019єкти.",
                "Сертифікат є.",
            ],
            ("сертифікат", "об'єкти"),
        ),
    ],
)
def test_forms_of_a_word_are_one_and_the_most_frequent_comes_first(
    tag: str, texts: list[str], expected: tuple[str, ...]
) -> None:
    assert keywords(transcript(*texts), language_of(tag)) == expected


def test_names_of_those_who_were_there_are_left_out() -> None:
    said = [
        "Omar adds the proxy.",
        "Is it Omar\u2019s proxy, Omar?",
        "Omar's, Haddad's.",
        "Haddad, Omar\u2019s.",
    ]
    assert keywords(transcript(*said), ENGLISH) == ("proxy",)
    assert keywords(transcript(*said, present=("Anna",)), ENGLISH) == ("omar", "haddad", "proxy")


def test_word_of_one_utterance_is_none_however_often_it_comes_there() -> None:
    assert keywords(transcript("Proxy, proxy, proxy!", "Right."), ENGLISH) == ()
    assert keywords(transcript(), ENGLISH) == ()


@pytest.mark.parametrize("tag", ["en", "ru", "uk"])
def test_words_that_say_nothing_are_none(tag: str) -> None:
    language = language_of(tag)
    empty = " ".join(sorted(language.stop_words | set(language.numbers) | set(language.multipliers)))
    assert keywords(transcript(empty, empty), language) == ()


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join), max_size=8), st.integers(0, 4))
def test_keywords_are_words_that_were_said_in_two_utterances(texts: list[str], most: int) -> None:
    found = keywords(transcript(*texts), ENGLISH, most)
    assert len(found) == len(set(found)) <= most
    said = [{token.text for token in tokens(text)} for text in texts]
    for word in found:
        assert len(word) > 2
        assert not word.startswith(("omar", "haddad"))
        assert word not in ENGLISH.stop_words
        assert any(word in words for words in said)
        assert sum(any(other[:5] == word[:5] for other in words) for words in said) >= 2


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join), max_size=8))
def test_order_of_what_was_said_does_not_matter(texts: list[str]) -> None:
    assert keywords(transcript(*texts), ENGLISH) == keywords(transcript(*reversed(texts)), ENGLISH)


@given(st.lists(st.text(max_size=40), max_size=6), st.text(max_size=10))
def test_nothing_that_was_said_breaks_them(texts: list[str], name: str) -> None:
    keywords(transcript(*texts, present=(name,)), ENGLISH)
