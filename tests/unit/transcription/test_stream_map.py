from hypothesis import given
from hypothesis import strategies as st

from agent.transcription.stream_map import MAX_PIECES, StreamMap


def test_contiguous_audio_is_one_straight_line():
    stream = StreamMap()
    stream.append(1, "a", 1_000, 50)
    stream.append(1, "a", 1_050, 50)
    assert [stream.to_session(ms) for ms in (0, 49, 50, 99)] == [1_000, 1_049, 1_050, 1_099]
    assert stream.to_session_end(100) == 1_100


def test_end_of_a_word_at_a_seam_stays_with_its_own_piece():
    stream = StreamMap()
    stream.append(1, "a", 1_000, 100)
    stream.append(2, "b", 60_000, 100)
    assert stream.to_session(100) == 60_000
    assert stream.to_session_end(100) == 1_100


def test_time_outside_what_was_sent_is_the_end_of_it():
    stream = StreamMap()
    stream.append(1, "a", 1_000, 100)
    assert [stream.to_session(ms) for ms in (-50, 150)] == [1_000, 1_100]


def test_time_is_never_placed_in_another_turn():
    stream = StreamMap()
    stream.append(1, "a", 1_000, 100)
    stream.append(2, "b", 60_000, 100)
    stream.append(3, "c", 90_000, 100)
    assert [stream.to_session(ms, within=2) for ms in (50, 150, 250)] == [60_000, 60_050, 60_100]


def test_whose_turn_it_was_is_known_by_the_time_in_the_stream():
    stream = StreamMap()
    assert stream.piece_at(0) is None
    stream.append(1, "a", 1_000, 100)
    stream.append(2, "b", 1_050, 100)
    assert [stream.piece_at(ms).track_id for ms in (0, 99, 100, 250)] == ["a", "a", "b", "b"]
    assert stream.span_of(2) == (1_050, 1_150)


def test_nothing_sent_yet_is_the_beginning():
    assert StreamMap().to_session(500) == 0


def test_map_of_a_long_session_is_bounded():
    stream = StreamMap()
    for number in range(2 * MAX_PIECES):
        stream.append(number, "a", number * 1_000, 10)
    last = 2 * MAX_PIECES - 1
    assert stream.to_session(last * 10 + 5) == last * 1_000 + 5
    assert len(stream._pieces) == MAX_PIECES


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 500)), min_size=1, max_size=30))
def test_every_millisecond_goes_back_to_where_it_came_from(pieces):
    stream, expected, session_ms = StreamMap(), [], 0
    for gap, duration in pieces:
        session_ms += gap
        stream.append(1, "a", session_ms, duration)
        expected += range(session_ms, session_ms + duration)
        session_ms += duration
    assert [stream.to_session(ms) for ms in range(len(expected))] == expected
