"""Metrics of a process for Prometheus, by prometheus_client; the extra `metrics`. Imported only where they are wanted.

    making      families of metrics of what the program keeps
    of_node     what a node's figures are called: families of metrics, made when they are asked for
    of_client   those of a client, also for the registry of a program that has one; of_edge: of FUSE and NBD
    pages       what is served: /metrics and /healthz
    serving     at an address, if that can be
    http        the HTTP server: h11 on trio, in the process that it tells of
    token, host   who is answered

The hot path knows none of this: it counts in integers and in dsreg.histogram, where it has to.
"""

from __future__ import annotations

import importlib.util

_PACKAGES = ("prometheus_client", "h11")


def missing_packages() -> str:
    """Why there can be no metrics, and what to do; "" if there can."""
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    return f"{' and '.join(missing)} is not installed: pip install 'dsreg[metrics]'" if missing else ""
