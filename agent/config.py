"""Settings: agent.toml and the environment, validated into typed values.

The defaults stand in one place, the packaged agent.toml; the models here say what each may be.
"""

import os
import tomllib
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import quote

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from agent.errors import ConfigError

__all__ = ["Settings", "load_settings", "masked"]

ENV_PREFIX = "ROOMSCRIBE_"
ENV_DELIMITER = "__"
DATABASE_FILE = "roomscribe.db"
CONFIG_FILE = Path("agent.toml")
DOTENV_FILE = Path(".env")
CONFIG_VARIABLE = "ROOMSCRIBE_CONFIG"
NOT_SETTINGS = {CONFIG_VARIABLE, "ROOMSCRIBE_REQUIRE_ALL"}  # the latter is the tests' own
LIVEKIT_VARIABLES = {
    "LIVEKIT_URL": "url",
    "LIVEKIT_API_KEY": "api_key",
    "LIVEKIT_API_SECRET": "api_secret",
}


def _split_list(value: object) -> object:
    """An environment variable gives a list as `a,b`."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return value


def _check_url(value: str) -> str:
    if not value.startswith(("ws://", "wss://", "http://", "https://")):
        raise ValueError("must begin with ws://, wss://, http:// or https://")
    return value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LiveKit(_Section):
    url: Annotated[str, AfterValidator(_check_url)]
    api_key: str
    api_secret: SecretStr

    @property
    def http_url(self) -> str:
        """The same server, for its HTTP API."""
        return self.url.replace("ws", "http", 1) if self.url.startswith("ws") else self.url


class Dispatch(_Section):
    mode: Literal["explicit", "automatic"]
    agent_name: Annotated[str, Field(min_length=1, max_length=64)]
    rooms: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list), Field(min_length=1)]


class Worker(_Section):
    max_jobs: Annotated[int, Field(ge=1, le=1000)]
    idle_processes: Annotated[int, Field(ge=0, le=64)]
    drain_s: Annotated[int, Field(ge=0, le=86_400)]
    health_host: str
    health_port: Annotated[int, Field(ge=0, le=65535)]
    metrics_port: Annotated[int, Field(ge=0, le=65535)]


class Room(_Section):
    hear_agents: bool
    hear_screen_share: bool


class Whisper(_Section):
    model: Annotated[str, Field(min_length=1)]
    threads: Annotated[int, Field(ge=1, le=64)]
    beam_size: Annotated[int, Field(ge=1, le=10)]
    partial_interval_s: Annotated[float, Field(ge=0.1, le=5.0)]


class Deepgram(_Section):
    api_key: SecretStr
    model: Annotated[str, Field(min_length=1)]
    base_url: str
    smart_format: bool
    mip_opt_out: bool


class OpenAI(_Section):
    api_key: SecretStr
    base_url: str
    stream_model: Annotated[str, Field(min_length=1)]
    turn_model: Annotated[str, Field(min_length=1)]
    realtime: bool


class Stt(_Section):
    engines: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list), Field(min_length=1)]
    language: Annotated[str, Field(pattern=r"^(multi|[a-z]{2,3}(-[A-Za-z0-9]{2,8})*)$")]
    keyterms: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list)]
    whisper: Whisper
    deepgram: Deepgram
    openai: OpenAI


class Captions(_Section):
    partials_per_s: Annotated[float, Field(gt=0, le=20)]


class Recording(_Section):
    enabled: bool
    bitrate_kbps: Annotated[int, Field(ge=6, le=510)]
    min_free_mb: Annotated[int, Field(ge=0)]


class Database(_Section):
    url: SecretStr
    upgrade_at_start: bool
    connect_timeout_s: Annotated[int, Field(ge=2, le=14)]
    statement_timeout_s: Annotated[int, Field(ge=1, le=14)]
    recycle_s: Annotated[int, Field(ge=10)]


class Journal(_Section):
    sync: Literal["interval", "each"]
    sync_interval_ms: Annotated[int, Field(ge=10, le=10_000)]
    max_mb: Annotated[int, Field(ge=16)]


class Limits(_Section):
    idle_s: Annotated[int, Field(ge=0)]
    max_duration_s: Annotated[int, Field(ge=0)]
    max_participants: Annotated[int, Field(ge=0)]


class Analysis(_Section):
    scenario: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
    scenarios_dir: str
    settle_s: Annotated[int, Field(ge=0, le=86_400)]


class Console(_Section):
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=0, le=65535)]


class Log(_Section):
    level: Literal["debug", "info", "warning", "error"]
    format: Literal["auto", "json", "text"]


class Settings(BaseSettings):
    """All settings, as agent.toml explains them one by one."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
    )

    data_dir: Path
    livekit: LiveKit
    dispatch: Dispatch
    worker: Worker
    room: Room
    stt: Stt
    captions: Captions
    recording: Recording
    database: Database
    journal: Journal
    limits: Limits
    analysis: Analysis
    console: Console
    log: Log

    @property
    def database_url(self) -> str:
        """The database that is meant, which may hold a password."""
        return self.database.url.get_secret_value() or f"sqlite:///{quote(str(self._database_file))}"

    @property
    def _database_file(self) -> Path:
        return self.data_dir.resolve() / DATABASE_FILE

    @property
    def journal_dir(self) -> Path:
        """Where sessions keep their journals."""
        return self.data_dir / "journal"

    @property
    def stems_dir(self) -> Path:
        """Where sessions keep each speaker's audio."""
        return self.data_dir / "stems"

    @property
    def renderings_dir(self) -> Path:
        """Where audio lies that was made for listening."""
        return self.data_dir / "renderings"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # load_settings() gives every source itself, merged.
        return (init_settings,)


