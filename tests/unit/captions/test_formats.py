"""A transcript as files: what is read back from them is what was said."""

import html
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import av
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.captions.formats import FORMATS, Cue, Stay, Transcript, Unheard, clock, told_apart
from agent.captions.protocol import schema
from agent.captions.text import clean
from agent.values import Speaker

AT = datetime(2026, 3, 4, 5, 6, 7, 89_000, tzinfo=UTC)
ADA = Speaker("ada-1", "Ada")
OTHER_ADA = Speaker("ada-2", "Ada")
OMAR = Speaker("omar", "عمر")
TIME = r"\d{2,}:[0-5]\d:[0-5]\d"

# What looks like a part of a file is somebody's name, some day.
TRICKS = [
    "-->", "--->", "00:00:01,000 --> 00:00:02,000", "WEBVTT", "NOTE", "<v Eve>", "&amp;", "&", "\n\n1\n",
    "\r\n",
    "1", '"', "\\", "\u2028", "\x1b[2J", "\x9b", "\u202e", "\ud800", "שלום", "𝄞🎉", "Ada (ada-2)", "", " ",
]  # fmt: skip
WORDS = (
    st.text(max_size=20) | st.sampled_from(TRICKS) | st.tuples(*[st.sampled_from(TRICKS)] * 3).map("".join)
)
MS = st.integers(0, 10**8)
SPEAKERS = st.builds(Speaker, WORDS, WORDS)
UNHEARD = st.builds(Unheard, MS, MS, identity=WORDS, reason=WORDS.filter(clean))


def said(
    text: str, speaker: Speaker = ADA, *, number: int = 1, start_ms: int = 1_000, end_ms: int = 2_000
) -> Cue:
    return Cue(f"1-{number}", 1, speaker, text, "en", 0.5, False, start_ms, end_ms)


def transcript(
    cues: Sequence[Cue] = (), gaps: Sequence[Unheard] = (), stays: Sequence[Stay] = (), room: str = "planning"
) -> Transcript:
    return Transcript(
        session="ab12",
        room=room,
        languages=["en"],
        started_at=AT,
        ended_at=None,
        ended_by="",
        stays=stays,
        gaps=sorted(gaps, key=lambda gap: gap.start_ms),
        speakers={cue.speaker for cue in cues} | {stay.speaker for stay in stays},
        cues=iter(sorted(cues, key=lambda cue: cue.start_ms)),
    )


def written(form: str, *args: Any, **kwargs: Any) -> str:
    text = "".join(FORMATS[form](transcript(*args, **kwargs)))
    text.encode()  # whoever writes it to a file can
    return text


CUES = st.lists(
    st.builds(
        Cue,
        id=st.tuples(st.integers(1, 9), st.integers(1, 99)).map(lambda at: f"{at[0]}-{at[1]}"),
        revision=st.integers(1, 9),
        speaker=SPEAKERS,
        text=WORDS,
        language=st.just("en"),
        confidence=st.floats(0, 1),
        has_overlap=st.booleans(),
        start_ms=MS,
        end_ms=MS,
    ),
    max_size=6,
)


class Read(NamedTuple):
    """A cue as a reader of subtitles finds it."""

    name: str
    text: str
    start_ms: int
    end_ms: int


def expected(cues: Sequence[Cue]) -> list[Read]:
    names = told_apart({cue.speaker for cue in cues})
    return [
        Read(
            names[cue.speaker],
            clean(cue.text),
            cue.start_ms,
            cue.end_ms if cue.end_ms > cue.start_ms else cue.start_ms + 500,
        )
        for cue in sorted(cues, key=lambda cue: cue.start_ms)
        if clean(cue.text)
    ]


def ms(time: str) -> int:
    hours, minutes, seconds, thousandths = map(int, re.split("[:.,]", time))
    return ((hours * 60 + minutes) * 60 + seconds) * 1_000 + thousandths


def read_srt(text: str) -> Iterator[tuple[str, int, int]]:
    """Strictly: a number, the times, one line, an empty line."""
    lines = text.split("\n")
    assert lines.pop() == ""
    assert len(lines) % 4 == 0
    for number, at in enumerate(range(0, len(lines), 4), 1):
        assert lines[at] == str(number)
        times = re.fullmatch(rf"({TIME},\d{{3}}) --> ({TIME},\d{{3}})", lines[at + 1])
        assert times is not None
        assert "-->" not in lines[at + 2]
        assert lines[at + 3] == ""
        yield lines[at + 2], ms(times[1]), ms(times[2])


