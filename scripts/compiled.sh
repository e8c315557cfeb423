#!/usr/bin/env bash
# Builds the compiled build (setup.py, DSREG_MYPYC=1) into build/compiled, if it is not there as the source now is,
# says how to use it, and runs pytest on it with the arguments, or with a few tests if there are none, from a copy of it
# and of the tests in build/compiled-tests.
# Nothing of it comes into the source tree, so that the pure Python cannot be mistaken for it.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'compiled: %s\n' "$*" >&2; }

python=$PWD/.venv/bin/python
built=$PWD/build/compiled
sources=(dsreg fuse_frontend nbd_frontend pyproject.toml setup.py README.md LICENSE)

include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
if ! command -v gcc >/dev/null || [ ! -e "$include/Python.h" ]; then
    say "needs gcc and $include/Python.h (Debian: apt install gcc python3-dev)"
    exit 1
fi

stamp=$({ "$python" -VV; find "${sources[@]}" -type f -not -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum; } | sha256sum)
if [ "$(cat "$built/stamp" 2>/dev/null)" != "$stamp" ]; then
    say "compiling with mypyc into build/compiled; this takes one to two minutes"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    cp -r "${sources[@]}" "$scratch"
    (cd "$scratch" && DSREG_MYPYC=1 "$python" -m pip wheel -q --disable-pip-version-check --no-deps -w wheel .)
    rm -rf "$built"
    "$python" -m pip install -q --disable-pip-version-check --no-deps --target "$built" "$scratch"/wheel/*.whl
    echo "$stamp" >"$built/stamp"
fi
say "PYTHONPATH=$built puts it before the source: then $PWD/.venv/bin/dsreg --version says so"

tests=$PWD/build/compiled-tests
rm -rf "$tests"
cp -r "$built" "$tests"
cp -r tests scripts bench docs pyproject.toml setup.py "$tests"
if [ "$#" = 0 ]; then set -- tests/test_compiled.py tests/simulation/test_simulation.py; fi
cd "$tests" && PYTHONPATH=$tests exec "$python" -m pytest -q --color=no "$@"
