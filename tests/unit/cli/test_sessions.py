from agent.cli.sessions import stays
from persistence.records import Presence


def there(joined_ms: int, left_ms: int | None, name: str = "Ada", identity: str = "ada") -> Presence:
    return Presence(identity=identity, name=name, joined_ms=joined_ms, left_ms=left_ms)


def test_who_left_and_came_again_was_there_twice() -> None:
    assert stays([there(20, 30), there(0, 10)]) == [there(0, 10), there(20, 30)]


def test_what_two_agents_saw_of_one_stay_is_one_stay() -> None:
    assert stays([there(0, 15), there(10, 30)]) == [there(0, 30)]
    assert stays([there(0, 15), there(10, 12)]) == [there(0, 15)]


def test_who_was_there_when_an_agent_crashed_and_under_its_successor_never_left() -> None:
    assert stays([there(0, None), there(40, 90)]) == [there(0, 90)]
    assert stays([there(0, 50), there(40, None)]) == [there(0, None)]


def test_a_new_name_and_another_person_are_stays_of_their_own() -> None:
    renamed, other = there(10, 20, name="Ada L."), there(5, 9, identity="ada-2")

    assert stays([there(0, 10), renamed, other]) == [there(0, 10), other, renamed]
