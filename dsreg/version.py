"""The version of the package: what `--version` prints and what a node reports in STATUS."""

VERSION = "0.1.0"
