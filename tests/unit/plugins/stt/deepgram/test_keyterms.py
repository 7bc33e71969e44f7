"""Key terms: as many as a model takes, as it takes them."""

from hypothesis import given
from hypothesis import strategies as st

from plugins.stt.deepgram.keyterms import query_of, within_limits


def test_nova_3_takes_phrases() -> None:
    terms = within_limits(["Kubernetes", "  error   budget ", "Kubernetes", ""], "nova-3-medical")

    assert terms == ("Kubernetes", "error budget")
    assert query_of(terms, "nova-3-medical") == {"keyterm": ["Kubernetes", "error budget"]}


def test_older_models_take_words_without_weights() -> None:
    terms = within_limits(["error budget", "budget:5"], "nova-2")

    assert terms == ("error", "budget", "5")
    assert query_of(terms, "nova-2") == {"keywords": ["error", "budget", "5"]}


def test_no_terms_are_no_parameter() -> None:
    assert query_of((), "nova-3") == {}


@given(st.lists(st.text(max_size=40), max_size=300))
def test_terms_stay_within_the_limit_and_in_order(terms: list[str]) -> None:
    kept = within_limits(terms, "nova-3")

    assert sum(len(term.encode()) / 4 for term in kept) <= 500
    plain = list(dict.fromkeys(" ".join(term.split()) for term in terms if term.strip()))
    assert list(kept) == plain[: len(kept)]


def test_older_models_get_a_hundred_words_at_most() -> None:
    assert len(within_limits([f"word{n}" for n in range(150)], "nova-2")) == 100
