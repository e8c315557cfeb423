"""Real node processes over TCP.

    cluster      node processes: started, killed, stopped, continued, ended; their logs
    proxy        links that lose, damage, repeat, delay and cut what goes over them
    raw          the contract with sockets, struct and hmac alone: a client
    fake_peer    the contract alone: a node that does what the test says
    history      operations with their times, for the linearizability checker

No test of this package takes the product's codec to check the product's bytes.
"""
