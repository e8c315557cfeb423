"""The NBD edge: its pure parts as plays, its connections over real sockets, and other people's clients.

    client    the other side of the protocol: bytes of options and requests, replies read from a socket
    tools     a server in this process, on real nodes; other people's clients as processes
"""
