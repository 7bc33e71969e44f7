#!/usr/bin/env bash
# Builds the wheel and uses it as somebody who installs it does: in an empty environment, from an empty folder.
# Called by `make check-wheel`, which sees to uv and livekit-server.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=scripts/pythons.sh
source scripts/pythons.sh

START_S=60 # a model is loaded; two busy cores take their time
STOP_S=60

# Nothing of the developer's own server and settings.
unset "${!LIVEKIT_@}" "${!ROOMSCRIBE_@}"

main() {
    base_python=$(any_python_at_hand) || die "finds no Python 3.11, 3.12 or 3.13"
    work=$(mktemp -d)
    trap clean_up EXIT
    build
    check_contents
    install
    mkdir "$work/folder"
    cd "$work/folder"
    check_commands
    check_database
    check_doctor_without_livekit
    check_up_and_doctor
    say "passed"
}

say() { printf 'check-wheel: %s\n' "$*"; }

die() {
    printf 'check-wheel: %s\n' "$*" >&2
    if [[ -s $work/log ]]; then
        tail -n 30 "$work/log" >&2
    fi
    exit 1
}

build() {
    say "builds the wheel, by way of the source archive"
    uv build --quiet --out-dir "$work/dist"
    wheel=("$work"/dist/*.whl)
}

check_contents() {
    local contents
    contents=$("$base_python" -m zipfile --list "${wheel[0]}")
    grep -q '^agent/agent\.toml ' <<<"$contents" || die "agent.toml is not in the wheel"
    grep -q '^persistence/migrations/versions/' <<<"$contents" || die "the migrations are not in the wheel"
    grep -q '^prompts/meeting\.md ' <<<"$contents" || die "the scenarios are not in the wheel"
    grep -q '^agent/analysis/languages/en\.toml ' <<<"$contents" || die "the languages are not in the wheel"
    grep -q '^agent/console/templates/' <<<"$contents" || die "the pages are not in the wheel"
    ! grep -E '^(tests|benchmarks|scripts)/' <<<"$contents" || die "the wheel holds what only a checkout should"
}

install() {
    say "installs it into an empty environment"
    # As locked: a dependency's release of this morning is not what is checked here.
    uv export --quiet --frozen --no-default-groups --no-emit-project --no-hashes --output-file "$work/locked.txt" >/dev/null
    uv venv --quiet --python "$base_python" "$work/environment"
    python=$work/environment/bin/python
    uv pip install --quiet --python "$python" --constraints "$work/locked.txt" "${wheel[0]}"
    roomscribe=$work/environment/bin/roomscribe
}

check_commands() {
    say "roomscribe --help, config show"
    "$roomscribe" --help >/dev/null || die "--help fails"
    "$roomscribe" config show >"$work/log" 2>&1 || die "config show fails"
    grep -q agent_name "$work/log" || die "config show does not show the settings"
}

check_database() {
    say "roomscribe db upgrade, check"
    ! "$roomscribe" db check &>"$work/log" || die "db check finds a database where there is none"
    "$roomscribe" db upgrade >"$work/log" 2>&1 || die "db upgrade fails"
    "$roomscribe" db check >"$work/log" 2>&1 || die "db check fails after db upgrade"
}

check_doctor_without_livekit() {
    say "roomscribe doctor, without a LiveKit server"
    local code=0
    LIVEKIT_URL=ws://127.0.0.1:1 LIVEKIT_API_KEY=none LIVEKIT_API_SECRET=none \
        "$roomscribe" doctor --json >"$work/log" || code=$?
    ((code == 1)) || die "doctor without a LiveKit server ends with $code; 1 is right"
    "$python" -m json.tool "$work/log" >/dev/null || die "doctor --json prints no JSON"
    grep -qi livekit "$work/log" || die "doctor does not name LiveKit"
}

check_up_and_doctor() {
    local port
    port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    export LIVEKIT_URL=ws://127.0.0.1:$port LIVEKIT_API_KEY=wheel
    LIVEKIT_API_SECRET=$("$python" -c 'import secrets; print(secrets.token_hex(24))')
    export LIVEKIT_API_SECRET ROOMSCRIBE_LOG__FORMAT=json ROOMSCRIBE_CONSOLE__PORT=0

    say "roomscribe up --livekit"
    "$roomscribe" up --livekit >"$work/log" 2>&1 &
    up=$!
    within "$START_S" is_ready_or_gone || die "up is not ready after $START_S s"
    ! is_gone || die "up ended before it was ready"

    say "roomscribe doctor, with a LiveKit server"
    "$roomscribe" doctor --json >"$work/doctor" || die "doctor finds a fault: $(cat "$work/doctor")"

    say "the console's pages"
    check_console || die "the console does not show its pages, or shows them without a key"

    say "SIGTERM ends up"
    kill -TERM "$up"
    local code=0
    within "$STOP_S" is_gone || die "up does not end within $STOP_S s of SIGTERM"
    wait "$up" || code=$?
    up=
    ((code == 0)) || die "up ends with $code after SIGTERM; 0 is right"
}

is_gone() { ! kill -0 "$up" 2>/dev/null; }

is_ready_or_gone() {
    { grep -q worker.ready "$work/log" && grep -q analyst.ready "$work/log" && grep -q console.ready "$work/log"; } ||
        is_gone
}

check_console() {
    "$python" - "$work/log" "$("$roomscribe" keys create --name wheel 2>/dev/null)" <<'PYTHON'
import json, sys, urllib.error, urllib.request

log, key = sys.argv[1:]
lines = [json.loads(line) for line in open(log) if line.startswith("{")]
(url,) = [line["url"] for line in lines if line.get("event") == "console.ready"]


def status(path, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, headers=headers), timeout=10) as answer:
            answer.read()
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


bearer = {"Authorization": f"Bearer {key}"}
found = [status("/login"), status("/static/console.css"), status("/api/v1/sessions")]
found += [status("/", **bearer), status("/api/v1/sessions", **bearer), status("/api/v1/openapi.json", **bearer)]
sys.exit(found != [200, 200, 401, 200, 200, 200] and f"answers: {found}")
PYTHON
}

# within SECONDS COMMAND: waits until the command succeeds; fails when the time is over.
within() {
    local deadline=$((SECONDS + $1))
    until "$2"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.2
    done
}

clean_up() {
    # It takes all that it started with it.
    [[ -z ${up:-} ]] || kill -KILL "$up" 2>/dev/null || true
    rm -rf "$work"
}

main
