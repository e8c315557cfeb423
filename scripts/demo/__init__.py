"""`make demo`: a replicated disk in use, a node killed in the middle, every byte compared.

`__main__` decides between a mounted file system (`on_disk`) and, where FUSE, loop devices or root are
missing, the Python client (`through_client`). Both run on `cluster` (three node processes), copy `tree`
(real files of this machine) and tell `report` what they saw. Everything that is set up registers its own
removal on one ExitStack, so that success, failure and Ctrl-C end in the same order.
"""
