"""The (N,N)-atomic register, pure: events in, effects out.

    replica        a node: what comes in goes to the part that it is for; effects out
    coordinator    the operations of this node: run_queue, repairs (what waits for what; what has to be repaired)
    execution, atomic_register, actions    one operation, and what it wants done
    acceptor       the node's own copy: queries and orders of others answered
    epochs, attaching    who has attached the disk; promises, fences
    lives          which directory stands behind a rank; the first start of an empty one
    claim          a node whose directory was lost takes the next life of its rank
    configuration, proposal    what may follow the set of nodes and the size of the disk, and how that is chosen
    quorum, one_round    which nodes decide; when a read is complete after one round
    tag_allocator  the tags that this node chooses, no tag twice
    links, peers, contract, receipts, intervals, alarms, repeats    stubborn links, to nodes of either language
    heal           a node takes from others what it lacks: comparing, lacking, heal_work, heal_report (what differs,
                   what of it is fetched, what is under way, what is told of it), digests, throttle
    now            what the clocks say, an argument of every event
    effects, tag_view    what is asked of the world; what is seen of storage
    assembly       how these are put together, in one place for product, simulator and tests
    absences       which nodes have been out of reach for long
"""
