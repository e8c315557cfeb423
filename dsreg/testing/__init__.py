"""Fakes of what stands beneath, for tests of what is built on it. They ship with the library, and have no other use.

    memory_client    MemoryClient: sectors in a dict, behind the interface of dsreg.Client: for programs that use one
    memory_store     MemoryStore: the same as a store (dsreg.store), for tests of a frontend or a cache
    memory_storage   MemoryStorage: what a node keeps, for tests of the replica without a disk
    memory_files     MemoryFiles: files that can lose power, for tests of the storage

How to use MemoryClient: docs/client.md, "Tests of your own". The others follow the inside of dsreg, and change with it.
"""
