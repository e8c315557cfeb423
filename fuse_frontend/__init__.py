"""The file edge: one mounted file, `disk.img`, is the disk.

    cli          `dsreg-fuse`: options, messages, exit codes; to the background and back
    mount        one mount from start to finish: serve, attach, answer signals, unmount
    files        what the requests of the kernel mean: BlockDevice calls, names, attributes; every error ends here
    requests     the requests and answers as values, the same for both bindings
    bindings     which of the two serves a mount
    library      the binding by pyfuse3
    direct       the binding by a session of our own
    session      /dev/fuse: mounting, reading requests, writing answers; no task for each
    kernel       the bytes that go through it: layouts and numbers; pure
    loop         loop devices: attach, verify, detach (losetup), find those of an image
    mounts       what the kernel knows: mount table, who holds a file or a device
    detach       `dsreg-fuse --detach`: everything down in the right order, or a reason why not
    state        which process serves a mount point: a small file under the run-time directory
    process      life in the background: daemons

A request flows library or direct -> files -> dsreg.volume -> dsreg.block_device -> dsreg.client, and its answer the
same way back.
"""
