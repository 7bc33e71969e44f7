"""The templates of pages and reports, and what they can call."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from agent.captions.text import clean
from agent.console import wording

__all__ = ["render"]


def render(template: str, **values: Any) -> str:
    """A page. Every value is escaped; what is not given is an error, not an empty place."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("agent.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = [getattr(wording, name) for name in wording.__all__]
    environment.filters |= {each.__name__: each for each in (clean, *words) if callable(each)}
    return environment
