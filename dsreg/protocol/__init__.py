"""What goes over the wire, pure: values, their bytes, and how two parties meet.

    bytes -> Unsealing -> Decoder -> messages           messages -> Encoder -> bytes -> Sealer

    messages       every message as a value
    life           which directory stands behind a rank, as nodes tell it
    address        where a node is, as nodes tell it
    configuration  which nodes there are, and how large the disk is; ballots; choosing: how the next one is chosen
    tags           tags and epochs: their 16 bytes, order, restamping; names: what tells apart those of one node
    zeros, extents    data that is all zeros; which chunks have none
    wire           byte layouts, type numbers, HMACs
    encoder        messages to bytes
    decoder        bytes to messages: what is damaged or foreign is skipped (frames: those that fit any cluster)
    codec          both, under one name
    greeting       HELLO and the handshake, of both sides
    noise, sealed, unsealing    sealed connections; record_bound: how large a record may be on a bad line
    plausibility   which numbers are taken: one bad message must not use up their range
"""
