"""Terms that a model is to expect, as each generation of models takes them. Pure."""

from collections.abc import Iterable

__all__ = ["query_of", "takes_keyterms", "within_limits"]

# Nova-3 takes 500 tokens of key terms. At the start of a stream more are an error; while it runs they stop
# the transcription without one. The tokenizer is not public: three bytes a token is on the safe side.
_MOST_TOKENS = 500
_BYTES_A_TOKEN = 3
_MOST_KEYWORDS = 100  # what older models take
_BOOST_MARK = ":"  # begins a weight in a keyword


def takes_keyterms(model: str) -> bool:
    """Whether a model takes phrases as `keyterm`; older ones take single words as `keywords`."""
    return model.startswith("nova-3")


def within_limits(terms: Iterable[str], model: str) -> tuple[str, ...]:
    """As many of the terms as a model takes, the first ones, in the form that it takes, each once."""
    wanted = (" ".join(term.split()) for term in terms)
    if not takes_keyterms(model):
        words = (word for term in wanted for word in term.replace(_BOOST_MARK, " ").split())
        return tuple(dict.fromkeys(words))[:_MOST_KEYWORDS]
    kept: list[str] = []
    tokens = 0
    for term in dict.fromkeys(filter(None, wanted)):
        tokens += 1 + len(term.encode()) // _BYTES_A_TOKEN
        if tokens > _MOST_TOKENS:
            break
        kept.append(term)
    return tuple(kept)


def query_of(terms: Iterable[str], model: str) -> dict[str, list[str]]:
    """The query parameter that carries terms which are within the limits; none without terms."""
    values = list(terms)
    if not values:
        return {}
    return {"keyterm" if takes_keyterms(model) else "keywords": values}
