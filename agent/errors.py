"""Every exception that Roomscribe raises on purpose.

    RoomscribeError
    ├── ConfigError      a setting is wrong or missing; the command ends with exit code 2
    ├── InputError       what a person gave on the command line cannot be used; exit code 2
    ├── LiveKitError     the LiveKit server is away or refuses us
    └── EngineError      a speech engine cannot be loaded or does not work

A message is one sentence that says where, what was wrong, what is allowed and what to do. It never holds
a secret, nor a word that somebody said.
"""

__all__ = ["ConfigError", "EngineError", "InputError", "LiveKitError", "RoomscribeError"]


class RoomscribeError(Exception):
    """The root: catch this to catch what Roomscribe raises on purpose."""


class ConfigError(RoomscribeError):
    """A setting is wrong or missing."""


class InputError(RoomscribeError):
    """What a person gave on the command line cannot be used."""


class LiveKitError(RoomscribeError):
    """The LiveKit server is away or refuses us."""


class EngineError(RoomscribeError):
    """A speech engine cannot be loaded or does not work."""
