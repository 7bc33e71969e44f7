import json
import zlib
from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st

from persistence.journal.line import Damage, frame, scan
from persistence.position import Position
from persistence.records import Record
from tests.support.journalled import begun, final, later_records

START = Position(1, 0)
RESERVE = bytes(64)
EXAMPLES = 20  # each of some 600 files, one a byte

files = st.lists(later_records(), max_size=4).map(lambda records: [begun(), *records])


def records_of(data: bytes) -> list[Record]:
    return [entry.record for entry in scan(data, START).entries]


def framed(payload: bytes) -> bytes:
    return b"%08x %b\n" % (zlib.crc32(payload), payload)


@given(files, st.integers(0, 10_000))
def test_what_was_framed_is_read_with_the_position_after_each_record(records: list[Record], offset: int):
    lines = [frame(record) for record in records]
    found = scan(b"".join(lines) + RESERVE, Position(3, offset))
    ends = [Position(3, offset + end) for end in accumulate(map(len, lines))]
    assert [(entry.record, entry.end) for entry in found.entries] == list(zip(records, ends, strict=True))
    assert (found.end, found.damages, found.torn) == (ends[-1], [], None)


@settings(max_examples=EXAMPLES)
@given(files, st.sampled_from([b"", RESERVE]))
def test_a_file_cut_at_any_byte_holds_the_records_before_and_no_damage(records: list[Record], after: bytes):
    lines = [frame(record) for record in records]
    ends = list(accumulate(map(len, lines)))
    data = b"".join(lines)
    for cut in range(len(data)):
        found = scan(data[:cut] + after, START)
        whole = sum(end <= cut for end in ends)
        assert [entry.record for entry in found.entries] == records[:whole]
        assert found.damages == []
        assert (found.torn is None) == (cut in (0, *ends))


@settings(max_examples=EXAMPLES)
@given(files, st.integers(1, 255), st.sampled_from([b"", RESERVE]))
def test_a_byte_that_flips_costs_its_own_record_at_most_and_the_place_is_told(
    records: list[Record], mask: int, after: bytes
):
    lines = [frame(record) for record in records]
    begins = [0, *accumulate(map(len, lines))]
    data = b"".join(lines) + after
    for at in range(begins[-1]):
        flipped = bytearray(data)
        flipped[at] ^= mask
        found = scan(bytes(flipped), START)
        hit = sum(begin <= at for begin in begins) - 1
        assert [entry.record for entry in found.entries] == records[:hit] + records[hit + 1 :]
        told = [damage.position for damage in found.damages] + ([found.torn] if found.torn else [])
        assert told == [Position(1, begins[hit])]
        # Of the last line nobody can tell whether it was ever written wholly.
        assert (found.torn is not None) == (hit == len(records) - 1)


@given(files, st.integers(1, 255))
def test_a_byte_that_flips_in_the_reserved_space_costs_nothing(records: list[Record], mask: int):
    lines = b"".join(map(frame, records))
    for at in range(len(RESERVE)):
        flipped = bytearray(lines + RESERVE)
        flipped[len(lines) + at] ^= mask
        assert records_of(bytes(flipped)) == records


@given(st.binary(max_size=200))
def test_nothing_but_rubbish_is_no_record(rubbish: bytes):
    found = scan(rubbish, START)
    assert (found.entries, found.damages, found.end) == ([], [], START)
    assert (found.torn is not None) == bool(rubbish.strip(b"\0"))


def test_bytes_that_were_never_written_are_a_damage_where_lines_follow():
    first, second, third = (frame(final(number)) for number in (1, 2, 3))
    found = scan(first + bytes(len(second)) + third, START)
    assert [entry.record for entry in found.entries] == [final(1), final(3)]
    assert found.damages == [
        Damage(Position(1, len(first)), f"{len(second)} bytes were never written"),
    ]


def test_bytes_that_are_missing_are_a_damage_where_lines_follow():
    first, second, third = (frame(final(number)) for number in (1, 2, 3))
    found = scan(first + second[:20] + second[25:] + third, START)
    assert [entry.record for entry in found.entries] == [final(1), final(3)]
    assert [damage.position for damage in found.damages] == [Position(1, len(first))]


def test_a_whole_line_after_one_without_its_end_is_read():
    found = scan(frame(final(1))[:-7] + frame(final(2)), START)
    assert [entry.record for entry in found.entries] == [final(2)]
    assert [damage.position for damage in found.damages] == [START]


def test_neighbouring_lines_that_are_wrong_are_one_damage():
    wrong = b"not a line\n" * 3
    found = scan(frame(final(1)) + wrong + frame(final(2)), START)
    assert [damage.position for damage in found.damages] == [Position(1, len(frame(final(1))))]
    assert found.damages[0].reason == f"{len(wrong)} bytes do not match their checksum"


def test_a_record_of_an_unknown_kind_is_a_damage_wherever_it_stands():
    unknown = framed(json.dumps({"v": 1, "kind": "thought"}).encode())
    for data in (unknown, unknown + frame(final(1)), frame(final(1)) + unknown + RESERVE):
        found = scan(data, START)
        assert [entry.record for entry in found.entries] == [final(1)][: data != unknown]
        assert [damage.reason for damage in found.damages] == ["a record that this version does not know"]
        assert found.torn is None


def test_half_of_a_surrogate_pair_costs_that_character_only():
    assert records_of(frame(final(1, "so \ud83d long\n"))) == [final(1, "so ? long\n")]


def test_a_damage_is_told_without_what_was_said():
    lines = frame(final(1, "a secret")).replace(b"secret", b"SECRET") + frame(final(2))
    (damage,) = scan(lines, START).damages
    assert (
        str(damage)
        == f"segment 1, byte 0: {len(frame(final(1, 'a secret')))} bytes do not match their checksum"
    )
