"""What settings promise: where they come from, what is refused and how, and that secrets stay secret."""

import pickle
from contextlib import closing
from pathlib import Path

import pytest

from agent.config import load_settings, masked
from agent.errors import ConfigError
from persistence.database import Database

SECRET = "hunter2-hunter2-hunter2-hunter2-hunter2"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder: no agent.toml and no .env but those that a test writes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_of(config: Path | None = None, *, require_livekit: bool = False) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(config, require_livekit=require_livekit)
    return str(caught.value)


def test_an_empty_folder_and_environment_give_the_packaged_defaults() -> None:
    settings = load_settings()

    assert settings.dispatch.mode == "explicit"
    assert settings.livekit.url == "ws://127.0.0.1:7880"
    assert settings.recording.enabled


class TestPrecedence:
    def test_each_source_overrides_those_before_it_key_by_key(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "agent.toml").write_text(
            "[worker]\nmax_jobs = 2\nidle_processes = 2\nhealth_port = 2\n", encoding="utf-8"
        )
        (folder / ".env").write_text(
            "ROOMSCRIBE_WORKER__IDLE_PROCESSES=3\nROOMSCRIBE_WORKER__HEALTH_PORT=3\n", encoding="utf-8"
        )
        monkeypatch.setenv("ROOMSCRIBE_WORKER__HEALTH_PORT", "4")

        worker = load_settings().worker

        assert worker.health_host == "127.0.0.1"
        assert (worker.max_jobs, worker.idle_processes, worker.health_port) == (2, 3, 4)

    def test_a_given_file_is_read_instead_of_the_one_in_the_folder(self, folder: Path) -> None:
        (folder / "agent.toml").write_text("[worker]\nmax_jobs = 2\n", encoding="utf-8")
        (folder / "other.toml").write_text("[worker]\nidle_processes = 5\n", encoding="utf-8")

        worker = load_settings(folder / "other.toml").worker

        assert (worker.max_jobs, worker.idle_processes) == (8, 5)

    def test_a_variable_may_name_the_file(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "other.toml").write_text("[worker]\nmax_jobs = 5\n", encoding="utf-8")
        monkeypatch.setenv("ROOMSCRIBE_CONFIG", "other.toml")

        assert load_settings().worker.max_jobs == 5

    def test_livekits_own_variables_override_files(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "agent.toml").write_text(
            '[livekit]\nurl = "ws://from.file"\napi_key = "file"\n', encoding="utf-8"
        )
        monkeypatch.setenv("LIVEKIT_URL", "wss://from.environment")
        monkeypatch.setenv("LIVEKIT_API_SECRET", SECRET)

        livekit = load_settings().livekit

        assert (livekit.url, livekit.api_key) == ("wss://from.environment", "file")
        assert livekit.api_secret.get_secret_value() == SECRET

    def test_our_name_of_a_livekit_setting_overrides_livekits_own(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LIVEKIT_URL", "wss://usual")
        monkeypatch.setenv("ROOMSCRIBE_LIVEKIT__URL", "wss://ours")

        assert load_settings().livekit.url == "wss://ours"

    def test_an_empty_livekit_variable_counts_as_not_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LIVEKIT_URL", "")

        assert load_settings().livekit.url == "ws://127.0.0.1:7880"


class TestEnvironment:
    def test_a_list_is_given_with_commas(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ROOMSCRIBE_STT__ENGINES", "whisper, my.package:Engine")
        monkeypatch.setenv("ROOMSCRIBE_DISPATCH__ROOMS", "board,team-*")

        assert load_settings().stt.engines == ("whisper", "my.package:Engine")
        assert load_settings().dispatch.rooms == ("board", "team-*")

    def test_a_setting_two_sections_deep_has_a_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ROOMSCRIBE_STT__WHISPER__BEAM_SIZE", "2")

        assert load_settings().stt.whisper.beam_size == 2

    @pytest.mark.parametrize("name", ["LIVEKIT_API_SECRET", "ROOMSCRIBE_LIVEKIT__API_SECRET"])
    def test_a_secret_is_read_from_the_file_that_name_file_gives(
        self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "secret").write_text(f"{SECRET}\n", encoding="utf-8")
        monkeypatch.setenv(f"{name}_FILE", str(folder / "secret"))

        assert load_settings().livekit.api_secret.get_secret_value() == SECRET

    def test_a_name_wins_over_its_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LIVEKIT_API_KEY", "given")
        monkeypatch.setenv("LIVEKIT_API_KEY_FILE", "/nowhere")

        assert load_settings().livekit.api_key == "given"

    def test_a_secret_file_that_cannot_be_read_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LIVEKIT_API_SECRET_FILE", "/nowhere/secret")

        message = error_of()

        assert "LIVEKIT_API_SECRET_FILE" in message
        assert "/nowhere/secret" in message

    @pytest.mark.parametrize(
        ("name", "key"),
        [
            ("ROOMSCRIBE_STT__ENGINE", "stt.engine"),  # misspelt
            ("ROOMSCRIBE_STT", "stt"),  # a section is no setting
            ("ROOMSCRIBE_DATA_DIR__X", "data_dir.x"),  # a setting is no section
        ],
    )
    @pytest.mark.parametrize("source", ["environment", ".env"])
    def test_an_unknown_variable_is_refused(
        self, source: str, name: str, key: str, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if source == ".env":
            (folder / ".env").write_text(f"{name}=1\n", encoding="utf-8")
        else:
            monkeypatch.setenv(name, "1")

        message = error_of()

        assert f"{key} (from {name}) is unknown" in message

    def test_other_programs_variables_are_none_of_our_business(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LIVEKIT_SOMETHING", "1")
        monkeypatch.setenv("STT__ENGINES", "1")

        assert load_settings().stt.engines == ("whisper",)


class TestErrors:
    """Each names the setting, its value and what is allowed."""

    @pytest.mark.parametrize(
        ("variable", "value", "parts"),
        [
            (
                "ROOMSCRIBE_DISPATCH__MODE",
                "manual",
                ["dispatch.mode", "'manual'", "'explicit' or 'automatic'"],
            ),
            ("ROOMSCRIBE_WORKER__MAX_JOBS", "0", ["worker.max_jobs", "'0'", "greater than or equal to 1"]),
            ("ROOMSCRIBE_WORKER__MAX_JOBS", "many", ["worker.max_jobs", "'many'", "valid integer"]),
            ("ROOMSCRIBE_RECORDING__ENABLED", "perhaps", ["recording.enabled", "'perhaps'", "boolean"]),
            ("ROOMSCRIBE_STT__ENGINES", ",", ["stt.engines", "at least 1 item"]),
            ("ROOMSCRIBE_DISPATCH__ROOMS", ",", ["dispatch.rooms", "at least 1 item"]),
            ("ROOMSCRIBE_WORKER__DRAIN_S", "-1", ["worker.drain_s", "'-1'", "greater than or equal to 0"]),
            ("ROOMSCRIBE_STT__LANGUAGE", "English", ["stt.language", "'English'", "^(multi|"]),
            (
                "LIVEKIT_URL",
                "example.org",
                ["livekit.url", "'example.org'", "ws://, wss://, http:// or https://"],
            ),
        ],
    )
    def test_a_wrong_value(
        self, variable: str, value: str, parts: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(variable, value)

        message = error_of()

        assert message.startswith("config: ")
        assert all(part in message for part in parts)
        assert "\n" not in message

    def test_several_wrong_values_are_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ROOMSCRIBE_WORKER__MAX_JOBS", "0")
        monkeypatch.setenv("ROOMSCRIBE_LOG__LEVEL", "loud")

        assert error_of().endswith("(and 1 more)")

    def test_an_unknown_key_in_a_file(self, folder: Path) -> None:
        (folder / "agent.toml").write_text("[worker]\nmax_job = 2\n", encoding="utf-8")

        assert "worker.max_job is unknown; agent.toml lists all settings" in error_of()

    def test_a_file_that_does_not_exist(self) -> None:
        assert "/nowhere.toml does not exist" in error_of(Path("/nowhere.toml"))

    def test_a_file_that_is_not_toml(self, folder: Path) -> None:
        (folder / "agent.toml").write_text("max_jobs: 2\n", encoding="utf-8")

        assert "agent.toml cannot be read" in error_of()

    @pytest.mark.parametrize(
        ("given", "missing"),
        [("LIVEKIT_API_SECRET", "LIVEKIT_API_KEY"), ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")],
    )
    def test_a_missing_key_or_secret_says_which_variable_to_set(
        self, given: str, missing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(given, SECRET)

        assert f"is missing; set {missing}" in error_of(require_livekit=True)


class TestSecrets:
    def test_masked_output_has_no_secret_and_shows_whether_it_is_set(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unset = masked(load_settings())
        monkeypatch.setenv("LIVEKIT_API_SECRET", SECRET)
        settings = load_settings()

        assert unset["livekit"]["api_secret"] == ""
        assert masked(settings)["livekit"]["api_secret"] == "***"
        assert SECRET not in f"{masked(settings)} {settings!r} {settings}"

    @pytest.mark.parametrize(
        "text",
        [
            f'livekit = "{SECRET}"',
            f'livekit = ["{SECRET}"]',
            f'[livekit]\napi_secret = ["{SECRET}"]',
            f'[livekit]\napi_key = ["{SECRET}"]',
            f'[livekit]\napi_secret = {{ value = "{SECRET}" }}',
            f'[livekit]\nsecret = "{SECRET}"',
            f'[livekit]\napi_secret = "{SECRET}',
        ],
    )
    def test_a_mistake_beside_a_secret_does_not_print_it(self, text: str, folder: Path) -> None:
        (folder / "agent.toml").write_text(text, encoding="utf-8")

        assert SECRET not in error_of()


def test_settings_travel_to_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_API_SECRET", SECRET)
    settings = load_settings()

    arrived = pickle.loads(pickle.dumps(settings))

    assert arrived == settings
    assert arrived.livekit.api_secret.get_secret_value() == SECRET


@pytest.mark.parametrize(
    ("url", "http_url"),
    [
        ("ws://localhost:7880", "http://localhost:7880"),
        ("wss://example.org", "https://example.org"),
        ("https://example.org", "https://example.org"),
    ],
)
def test_the_http_api_is_on_the_same_server(url: str, http_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_URL", url)

    assert load_settings().livekit.http_url == http_url


def test_database_in_a_folder_with_an_odd_name_lies_in_that_folder(tmp_path: Path) -> None:
    settings = load_settings().model_copy(update={"data_dir": tmp_path / "50%41 what? #1"})

    with closing(Database(settings.database_url)) as database, database.write():
        pass

    assert [path.name for path in settings.data_dir.glob("*.db")] == ["roomscribe.db"]
