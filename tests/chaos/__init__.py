"""Chaos on real processes: nodes, clients, networks, disks and databases, with histories that are checked.

    rounds          one round of a scenario: set up, faults under load, an end to the faults, a verdict
    scenario        what all scenarios share: nodes that are killed, stopped and started, clients that work
    tcp             nothing but that, on loopback
    network         hosts in network namespaces (namespaces), links that are cut and healed, also one way
    full_disk       storage on small loop-mounted file systems that fill up
    io_errors       storage on a FUSE disk of our own (faulty_disk) that fails, or forgets what was not synced
    databases       SQLite and PostgreSQL on ext4 on the loop device (stack), killed and recovered
    maintenance     what operators do to a cluster that PostgreSQL uses, by the commands of the runbook, on hosts of
                    their own (hosts); what status says meanwhile is compared with what is so (truth)
    writer          the process that commits to a database (commits), and what it recorded
    worker          a client process; workers: those of a round, and what they saw
    sweep           the remains of runs that could not clean up

The schedule of a round follows from its seed; processes and the kernel add what they add, so a replay does the
same to the cluster, at about the same moments. `python -m tests.chaos --help` runs rounds without end.
"""
