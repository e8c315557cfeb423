#!/usr/bin/env bash
# Debian's Prometheus, with promtool, in build/prometheus/usr/bin; does nothing if it is there, or in the PATH. It is not
# installed: the package would start a server, on this machine and at its every start.
set -euo pipefail
cd "$(dirname "$0")/.."

if command -v prometheus >/dev/null && command -v promtool >/dev/null; then exit 0; fi
if [ -x build/prometheus/usr/bin/promtool ]; then exit 0; fi
echo "prometheus: unpacking Debian's package into build/prometheus" >&2
mkdir -p build/prometheus
cd build/prometheus
apt-get -o APT::Sandbox::User=root download -qq prometheus ||
    { apt-get update -qq && apt-get -o APT::Sandbox::User=root download -qq prometheus; }
dpkg-deb -x prometheus_*.deb .
rm prometheus_*.deb
