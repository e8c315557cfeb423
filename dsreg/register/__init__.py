"""The (N,N)-atomic register, pure: events in, effects out.

    replica        a node: which operation, which queue; messages in, effects out
    atomic_register, operation    the coordinator's side of one operation
    acceptor       the node's own copy: queries and orders of others answered
    epochs, attaching    who has attached the disk; promises, fences
    lives          which directory stands behind a rank; the first start of an empty one
    quorum, one_round    which nodes decide; when a read is complete after one round
    tag_allocator  the tags that this node chooses, no tag twice
    links, peers, contract, receipts, intervals, repeats    stubborn links, to nodes of either language
    run_queue, repairs    what waits for what; what has to be repaired
    effects, tag_view    what is asked of the world; what is seen of storage
    assembly       how these are put together, in one place for product, simulator and tests
    absences       which nodes have been out of reach for long
"""