class _Environment(EnvSettingsSource):
    """The settings among some environment variables, wherever these come from."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._variables.items()}


def load_settings(config: Path | None = None, *, require_livekit: bool = False) -> Settings:
    """Read the settings that are in force.

    Args:
        config: A TOML file that must exist; without it the one that ROOMSCRIBE_CONFIG names, or
            ./agent.toml where there is one.
        require_livekit: Whether the key and secret of a LiveKit server must be there.

    Raises:
        ConfigError: A file cannot be read, or a setting is unknown, missing or wrong. It names the
            setting, its value (never a secret's) and what is allowed.
    """
    variables = _with_secret_files({**_dotenv(), **os.environ})
    _refuse_unknown(variables)
    if config is None and (named := variables.get(CONFIG_VARIABLE)):
        config = Path(named)
    livekit = {key: variables[name] for name, key in LIVEKIT_VARIABLES.items() if variables.get(name)}
    layers = (
        _read_toml(_packaged_defaults()),
        _read_config_file(config),
        {"livekit": livekit} if livekit else {},
        _Environment(variables)(),
    )
    try:
        settings = Settings(**reduce(_merge, layers))
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None
    if require_livekit:
        _require_livekit(settings)
    return settings


def masked(settings: Settings) -> dict[str, Any]:
    """The settings as plain data, with `***` for every secret that is set."""
    return cast(dict[str, Any], _mask(settings.model_dump()))


def _mask(value: object) -> object:
    match value:
        case SecretStr():
            return "***" if value.get_secret_value() else ""
        case Path():
            return str(value)
        case dict():
            return {key: _mask(item) for key, item in value.items()}
        case tuple():
            return [_mask(item) for item in value]
        case _:
            return value


def _packaged_defaults() -> Path:
    """agent.toml lies inside the package in a wheel, and beside it in a checkout."""
    here = Path(__file__).parent
    inside = here / CONFIG_FILE
    return inside if inside.exists() else here.parent / CONFIG_FILE


def _read_config_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return _read_toml(CONFIG_FILE) if CONFIG_FILE.exists() else {}
    if not path.is_file():
        raise ConfigError(f"config: {path} does not exist; give the path of a TOML file")
    return _read_toml(path)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"config: {path} cannot be read: {error}") from None


def _dotenv() -> dict[str, str]:
    return {name: value for name, value in dotenv_values(DOTENV_FILE).items() if value is not None}


def _with_secret_files(variables: dict[str, str]) -> dict[str, str]:
    """Replace each NAME_FILE by a NAME with the content of that file; NAME itself wins where both are set."""
    resolved = dict(variables)
    for name, path in variables.items():
        target = name.removesuffix("_FILE")
        if target == name or not (target in LIVEKIT_VARIABLES or _is_setting(target)):
            continue
        del resolved[name]
        if variables.get(target):
            continue
        try:
            resolved[target] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"config: {name} names a file that cannot be read: {error}") from None
    return resolved


def _is_setting(variable: str) -> bool:
    """Whether an environment variable is the name of a setting, as ROOMSCRIBE_STT__ENGINES is."""
    model: type[BaseModel] | None = Settings
    for key in variable.upper().removeprefix(ENV_PREFIX).lower().split(ENV_DELIMITER):
        if model is None or key not in model.model_fields:
            return False
        annotation = model.model_fields[key].annotation
        is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        model = cast(type[BaseModel], annotation) if is_section else None
    return variable.upper().startswith(ENV_PREFIX) and model is None


def _refuse_unknown(variables: Mapping[str, str]) -> None:
    """A misspelt variable would be ignored without a word."""
    for name in variables:
        if name.upper().startswith(ENV_PREFIX) and name not in NOT_SETTINGS and not _is_setting(name):
            key = ".".join(name.upper().removeprefix(ENV_PREFIX).lower().split(ENV_DELIMITER))
            raise ConfigError(f"config: {key} (from {name}) is unknown; agent.toml lists all settings")


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, section by section."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _explain(error: ValidationError) -> str:
    """One sentence for the first thing that is wrong, and how many more there are."""
    problems = error.errors(include_url=False)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"])
    match first["type"]:
        case "missing":
            return f"config: {key} is missing{more}"
        case "extra_forbidden":
            return f"config: {key} is unknown; agent.toml lists all settings{more}"
        case "model_type":
            return f"config: {key} must be a section, [{key}]{more}"
        case _:
            value = "" if "secret" in key or "key" in key else f" {first['input']!r}"
            message = first["msg"].removeprefix("Value error, ")
            return f"config: {key}{value} is wrong: {message[0].lower()}{message[1:]}{more}"


def _require_livekit(settings: Settings) -> None:
    for key, name in (("api_key", "LIVEKIT_API_KEY"), ("api_secret", "LIVEKIT_API_SECRET")):
        value = getattr(settings.livekit, key)
        if not (value.get_secret_value() if isinstance(value, SecretStr) else value):
            raise ConfigError(f"config: livekit.{key} is missing; set {name} to that of your LiveKit server")
