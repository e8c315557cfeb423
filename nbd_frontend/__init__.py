"""The network edge: the disk as an export of the NBD protocol, for QEMU, libvirt, nbdcopy, the kernel's client.

    cli          `dsreg-nbd`: options, messages, exit codes
    server       listeners, connections, the end at a signal
    sockets      what is listened on: TCP, a unix socket, sockets of systemd
    connection   one client from its greeting to its end
    channel      its socket, in clear text or by TLS; certificates
    negotiation  what its options are answered with; pure
    commands     what its commands mean: dsreg.store requests, replies, what is in flight
    attachment   who has the disk: attached for one connection, or for all of them
    codec        bytes -> options and requests, answers -> bytes; pure
    numbers      the numbers of the protocol

A request flows connection -> codec -> commands -> dsreg.volume -> dsreg.block_device -> dsreg.client, and its answer
the same way back.
"""
