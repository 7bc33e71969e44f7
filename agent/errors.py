"""Every exception that Roomscribe raises on purpose.

    RoomscribeError
    ├── ConfigError      a setting is wrong or missing; the command ends with exit code 2
    ├── InputError       what a person or a program gave cannot be used; exit code 2
    ├── LiveKitError     the LiveKit server is away or refuses us
    ├── EngineError      a speech engine cannot be loaded or does not work
    ├── DatabaseError    the database refuses what was asked, and always will
    │   └── DatabaseAwayError    it cannot be reached or used for now: try again
    ├── JournalError     a journal cannot be written or read
    │   └── JournalFullError     there is no room for what was to be written; nothing of it was
    └── RecordingError   audio cannot be written or read

A message is one sentence that says where, what was wrong, what is allowed and what to do. It never holds
a secret, nor a word that somebody said.
"""

__all__ = [
    "ConfigError",
    "DatabaseAwayError",
    "DatabaseError",
    "EngineError",
    "InputError",
    "JournalError",
    "JournalFullError",
    "LiveKitError",
    "RecordingError",
    "RoomscribeError",
]


class RoomscribeError(Exception):
    """The root: catch this to catch what Roomscribe raises on purpose."""


class ConfigError(RoomscribeError):
    """A setting is wrong or missing."""


class InputError(RoomscribeError):
    """What a person or a program gave cannot be used."""


class LiveKitError(RoomscribeError):
    """The LiveKit server is away or refuses us."""


class EngineError(RoomscribeError):
    """A speech engine cannot be loaded or does not work."""


class DatabaseError(RoomscribeError):
    """The database refuses what was asked."""


class DatabaseAwayError(DatabaseError):
    """The database cannot be reached, or not for now: the same may work later."""


class JournalError(RoomscribeError):
    """A journal cannot be written or read."""


class JournalFullError(JournalError):
    """There is no room for what was to be written to a journal, and nothing of it was."""


class RecordingError(RoomscribeError):
    """Audio cannot be written or read."""
