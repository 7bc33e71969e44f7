from hypothesis import given
from hypothesis import strategies as st

from agent.recording.stems import safe_name


@given(st.text(st.characters(), max_size=300))
def test_name_from_outside_stays_within_its_folder(name):
    safe = safe_name(name)
    assert 0 < len(safe.encode("ascii")) <= 100
    assert not set(safe) & set('/\\:.*?"<>| ')
    assert safe.isprintable()


@given(st.lists(st.text(st.characters(), max_size=200), unique=True, max_size=20))
def test_different_names_stay_different(names):
    assert len({safe_name(name) for name in names}) == len(names)


def test_long_names_that_begin_alike_stay_different():
    assert safe_name("a" * 200) != safe_name("a" * 201)


def test_track_id_of_livekit_is_its_own_name():
    assert safe_name("TR_AMnJ2k-Xy4bcZ") == "TR_AMnJ2k-Xy4bcZ"
