"""How two parties come to talk over TCP, pure: what happens to a connection goes in, what to do about it comes out.

    effects          what the machines want done: connect, send, seal, close, deliver, ...
    greeting_line    one connection while it is being greeted, by a client or a node
    client_line      a client's connection to one node, made again whenever it breaks
    node_line        a node's link to another node; node_greeting: what it concludes from its greetings;
    second_line      the greeting of a peer that is spoken to by the contract
    accepted_line    a connection that somebody else has made
    destinations     where to connect to
    dialing          when to connect, when to greet, and for how long to wait

Every method that is an event takes the time (`now`, seconds on a clock that does not go backwards) and gives effects.
`next_due` says when to call `tick`. A connection has a number, the `line`: `Connect(line)` is answered by
`connect_failed` or by `connected`, `received` ... and `closed`. After `Close(line)` only `closed` comes.
dsreg.lines carries out the effects on sockets, tests/simulation/lines.py in the simulator.
"""
