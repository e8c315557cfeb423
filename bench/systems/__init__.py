"""The systems that can be measured. A new one is a class here and a line in `PEERS` or `ours`."""

from __future__ import annotations

from bench.systems.base import System
from bench.systems.ceph import CephFuse, CephLibrbd, CephServer
from bench.systems.gluster import GlusterServer, GlusterVolume
from bench.systems.nbdkit import Nbdkit
from bench.systems.ours import Ours, OursNbd
from bench.systems.plain import Plain
from bench.systems.quorum import Quorum

__all__ = ["PEERS", "System", "make_ours", "make_peer"]

PEERS = ("plain", "nbdkit", "quorum", "gluster", "ceph")


def make_ours() -> list[System]:
    """By each of the FUSE bindings, by NBD, and with the write-back cache."""
    return [
        Ours(),
        OursNbd(),
        Ours("ours-pyfuse3", "dsreg (pyfuse3)", "pyfuse3"),
        Ours("ours-cache", "dsreg, write-back cache", options=("--cache=writeback",),
             durable="on fsync: fdatasync at a majority; before that in the frontend's memory"),
    ]


def make_peer(name: str) -> list[System]:
    """The setups of one of PEERS; GlusterFS and Ceph have two, on one server."""
    if name == "plain":
        return [Plain()]
    if name == "nbdkit":
        return [Nbdkit()]
    if name == "quorum":
        return [Quorum()]
    if name == "ceph":
        cluster = CephServer()
        return [CephLibrbd(cluster), CephFuse(cluster)]
    server = GlusterServer()
    return [
        GlusterVolume(server, "gluster-virt", "GlusterFS, virt profile", "virt",
                      "written to the bricks that are up, past their page cache, without fsync; fsync goes through"),
        GlusterVolume(server, "gluster", "GlusterFS, default", None,
                      "before it is written (write-behind); fsync goes through to the bricks"),
    ]
