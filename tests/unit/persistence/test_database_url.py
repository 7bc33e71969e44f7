"""What may stand in database.url, and what of it is told."""

from pathlib import Path

import pytest

from agent.errors import ConfigError
from persistence.database import Database

PASSWORD = "p%40ss%2Fw%3Ard%25"


class TestWhatIsUnderstood:
    @pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
    def test_every_common_way_to_name_postgresql(self, scheme: str) -> None:
        database = Database(f"{scheme}://ada:{PASSWORD}@db.example:6432/rooms?sslmode=require")
        url = database.engine.url

        assert (url.username, url.password, url.host, url.port) == ("ada", "p@ss/w:rd%", "db.example", 6432)
        assert url.query == {"sslmode": "require"}
        assert not database.is_sqlite

    def test_the_folder_of_a_file_is_made(self, tmp_path: Path) -> None:
        database = Database(f"sqlite:///{tmp_path}/new/folder/roomscribe.db")

        assert database.is_sqlite
        assert (tmp_path / "new" / "folder").is_dir()


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("", "cannot be read; give sqlite"),
            ("roomscribe.db", "cannot be read; give sqlite"),
            ("postgresql://ada:secret@host:secret/rooms", "cannot be read; give sqlite"),
            ("mysql://ada:secret@host/rooms", "names 'mysql'; known: sqlite, postgresql"),
            ("postgresql+asyncpg://ada:secret@host/rooms", "names 'postgresql.asyncpg'; known: sqlite"),
            ("postgresql://ada:p@secret@host/rooms", "has a sign in its user or password"),
            ("postgresql://ada:p@ss/w:secret#1%@127.0.0.1:5432/rooms", "has a sign in its user or password"),
            ("sqlite://", "names no file"),
            ("sqlite:///:memory:", "names no file"),
        ],
    )
    def test_a_url_that_cannot_be_right(self, url: str, reason: str) -> None:
        with pytest.raises(ConfigError, match=f"^config: database.url {reason}") as raised:
            Database(url)
        assert "secret" not in str(raised.value)
        assert raised.value.__cause__ is None

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        with pytest.raises(ConfigError, match="cannot be made: Not a directory; set"):
            Database(f"sqlite:///{tmp_path}/file/folder/roomscribe.db")


class TestName:
    def test_it_tells_the_place_and_not_the_password(self) -> None:
        database = Database(f"postgres://ada:{PASSWORD}@db.example/rooms")

        assert database.name == "postgresql://ada:***@db.example/rooms"

    def test_it_tells_no_option_since_that_may_be_a_password(self) -> None:
        database = Database("postgresql://db.example/rooms?user=ada&password=secret")

        assert database.name == "postgresql://db.example/rooms"
