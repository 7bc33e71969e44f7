"""The scenarios that there are: those that come along, and those of one's own in a folder."""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path

from agent.analysis.scenario import Scenario, parse
from agent.errors import ConfigError

__all__ = ["load_scenarios"]

ENDING = ".md"
SETTING = "config: analysis.scenarios_dir"


def load_scenarios(folder: str) -> Mapping[str, Scenario]:
    """Read all scenarios.

    Args:
        folder: Of those of one's own, `analysis.scenarios_dir`; empty for none. One that is named as a
            packaged one takes its place.

    Returns:
        The scenarios by their id.

    Raises:
        ConfigError: The folder cannot be read, or something is wrong in a file; the message names it.
    """
    scenarios = [parse(name, source) for name, source in _packaged()]
    for path, source in _own(folder) if folder else ():
        try:
            scenarios.append(parse(path.stem, source))
        except ConfigError as error:
            raise ConfigError(f"{error} ({path})") from None
    return {scenario.id: scenario for scenario in scenarios}


def _packaged() -> Iterator[tuple[str, str]]:
    for file in sorted(files("prompts").iterdir(), key=lambda file: file.name):
        if file.name.endswith(ENDING):
            yield file.name.removesuffix(ENDING), file.read_text(encoding="utf-8")


def _own(folder: str) -> Iterator[tuple[Path, str]]:
    if not Path(folder).is_dir():
        raise ConfigError(
            f"{SETTING} {folder!r} is no folder; give one with a NAME{ENDING} for each scenario of your own, "
            "or leave it empty"
        )
    try:
        paths = sorted(path for path in Path(folder).iterdir() if path.suffix == ENDING)
    except OSError as error:
        raise ConfigError(f"{SETTING} {folder!r} cannot be read: {error.strerror}") from None
    for path in paths:
        try:
            yield path, path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{SETTING}: {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{SETTING}: {path} cannot be read: it is not in UTF-8") from None
