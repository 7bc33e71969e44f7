#!/usr/bin/env bash
# Runs the unit tests on each Python that Roomscribe supports and this machine has, each in an environment of its
# own (.tools/python-3.12, …). Called by `make test-pythons`, which sees to uv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/pythons.sh
source scripts/pythons.sh

for version in "${PYTHON_VERSIONS[@]}"; do
    if ! python=$(python_at_hand "$version"); then
        echo "test-pythons: $version is not at hand, skipped"
        continue
    fi
    echo "test-pythons: the unit tests on $version ($python)"
    environment=.tools/python-$version
    UV_PROJECT_ENVIRONMENT=$environment uv sync --quiet --frozen --no-default-groups --group test --python "$python"
    "$environment/bin/python" -m pytest -q tests/unit
done
