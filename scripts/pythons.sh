# shellcheck shell=bash
# Sourced by the other scripts: finds the Pythons of this machine that Roomscribe runs on.

# Newest last: the oldest one is what everything must work on.
PYTHON_VERSIONS=(3.11 3.12 3.13)

# Prints the path of an interpreter of the given version (as 3.12), or fails.
# Each candidate is run: what pyenv puts on PATH may be there and still refuse to start.
python_at_hand() {
    local version=$1 candidate
    local check="import sys; assert '%d.%d' % sys.version_info[:2] == '$version'; print(sys.executable)"
    for candidate in "python$version" python3 "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$version".*/bin/python; do
        "$candidate" -c "$check" 2>/dev/null && return
    done
    return 1
}

# Prints the path of any interpreter that will do, or fails.
any_python_at_hand() {
    local version
    for version in "${PYTHON_VERSIONS[@]}"; do
        python_at_hand "$version" && return
    done
    return 1
}
