"""The files that lie around the code agree with it."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from pydantic import BaseModel

from agent.config import LIVEKIT_VARIABLES, Settings, load_settings

ROOT = Path(__file__).parents[2]


def read_toml(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / name).read_text(encoding="utf-8"))


def keys_of_model(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys_of_model(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def keys_of_table(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from keys_of_table(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


class TestSettingsFiles:
    def test_agent_toml_has_every_setting_and_nothing_else(self) -> None:
        assert sorted(keys_of_table(read_toml("agent.toml"))) == sorted(keys_of_model(Settings))

    def test_agent_toml_explains_every_setting(self) -> None:
        lines = (ROOT / "agent.toml").read_text(encoding="utf-8").splitlines()

        assert [line for line in lines if re.match(r"\w+ =", line) and "  # " not in line] == []

    def test_dotenv_example_names_only_settings(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = (ROOT / ".env.example").read_text(encoding="utf-8")
        suggested = re.sub(r"^# (?=[A-Z_]+=)", "", text, flags=re.MULTILINE)
        names = dotenv_values(stream=StringIO(suggested))
        monkeypatch.chdir(tmp_path)
        Path(".env").write_text(text, encoding="utf-8")

        assert {name.removesuffix("_FILE") for name in names if not name.startswith("ROOMSCRIBE_")} == set(
            LIVEKIT_VARIABLES
        )
        load_settings(require_livekit=True)  # refuses unknown names that begin with ROOMSCRIBE_


class TestPackaging:
    def test_the_wheel_has_the_packages_that_are_listed_and_no_tests(self) -> None:
        project = read_toml("pyproject.toml")
        shipped = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

        assert shipped == project["tool"]["importlinter"]["root_packages"]
        assert all((ROOT / package / "__init__.py").is_file() for package in shipped)
        assert not {"tests", "benchmarks", "scripts"} & set(shipped)


class TestCheckLinks:
    def check(self, folder: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, ROOT / "scripts" / "check_links.py"]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)

    def test_every_kind_of_broken_link_is_found_where_it_stands(self, tmp_path: Path) -> None:
        (tmp_path / "a.md").write_text(
            "# One\n[x](gone.md) ![x](gone.png)\n[x](#two)\n\n[label]: b.md#three\n"
            '<a href="gone.html">x</a> [x](../outside.md)\n',
            encoding="utf-8",
        )
        (tmp_path / "b.md").write_text("", encoding="utf-8")

        result = self.check(tmp_path)

        assert result.returncode == 1
        assert set(result.stdout.splitlines()[:-1]) == {
            "a.md:2: gone.md does not exist",
            "a.md:2: gone.png does not exist",
            "a.md:3: #two has no such heading",
            "a.md:5: b.md#three has no such heading",
            "a.md:6: gone.html does not exist",
            "a.md:6: ../outside.md leads out of the checkout",
        }

    def test_what_leads_somewhere_or_is_no_link_passes(self, tmp_path: Path) -> None:
        (tmp_path / "a.md").write_text(
            "# The `first`: one, two\n## Twice\n## Twice\nUnderlined\n---\n"
            "[x](#the-first-one-two) [x](#twice-1) [x](#underlined) [x](b%20c.md) [x](<b c.md>)\n"
            "[x](https://example.org/gone) `[x](code.md)` <!-- [x](comment.md) -->\n"
            "```\n[x](fenced.md)\n```\n",
            encoding="utf-8",
        )
        (tmp_path / "b c.md").write_text("", encoding="utf-8")

        assert self.check(tmp_path).returncode == 0


# Frames are what the STT interface takes, so these may make, resample and read them.
USES_FRAMES = {
    "agent/transcription/lane.py",
    "agent/transcription/transcriber.py",
    "agent/cli/doctor.py",
    "plugins/stt/deepgram/engine.py",
    "plugins/stt/openai/engine.py",
    "plugins/stt/openai/realtime_stream.py",
    "plugins/stt/openai/service.py",
    "plugins/stt/openai/turn_stream.py",
    "plugins/stt/whisper/engine.py",
}
FRAMES = {"AudioFrame", "AudioResampler", "AudioResamplerQuality", "combine_audio_frames"}
IMPORTS_RTC = re.compile(r"^\s*(from livekit import .*\brtc\b|(from|import) livekit\.rtc)", re.MULTILINE)


def test_only_the_room_package_knows_rooms_tracks_and_streams_of_livekit() -> None:
    """Import contracts cannot say this, since they see external packages as one."""
    sources = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for package in ("agent", "plugins")
        for path in (ROOT / package).rglob("*.py")
    }
    users = {name for name, text in sources.items() if IMPORTS_RTC.search(text)}

    assert {user for user in users if not user.startswith("agent/room/")} == USES_FRAMES
    for user in USES_FRAMES:
        assert set(re.findall(r"\brtc\.(\w+)", sources[user])) <= FRAMES
