#!/usr/bin/env bash
# Makes .venv ready to run the project and its tests. Says what it does; says nothing when there is
# nothing to do. Missing system packages are installed with apt-get, as root or through sudo.
set -euo pipefail
cd "$(dirname "$0")/.."
# The tools of file systems and loop devices live where an ordinary user's PATH does not reach.
export PATH="$PATH:/usr/sbin:/sbin"

say() { printf 'setup: %s\n' "$*" >&2; }

python_ok() {
    command -v "$1" >/dev/null && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local name
    for name in python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        if python_ok "$name"; then command -v "$name"; return; fi
    done
    return 1
}

# apt PACKAGE... : all at once; one by one when that fails, so that one unknown name costs only itself.
apt() {
    local root=() package
    if ! command -v apt-get >/dev/null; then say "no apt-get here; not installed: $*"; return; fi
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
            say "neither root nor sudo without a password; not installed: $*"; return
        fi
        root=(sudo -n)
    fi
    say "installing system packages: $*"
    local install=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends)
    "${root[@]}" apt-get update -qq >/dev/null || say "apt-get update failed; trying with the lists at hand"
    if [ "$#" -gt 1 ] && "${install[@]}" "$@" >/dev/null; then return; fi
    for package in "$@"; do
        "${install[@]}" "$package" >/dev/null || say "could not install $package"
    done
}

has() { command -v "$1" >/dev/null; }

missing_packages() {
    has fusermount3 || echo fuse3
    # pyfuse3 comes as source alone.
    has gcc || echo gcc
    has pkg-config || echo pkg-config
    pkg-config --exists fuse3 2>/dev/null || echo libfuse3-dev
    [ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] || echo python3-dev
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    has mkfs.xfs || echo xfsprogs
    has mkfs.btrfs || echo btrfs-progs
    has mkfs.ext4 || echo e2fsprogs
    has fio || echo fio
    # Clients of the NBD server.
    has nbdinfo || echo libnbd-bin
    has nbdsh || echo python3-libnbd
    has qemu-img || echo qemu-utils
    has qemu-storage-daemon || echo qemu-system-common
    has losetup || echo mount
    has flock || echo util-linux
    has ip || echo iproute2
}

if ! python=$(find_python); then
    apt python3 python3-venv
    python=$(find_python) || { say "Python 3.11 or newer is needed and not here"; exit 1; }
fi
mapfile -t missing < <(missing_packages)
if [ "${#missing[@]}" -gt 0 ]; then apt "${missing[@]}"; fi

# The interpreter may have gone since .venv was made, or a run may have been interrupted in the making.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    say "making .venv with $python"
    rm -rf .venv
    "$python" -m venv .venv
fi

# Installed again when the requirements, this script or the place of the working tree changes.
stamp=$({ cat pyproject.toml scripts/setup.sh; pwd; } | sha256sum)
if [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ]; then exit 0; fi
rm -f .venv/stamp

say "installing the project and what it needs into .venv"
.venv/bin/python -m pip install -qq --disable-pip-version-check --editable '.[test,fuse,metrics]'
echo "$stamp" >.venv/stamp
