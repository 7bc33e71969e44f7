"""The tables as queries name them, and rows read back as the records that they were written from."""

from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy import Column, Connection, Select, Table

from persistence.tables import SCHEMA

__all__ = [
    "AGENT_DEATH",
    "ANALYSIS",
    "API_KEY",
    "AUDIT_EVENT",
    "EPOCH",
    "EVIDENCE",
    "GAP",
    "LEASE",
    "PARTICIPANT",
    "PROCESSING_ERROR",
    "RENDERING",
    "ROOM_CONFIG",
    "SESSION",
    "SESSION_COMMAND",
    "SID",
    "STATEMENT",
    "STEM",
    "USAGE",
    "UTTERANCE",
    "columns",
    "records",
]

SESSION = SCHEMA.tables["session"]
SID = SCHEMA.tables["session_sid"]
EPOCH = SCHEMA.tables["session_epoch"]
PARTICIPANT = SCHEMA.tables["participant"]
UTTERANCE = SCHEMA.tables["utterance"]
GAP = SCHEMA.tables["gap"]
STEM = SCHEMA.tables["stem"]
USAGE = SCHEMA.tables["usage"]
LEASE = SCHEMA.tables["lease"]
AGENT_DEATH = SCHEMA.tables["agent_death"]
SESSION_COMMAND = SCHEMA.tables["session_command"]
ROOM_CONFIG = SCHEMA.tables["room_config"]
PROCESSING_ERROR = SCHEMA.tables["processing_error"]
AUDIT_EVENT = SCHEMA.tables["audit_event"]
ANALYSIS = SCHEMA.tables["analysis"]
STATEMENT = SCHEMA.tables["statement"]
EVIDENCE = SCHEMA.tables["evidence"]
RENDERING = SCHEMA.tables["rendering"]
API_KEY = SCHEMA.tables["api_key"]

Model = TypeVar("Model", bound=BaseModel)


def columns(table: Table, model: type[BaseModel]) -> list[Column[Any]]:
    """The columns of a table that the model has fields for."""
    return [table.c[name] for name in model.model_fields if name in table.c]


def records(connection: Connection, model: type[Model], query: Select[Any]) -> tuple[Model, ...]:
    """What a query for the `columns` of a model finds."""
    return tuple(model.model_validate(dict(row._mapping)) for row in connection.execute(query))
