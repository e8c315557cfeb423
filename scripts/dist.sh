#!/usr/bin/env bash
# Builds all that is released into dist/: the source distribution, the wheel and the compiled wheel (setup.py) made of
# it, and a Debian package (scripts/deb.py). What is tracked by git is what is built. With `--revision N` the package has
# another revision than 1.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'dist: %s\n' "$*" >&2; }

python=$PWD/.venv/bin/python
dist=$PWD/dist
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$dist" "$scratch/tree" "$scratch/source"

# Without isolation: what the build needs is in .venv (setuptools, mypy).
build() { "$python" -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w "$dist" "$1"; }

say "the source distribution"
git ls-files -z | tar --null -T - -c | tar -x -C "$scratch/tree"
(cd "$scratch/tree" && "$python" -c "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])" "$dist") >"$scratch/log"
sdist=$dist/dsreg-$("$python" -c 'from dsreg.version import VERSION; print(VERSION)').tar.gz
tar -x --strip-components=1 -f "$sdist" -C "$scratch/source"

say "the wheel"
build "$scratch/source"
if command -v gcc >/dev/null && [ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]; then
    say "the compiled wheel; this takes one to two minutes"
    DSREG_MYPYC=1 build "$scratch/source"
else
    say "no compiled wheel: that needs gcc and Python.h (Debian: apt install gcc python3-dev)"
fi
if command -v dpkg-deb >/dev/null; then
    say "the Debian package"
    "$python" -m scripts.deb "${sdist%.tar.gz}-py3-none-any.whl" "$dist" "$@" >"$scratch/log"
else
    say "no Debian package: there is no dpkg-deb here"
fi
(cd "$dist" && sha256sum dsreg[-_]* >SHA256SUMS && cat SHA256SUMS)