def read_vtt(text: str) -> Iterator[Read]:
    """Strictly what we write: blocks that are a comment of one line, or an id, the times and a voice."""
    assert re.search("[\r\0]", text) is None
    header, *blocks = text.removesuffix("\n").split("\n\n")
    assert header == "WEBVTT"
    for block in blocks:
        lines = block.split("\n")
        if lines[0].startswith("NOTE "):
            assert len(lines) == 1
            assert "-->" not in block
            continue
        assert len(lines) == 3
        assert re.fullmatch(r"\d+-\d+", lines[0])
        times = re.fullmatch(rf"({TIME}\.\d{{3}}) --> ({TIME}\.\d{{3}})", lines[1])
        voice = re.fullmatch("<v ([^>]+)>([^<>]*)", lines[2])
        assert times is not None
        assert voice is not None
        yield Read(html.unescape(voice[1]), html.unescape(voice[2]), ms(times[1]), ms(times[2]))


@given(CUES, st.lists(UNHEARD, max_size=3))
def test_what_is_read_from_subrip_is_what_was_said(cues: list[Cue], gaps: list[Unheard]) -> None:
    wanted = [
        (re.sub("--+>", "->", f"{read.name}: {read.text}"), read.start_ms, read.end_ms)
        for read in expected(cues)
    ]

    assert list(read_srt(written("srt", cues, gaps))) == wanted


@given(CUES, st.lists(UNHEARD, max_size=3))
def test_what_is_read_from_webvtt_is_what_was_said(cues: list[Cue], gaps: list[Unheard]) -> None:
    assert list(read_vtt(written("vtt", cues, gaps))) == expected(cues)


@given(
    CUES, st.lists(UNHEARD, max_size=3), st.lists(st.builds(Stay, SPEAKERS, MS, st.none() | MS), max_size=3)
)
def test_what_is_read_from_json_is_what_is_known(
    cues: list[Cue], gaps: list[Unheard], stays: list[Stay]
) -> None:
    read = json.loads(written("json", cues, gaps, stays))

    jsonschema.validate(read, schema("transcript"))
    assert [(final["id"], final["text"], final["start_ms"], final["end_ms"]) for final in read["finals"]] == [
        (cue.id, clean(cue.text), cue.start_ms, cue.end_ms)
        for cue in sorted(cues, key=lambda cue: cue.start_ms)
        if clean(cue.text)
    ]
    assert [one["identity"] for one in read["participants"]] == [stay.speaker.identity for stay in stays]
    assert [gap["end_ms"] for gap in read["gaps"]] == [
        gap.end_ms for gap in sorted(gaps, key=lambda gap: gap.start_ms)
    ]


@given(CUES, st.lists(UNHEARD, max_size=3), WORDS)
def test_no_format_shows_what_could_disturb_a_terminal(
    cues: list[Cue], gaps: list[Unheard], room: str
) -> None:
    for form in FORMATS:
        for line in written(form, cues, gaps, room=room).split("\n"):
            if form == "json":  # identities are given as they are
                assert re.search("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", line) is None
            else:
                assert clean(line) == line


@given(CUES, st.lists(UNHEARD, max_size=3))
def test_a_text_has_a_line_for_each_final_and_each_gap(cues: list[Cue], gaps: list[Unheard]) -> None:
    lines = written("txt", cues, gaps).splitlines()

    assert len(lines) == len(expected(cues)) + len(gaps)
    assert all(re.match(rf"\[{TIME}\] \S", line) for line in lines)
    assert [line[1:9] for line in lines] == sorted(line[1:9] for line in lines)


@given(st.sets(SPEAKERS, max_size=8))
def test_no_two_identities_are_called_the_same(speakers: set[Speaker]) -> None:
    names = told_apart(speakers)

    assert set(names) == speakers
    called: dict[str, set[str]] = {}
    for speaker, name in names.items():
        called.setdefault(name, set()).add(speaker.identity)
    assert all(len(identities) == 1 for identities in called.values())


def test_who_has_a_name_alone_is_called_by_it() -> None:
    renamed = Speaker("omar", "Omar")

    assert told_apart([ADA, OTHER_ADA, OMAR, renamed]) == {
        ADA: "Ada (ada-1)",
        OTHER_ADA: "Ada (ada-2)",
        OMAR: "عمر",
        renamed: "Omar",
    }


def test_nobody_is_taken_for_somebody_else_by_choosing_their_full_name() -> None:
    eve = Speaker("eve", "Ada (ada-2)")

    assert told_apart([ADA, OTHER_ADA, eve])[eve] == "Ada (ada-2) (eve)"


