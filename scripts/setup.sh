#!/usr/bin/env bash
# Installs what Roomscribe's own commands need.
#
#   scripts/setup.sh PART...
#
#   uv         the package manager of the others, in .tools/uv where PATH has none
#   python     what Roomscribe runs on, in .venv
#   dev        the same, and what tests and checks need
#   bench      the same, and what benchmarks need
#   livekit    livekit-server, in .tools/bin where PATH has none
#   toxiproxy  toxiproxy-server, by which tests and benchmarks disturb connections; in .tools/bin where PATH has none
#   postgres   PostgreSQL, of which tests and benchmarks run servers of their own
#   chromium   Chromium, in which tests open the pages of the console
#
# Everything goes into this checkout; only uv and Go keep their usual caches in the home folder. A Debian package
# that one of these cannot do without is installed where root asks for it; else the line to run is said. What is
# there already is left alone, without asking the network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/pythons.sh
source scripts/pythons.sh

PARTS='uv, python, dev, bench, livekit, toxiproxy, postgres, chromium'
UV_WANTED='uv>=0.9,<1'
UV_AT_LEAST=0.9
# The release that Roomscribe is tested with. Those just before and after it cannot be had by `go install`.
LIVEKIT_VERSION=1.13.5
TOXIPROXY_VERSION=2.5.0
GO_AT_LEAST=1.26 # livekit-server's own
PROGRESS_INTERVAL_S=10 # often enough to show that it lives, seldom enough for the log of a CI

TOOLS=$PWD/.tools
export PATH=$TOOLS/bin:$PATH
export UV_PYTHON_DOWNLOADS=never # a Python is part of the machine, not of this checkout

main() {
    (($#)) || die "names no part; known: $PARTS"
    trap clean_up EXIT
    mkdir -p "$TOOLS/bin"
    local part
    for part in "$@"; do
        case $part in
            uv) install_uv ;;
            python | dev | bench) install_packages "$part" ;;
            livekit) install_livekit ;;
            toxiproxy) install_toxiproxy ;;
            postgres) install_postgres ;;
            chromium) install_chromium ;;
            *) die "part '$part' is unknown; known: $PARTS" ;;
        esac
    done
}

say() { printf 'setup: %s\n' "$*"; }

die() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

is_at_least() { printf '%s\n%s\n' "$2" "$1" | sort -V -C; }

# --- Parts --------------------------------------------------------------------------------------------------------

install_uv() {
    local version
    if version=$(uv --version 2>/dev/null) && is_at_least "$(cut -d ' ' -f 2 <<<"$version")" "$UV_AT_LEAST"; then
        return
    fi
    local python
    python=$(require_python)
    "$python" -c 'import ensurepip' 2>/dev/null || install_debian "python3-venv" "uv gets an environment of its own"
    say "installs uv, which installs the Python packages, into .tools/uv (PATH has no uv >= $UV_AT_LEAST)"
    # An environment of its own, because a Debian Python takes no packages from pip. It counts as installed
    # when the link is there: one that was interrupted is made anew.
    "$python" -m venv --clear "$TOOLS/uv"
    "$TOOLS/uv/bin/python" -m pip install --quiet --disable-pip-version-check "$UV_WANTED"
    ln -sfn ../uv/bin/uv "$TOOLS/bin/uv"
}

# install_packages PART: the locked packages. Those of other parts stay (--inexact).
install_packages() {
    local for_what sync=(uv sync --frozen --inexact --compile-bytecode)
    case $1 in
        python) for_what="Roomscribe" sync+=(--no-default-groups) ;;
        dev) for_what="Roomscribe, its tests and checks" ;;
        bench) for_what="Roomscribe, its tests, checks and benchmarks" sync+=(--group bench) ;;
    esac
    install_uv
    if [[ -z ${UV_PYTHON:-} && ! -x .venv/bin/python ]]; then
        UV_PYTHON=$(require_python)
        export UV_PYTHON
    fi
    if "${sync[@]}" --check &>/dev/null; then
        say "Python packages are there (.venv)"
        return
    fi
    [[ $1 != bench ]] || require_compiler
    say "installs the Python packages of $for_what into .venv"
    "${sync[@]}"
}

install_livekit() {
    build_go livekit-server "two to five minutes" github.com/livekit/livekit \
        "github.com/livekit/livekit-server/cmd/server@v$LIVEKIT_VERSION"
}

install_toxiproxy() {
    build_go toxiproxy-server "a minute or two" github.com/Shopify/toxiproxy \
        "github.com/Shopify/toxiproxy/v2/cmd/server@v$TOXIPROXY_VERSION" \
        -ldflags "-X github.com/Shopify/toxiproxy/v2.Version=$TOXIPROXY_VERSION"
}

