import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.normalise import spoken_words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2%", "two percent"),
        ("about 4 per cent", "about four percent"),
        ("213 customers", "two hundred and thirteen customers"),
        ("€9,000", "nine thousand euros"),
        ("a voucher of $10.", "a voucher of ten dollars"),
        ("£1", "one pound"),
        ("$2 million", "two million dollars"),
        ("a book from 1952", "a book from nineteen fifty-two"),
        ("in 1905", "in nineteen oh five"),
        ("in 2013", "in twenty thirteen"),
        ("2,013 euros", "two thousand and thirteen euros"),
        ("in 2005", "in two thousand and five"),
        ("the 3rd, the 12th and the 21st", "the third, the twelfth, and the twenty first"),
        ("the 20th", "the twentieth"),
        ("1.5", "one point five"),
        ("room 007", "room zero zero seven"),
        ("10 past 9", "ten past nine"),
    ],
)
def test_numbers_in_digits_and_in_words_are_the_same_words(one: str, other: str) -> None:
    assert spoken_words(one) == spoken_words(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I'm sure we don't", "I am sure we do not"),
        ("I’ll say it won't", "I will say it will not"),
        ("Let's go", "let us go"),
        ("OK, at 9 p.m.", "okay at nine PM"),
        ("on-call phone", "on call phone"),
        ("mostly to cafés", "mostly to cafes"),
        ("Um, right.", "Right"),
        ("Mm-hmm.", ""),
        ("R&D", "R and D"),
    ],
)
def test_spellings_of_the_same_words_are_no_difference(one: str, other: str) -> None:
    assert spoken_words(one) == spoken_words(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("two percent", "twenty percent"),
        ("the proxy", "a proxy"),
        ("it's nine and ten", "it's nine ten"),
        ("I do", "I do not"),
    ],
)
def test_other_words_stay_a_difference(one: str, other: str) -> None:
    assert spoken_words(one) != spoken_words(other)


@given(st.text(alphabet=st.sampled_from("aimnorstu0123456789'’.,-%$€& é"), max_size=40))
def test_words_given_again_come_back_unchanged(text: str) -> None:
    words = spoken_words(text)

    assert spoken_words(" ".join(words)) == words


@given(st.text())
def test_any_text_becomes_lower_case_letters(text: str) -> None:
    assert all(word.isascii() and word.isalpha() and word.islower() for word in spoken_words(text))
