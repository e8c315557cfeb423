"""`make bench`: this disk and its peers under the same load, in the same run, on this machine.

    __main__     command line: what to measure, sets up, tears down
    settings     how long, how large, how often: quick and full
    systems/     what can be measured, a class for each: start, device, processes, kill a replica
    jobs, fio    the fio jobs, and what fio says of one
    files        mkfs, a tree of files copied, sync
    stall        the longest gap between completions, with and without a replica killed
    tcp          the register without FUSE, over `tcp_load`, a load generator in a process of its own
    run          the order of it all: job by job across the systems, round by round
    record       one run as plain data, to and from JSON
    tables, plots    a run as Markdown and as SVG; `summary` takes the medians that both show
    machine, processes, shell    what it ran on; CPU and memory by pid; commands, daemons, loop devices

Everything that is set up registers its own removal on one ExitStack, so that success, failure and Ctrl-C end alike.
"""
