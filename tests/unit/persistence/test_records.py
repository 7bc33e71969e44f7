import json
from pathlib import Path
from typing import get_args

import jsonschema
import pytest

from persistence.journal.segment import segment_name
from persistence.journal.writer import Journal
from persistence.records import Ended, Failure, Gap, Presence, Record, Stem, Usage, json_schema
from tests.support.journalled import BEGAN_AT, ROOMY, begun, final

EVERY_KIND: list[Record] = [
    begun(),
    final(1, 'She said: "é\u2028𝄞"'),
    Presence(identity="anna", name="Anna", joined_ms=0),
    Presence(identity="anna", name="Anna", joined_ms=0, left_ms=9),
    Gap(start_ms=0, end_ms=9, reason="engine"),
    Stem(track="TR_1", number=1, identity="anna", path="1.ogg", sample_rate_hz=48_000, start_ms=0),
    Stem(
        track="TR_1", number=1, identity="anna", path="1.ogg", sample_rate_hz=48_000, start_ms=0,
        duration_ms=9, size_bytes=9, ended_by="crash",
    ),
    Usage(identity="", speech_ms=0, stt_ms=9),
    Failure(id="f1", stage="stt", code="timeout", message="No answer in 5 s.", at=BEGAN_AT),
    Ended(reason="room_closed", end_ms=9, at=BEGAN_AT),
]  # fmt: skip


def test_every_line_of_a_journal_is_as_the_schema_says(tmp_path: Path):
    kinds = {type(record) for record in EVERY_KIND}
    assert kinds == set(get_args(get_args(Record)[0]))
    with_all = Journal.create(tmp_path, begun(), ROOMY)
    with_all.append(EVERY_KIND[1:])
    with_all.close(is_applied=False)
    lines = (tmp_path / "ab12-1" / segment_name(1)).read_bytes().splitlines()
    assert len(lines) == len(EVERY_KIND)
    validator = jsonschema.Draft202012Validator(json_schema())
    for line in lines:
        checksum, _, payload = line.partition(b" ")
        assert len(checksum) == 8
        validator.validate(json.loads(payload))


@pytest.mark.parametrize(
    "changes", [{"kind": "unknown"}, {"start_ms": -1}, {"end_ms": "9"}, {"v": 2}], ids=lambda one: str(one)
)
def test_what_is_no_record_is_not_as_the_schema_says(changes: dict[str, object]):
    gap = Gap(start_ms=0, end_ms=9, reason="engine").model_dump(mode="json")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**gap, **changes}, json_schema())