# build_go PROGRAM DURATION REPOSITORY PACKAGE@VERSION [OPTION...]: into .tools/bin where PATH has no such program.
build_go() {
    local program=$1 duration=$2 repository=$3 package=$4 found version go
    shift 4
    if found=$(command -v "$program") && version=$("$program" --version 2>/dev/null); then
        say "$program is there ($found, version ${version##* })"
        return
    fi
    go=$(require_go "$program" "$repository")
    say "builds $program ${package#*@v} into .tools/bin (PATH has none)"
    say "this happens once and takes $duration, most of it without a word from Go"
    # The program is called `server` after its folder, so it is built in a place of its own and moved when whole.
    BUILD=$(mktemp -d "$TOOLS/build.XXXXXX")
    show_progress "$BUILD/log" env GOBIN="$BUILD" CGO_ENABLED=0 GOTOOLCHAIN=local "$go" install -v "$@" "$package"
    "$BUILD/server" --version >/dev/null || die "the $program that was built does not start"
    mv "$BUILD/server" "$TOOLS/bin/$program"
    rm -rf "$BUILD"
    say "$program ${package#*@v} is built"
}

install_postgres() {
    local debian=(/usr/lib/postgresql/*/bin/initdb) found
    if found=$(command -v initdb || command -v "${debian[-1]}"); then
        say "PostgreSQL is there ($found)"
        return
    fi
    if ((EUID == 0)); then
        # With its package Debian creates a cluster and starts it, which nobody asked for. This is said for as long
        # as we install: what an administrator installs later is none of our business.
        NO_CLUSTER=/etc/postgresql-common/createcluster.d/roomscribe.conf
        mkdir -p "${NO_CLUSTER%/*}"
        echo 'create_main_cluster = false' >"$NO_CLUSTER"
    fi
    install_debian postgresql "tests and benchmarks run servers of their own"
}

install_chromium() {
    local found
    if found=$(command -v chromium); then
        say "Chromium is there ($found)"
        return
    fi
    install_debian chromium "tests open the pages of the console in it"
}

# --- What the machine must have -----------------------------------------------------------------------------------

require_python() {
    any_python_at_hand || die "needs Python 3.11, 3.12 or 3.13, and finds none" \
        "on Debian 12 or later: apt-get install python3 python3-venv"
}

# MeetEval, which counts the errors of captions, comes as C++ and takes a minute to compile.
require_compiler() {
    local python=${UV_PYTHON:-.venv/bin/python}
    local headers='import os, sysconfig; os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))'
    local packages=()
    command -v c++ >/dev/null || packages+=(g++)
    "$python" -c "$headers" 2>/dev/null || packages+=(python3-dev)
    ((!${#packages[@]})) || install_debian "${packages[*]}" "a package of the benchmarks is compiled"
}

# install_debian PACKAGES REASON
install_debian() {
    local packages
    read -ra packages <<<"$1"
    if ((EUID)) || ! command -v apt-get >/dev/null; then
        die "needs what Debian calls $1, because $2" "on Debian, as root: apt-get install $1"
    fi
    say "installs the Debian packages $1, because $2"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${packages[@]}" >/dev/null
}

# require_go PROGRAM REPOSITORY: prints the path of a Go that is new enough to build it.
require_go() {
    local go version
    if go=$(command -v go || command -v /usr/local/go/bin/go); then
        version=$(GOTOOLCHAIN=local "$go" env GOVERSION)
        if is_at_least "${version#go}" "$GO_AT_LEAST"; then
            printf '%s\n' "$go"
            return
        fi
        explain_program "$@" "$go is ${version#go}: too old to build one"
    fi
    explain_program "$@" "no Go to build one"
}

# explain_program PROGRAM REPOSITORY WHY
explain_program() {
    die "there is no $1 on PATH, and $3" "each of these helps; then run the same command again:" \
        "  - a $1 on PATH, from the releases of $2" \
        "  - a $1 from a package manager: brew install ${1%-server}" \
        "  - Go >= $GO_AT_LEAST on PATH, from go.dev/dl (Debian 12's own is too old); this script then builds it"
}

# --- Progress -----------------------------------------------------------------------------------------------------

# show_progress LOG COMMAND...: runs it with its output in LOG, tells every few seconds how far it is, and shows
# the end of LOG where it fails.
show_progress() {
    local log=$1 last_shown=0
    shift
    SECONDS=0
    "$@" >"$log" 2>&1 &
    CHILD=$!
    while kill -0 "$CHILD" 2>/dev/null; do
        sleep 0.5
        if ((SECONDS - last_shown >= PROGRESS_INTERVAL_S)); then
            last_shown=$SECONDS
            say "$(progress_of "$log")"
        fi
    done
    if ! wait "$CHILD"; then
        CHILD=
        tail -n 20 "$log" >&2
        die "failed after $SECONDS s; its last words are above"
    fi
    CHILD=
}

progress_of() {
    local downloaded compiled
    downloaded=$(grep -c '^go: downloading' "$1" || true)
    compiled=$(grep -c -v '^go: ' "$1" || true)
    printf '%4d s: %d modules downloaded, %d packages compiled' "$SECONDS" "$downloaded" "$compiled"
}

clean_up() {
    [[ -z ${CHILD:-} ]] || kill "$CHILD" 2>/dev/null || true
    [[ -z ${BUILD:-} ]] || rm -rf "$BUILD"
    if [[ -n ${NO_CLUSTER:-} ]]; then
        rm -f "$NO_CLUSTER"
        rmdir --parents --ignore-fail-on-non-empty "${NO_CLUSTER%/*}"
    fi
}

main "$@"
