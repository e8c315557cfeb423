"""What the nodes of a cluster say of themselves, and what of it somebody should know: a pure function of their answers.

    answers     what one node answers when it is asked for its STATUS
    in_force    which nodes decide, by what they say
    serving     which of them serve and count, and which have room
    in_sync     whose copies are complete, and how many nodes may be lost
    damage      what is damaged
    condition   what a node is at this moment, in a few words
    attached    who has attached the disk
    traffic     what nodes do for clients: rates, and who the clients are
    look        answers of now and of before, with what the above makes of them
    findings    Severity, Finding, and State: all answers, as the checks read them
    of_nodes    checks of one node each: it is down, waits, lacks something, is damaged, has no room
    of_machines checks of the machines under them: disk, clock, speed, version
    of_cluster  checks of all together: quorum, room, members, who else writes
    checks      the table of all checks, and `examine`, which runs them

Data flows from the answers to findings; nothing here asks a node. `dsreg.survey` does.
"""
