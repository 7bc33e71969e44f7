"""Keys of the console and its API: what is stored of them, and whom they let in."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import insert, select, update

from persistence import api_keys
from persistence.api_keys import ApiKey
from persistence.clock import database_time
from persistence.database import Database
from persistence.records import DEFAULT_SPACE
from persistence.rows import API_KEY
from persistence.tables import SCHEMA
from tests.support.plans import plans
from tests.support.stored_session import add_space

AT = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


def create(database: Database, name: str = "Anna's laptop", space: str = DEFAULT_SPACE) -> tuple[str, ApiKey]:
    with database.write() as connection:
        return api_keys.create(connection, space, name)


def find(database: Database, key: str) -> ApiKey | None:
    with database.read() as connection:
        return api_keys.find(connection, key)


def keys_of(database: Database, space: str) -> list[ApiKey]:
    with database.read() as connection:
        return api_keys.list_keys(connection, space)


def test_key_is_found_by_whoever_has_it_and_by_nobody_else(database: Database) -> None:
    key, made = create(database)
    other, _ = create(database)
    assert key != other
    assert key.startswith(api_keys.PREFIX)
    assert find(database, key) == made
    for wrong in ("", key[:-1], key + "A", key.removeprefix(api_keys.PREFIX), key.swapcase(), made.id):
        assert find(database, wrong) is None


def test_only_a_hash_of_a_key_is_stored(database: Database) -> None:
    key, _ = create(database)
    secret = key.removeprefix(api_keys.PREFIX)
    with database.read() as connection:
        stored = [
            str(value)
            for table in SCHEMA.sorted_tables
            # Leases are in a file of their own.
            if table.name != "lease"
            for row in connection.execute(select(table))
            for value in row
        ]
    assert len(stored) > len(API_KEY.columns) - 1
    assert [value for value in stored if secret in value or (value in key and len(value) > 8)] == []


def test_hash_that_was_stolen_opens_nothing(database: Database) -> None:
    create(database)
    with database.read() as connection:
        stolen = connection.execute(select(API_KEY.c.hash)).scalar_one()
    assert find(database, stolen) is None


def test_revoked_key_is_worthless_and_stays_in_the_list(database: Database) -> None:
    key, made = create(database)
    kept, _ = create(database)
    with database.write() as connection:
        assert api_keys.revoke(connection, DEFAULT_SPACE, made.id)
        assert not api_keys.revoke(connection, DEFAULT_SPACE, made.id)
        assert not api_keys.revoke(connection, DEFAULT_SPACE, "unknown")
    assert find(database, key) is None
    assert find(database, kept) is not None
    [revoked] = [each for each in keys_of(database, DEFAULT_SPACE) if each.id == made.id]
    assert revoked.revoked_at is not None


def test_use_of_a_key_is_written_down_once_a_minute_at_most(database: Database) -> None:
    key, made = create(database)
    _, unused = create(database)

    def use() -> datetime:
        with database.write() as connection:
            api_keys.used(connection, made.id)
        found = find(database, key)
        assert found is not None
        assert found.used_at is not None
        return found.used_at

    with database.read() as connection:
        began_at = database_time(connection)
    first = use()
    assert began_at <= first
    assert use() == first
    for age, is_written in ((timedelta(seconds=50), False), (timedelta(seconds=70), True)):
        earlier = first - age
        with database.write() as connection:
            connection.execute(update(API_KEY).where(API_KEY.c.id == made.id).values(used_at=earlier))
        assert (use() > earlier) == is_written
    assert [each.used_at for each in keys_of(database, DEFAULT_SPACE) if each.id == unused.id] == [None]


def test_space_has_its_own_keys_the_oldest_first(database: Database) -> None:
    add_space(database, "other")
    made = [create(database, name)[1] for name in ("b", "a")]
    key, theirs = create(database, "c", "other")
    assert keys_of(database, DEFAULT_SPACE) == made
    assert keys_of(database, "other") == [theirs]
    assert keys_of(database, "unknown") == []
    with database.write() as connection:
        assert not api_keys.revoke(connection, DEFAULT_SPACE, theirs.id)
    assert find(database, key) == theirs
    assert theirs.space_id == "other"


def test_key_is_looked_up_in_an_index(database: Database) -> None:
    with database.write() as connection:
        rows = [
            {
                "id": f"{number}", "space_id": DEFAULT_SPACE, "name": "", "hash": f"{number:064}",
                "created_at": AT,
            }
            for number in range(2_000)
        ]  # fmt: skip
        connection.execute(insert(API_KEY), rows)
    with plans(database) as found:
        assert find(database, "rsk_unknown") is None
    assert "api_key_by_hash" in found[-1]