@pytest.mark.parametrize(
    ("speaker", "called"),
    [(Speaker("user-7", " \0"), "user-7"), (Speaker("", "?"), "?"), (Speaker("\0", ""), "?")],
)
def test_who_has_no_name_is_called_by_what_there_is(speaker: Speaker, called: str) -> None:
    assert told_apart([speaker]) == {speaker: called}


CUES_SEEN = [
    said("Good <b>morning</b> & so on.", start_ms=3_723_004, end_ms=3_724_000),
    said("שלום\n𝄞", OMAR, number=2),
]
GAPS_SEEN = [Unheard(2_000, 14_000, "", "agent_away"), Unheard(3_000, 3_400, "omar", "not_permitted")]


def test_the_formats_are_as_people_know_them() -> None:
    assert written("txt", CUES_SEEN, GAPS_SEEN) == (
        "[00:00:01] عمر: שלום 𝄞\n"
        "[00:00:02] (not heard for 12 s: agent_away)\n"
        "[00:00:03] (عمر not heard for 400 ms: not_permitted)\n"
        "[01:02:03] Ada: Good <b>morning</b> & so on.\n"
    )
    assert written("srt", CUES_SEEN, GAPS_SEEN) == (
        "1\n00:00:01,000 --> 00:00:02,000\nعمر: שלום 𝄞\n\n"
        "2\n01:02:03,004 --> 01:02:04,000\nAda: Good <b>morning</b> & so on.\n\n"
    )
    assert written("vtt", CUES_SEEN, GAPS_SEEN) == (
        "WEBVTT\n"
        "\n1-2\n00:00:01.000 --> 00:00:02.000\n<v عمر>שלום 𝄞\n"
        "\nNOTE 00:00:02.000 not heard for 12 s: agent_away\n"
        "\nNOTE 00:00:03.000 عمر not heard for 400 ms: not_permitted\n"
        "\n1-1\n01:02:03.004 --> 01:02:04.000\n<v Ada>Good &lt;b&gt;morning&lt;/b&gt; &amp; so on.\n"
    )


def test_cues_that_overlap_keep_the_order_of_their_beginnings() -> None:
    cues = [said("first", start_ms=0, end_ms=9_000), said("second", OMAR, number=2, start_ms=5, end_ms=10)]

    assert [read.text for read in read_vtt(written("vtt", cues))] == ["first", "second"]


def test_a_session_without_a_word_is_an_empty_file_of_its_kind() -> None:
    assert written("txt") == ""
    assert written("srt") == ""
    assert written("vtt") == "WEBVTT\n"
    assert json.loads(written("json"))["finals"] == []


def test_nothing_is_read_ahead_of_what_is_written() -> None:
    """So that a transcript of hours is never whole in memory."""
    taken = 0

    def cues() -> Iterator[Cue]:
        nonlocal taken
        for number in range(10**9):
            taken += 1
            yield said("word", number=number, start_ms=number * 1_000, end_ms=number * 1_000 + 900)

    for write in FORMATS.values():
        endless = Transcript("s", "r", ["en"], AT, None, "", [], [], {ADA}, cues())
        taken = 0
        pieces = write(endless)
        while taken < 3:
            next(pieces)
        assert taken == 3


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_ffmpeg_reads_the_same_cues(form: str, tmp_path: Path) -> None:
    trick = Speaker("eve", "00:00:07,000 --> 00:00:08,000")
    cues = [said("Hello.", number=1), said("So.\n\n2\n", trick, number=2, start_ms=1_500), *CUES_SEEN[:1]]
    file = tmp_path / f"transcript.{form}"
    file.write_text(written(form, cues, GAPS_SEEN), encoding="utf-8")

    with av.open(str(file)) as container:
        read = [(p.pts, p.duration, bytes(p).decode()) for p in container.demux() if p.size]

    assert [(start_ms, length_ms) for start_ms, length_ms, _ in read] == [
        (1_000, 1_000),
        (1_500, 500),
        (3_723_004, 996),
    ]
    assert [
        html.unescape(text).endswith(cue.text.split("\n")[0])
        for (_, _, text), cue in zip(read, cues, strict=True)
    ]


@pytest.mark.parametrize(
    ("at_ms", "shown"), [(0, "00:00:00"), (3_599_999, "00:59:59"), (360_000_000, "100:00:00")]
)
def test_the_clock_always_has_hours(at_ms: int, shown: str) -> None:
    assert clock(at_ms) == shown
