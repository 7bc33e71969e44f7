"""What is known of a language."""

import pytest

from agent.analysis.language import language_of
from agent.analysis.text import folded, tokens

ENGLISH = language_of("en-GB")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("two hundred and thirteen customers, and about nine thousand euros", {213, 9_000}),
        ("twenty three of forty seven", {23, 47}),
        ("one two three", {1, 2, 3}),
        ("five hundred thousand and one", {500_001}),
        ("nineteen fifty two", {19, 52}),
        ("1,000 euros, 2.5 percent, at 9:10", {1_000, 2.5}),
        ("a hundred", set()),
        ("nothing at all", set()),
    ],
)
def test_numbers_in_digits_and_in_words_are_the_same(text, values):
    assert ENGLISH.values(tokens(text)) == values


def test_two_negations_are_none():
    assert ENGLISH.is_negated(tokens("We do not know"))
    assert not ENGLISH.is_negated(tokens("Nobody does not know"))


def test_content_is_what_a_text_is_about():
    renewal, renewed = (
        ENGLISH.content(tokens(text))
        for text in ("The renewal of two certificates", "it is renewed: a certificate")
    )
    assert renewal == renewed == {"renew", "certi"}


def test_language_that_nothing_is_known_of_is_treated_as_english():
    assert language_of("xx").code == "en"


@pytest.mark.parametrize(
    ("tag", "text", "values"),
    [
        ("ru", "двести тринадцать клиентов и около девяти тысяч евро", {213, 9_000}),
        ("uk", "двісті тринадцять клієнтів і близько дев'яти тисяч євро", {213, 9_000}),
        ("uk", "сорок п\u2019ять", {45}),
    ],
)
def test_numbers_in_words_of_other_languages(tag, text, values):
    assert language_of(tag).values(tokens(text)) == values


@pytest.mark.parametrize(
    ("tag", "kind", "sentence"),
    [
        ("ru", "commitment", "Я проверю второй прокси."),
        ("ru", "due", "Я сделаю это до пятницы."),
        ("ru", "decision", "Значит, договорились: порог два процента."),
        ("ru", "question", "Мы не знаем, почему телефон не звонил."),
        ("ru", "risk", "Сертификат может истечь."),
        ("uk", "commitment", "Я перевірю другий проксі."),
        ("uk", "due", "Зроблю це до п\u2019ятниці."),
        ("uk", "decision", "Тоді домовилися: поріг два відсотки."),
        ("uk", "question", "Ми не знаємо, чому телефон не дзвонив."),
        ("uk", "risk", "Є ризик, що сертифікат застарів."),
        ("en", "due", "I will have that done by Friday."),
    ],
)
def test_cues_are_found_in_sentences(tag, kind, sentence):
    assert language_of(tag).cue(kind, folded(sentence)) is not None
