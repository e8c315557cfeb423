"""The seeded bugs: each is one line of the product done wrong."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old`, which stands in `module` exactly once, is replaced by `new`."""

    name: str
    module: str
    old: str
    new: str


_QUORUM = "dsreg.core.quorum"
_REGISTER = "dsreg.core.register"
_REPLICA = "dsreg.core.replica"
_COMMIT = "dsreg.storage.commit"
_STABLE = "dsreg.storage.stable"
_CLIENT = "dsreg.client.core"

ALGORITHM = (
    Mutant("majority_off_by_one", _QUORUM, "return nodes // 2 + 1", "return max(1, nodes // 2)"),
    Mutant(
        "no_write_back",
        _REGISTER,
        "return self._store(StoreOwn(phase.rid, tags, data, repair=own is None), Return(tags, data))",
        "return self._finish(Return(tags, data))",
    ),
    Mutant("one_round_read_of_any_own", _REGISTER, "if same >= majority(self.nodes):", "if same >= 1:"),
    Mutant(
        "one_round_read_counts_older_copies",
        _REGISTER,
        "same = sum(1 for answer in phase.answers.values() if answer.tags == own.tags)",
        "same = sum(1 for answer in phase.answers.values() if answer.tags <= own.tags)",
    ),
    Mutant(
        "one_round_read_without_majority_of_tags",
        _REGISTER,
        "if answer.tags == own.tags)",
        "if answer.tags >= own.tags)",
    ),
    Mutant("acks_counted_twice", _REGISTER, "phase.acks |= bit(rank)", "phase.acks = phase.acks << 1 | 1"),
    Mutant(
        "own_tag_announced_before_durable",
        _REGISTER,
        "return [record]  # L4, own copy first",
        "self.phase = Storing(record, Return(b'', b'')); return [StoreAll(phase.rid, tags, data), record]",
    ),
    Mutant("named_tags_are_not_avoided", _REGISTER, "self.rank, ts_floor)", "self.rank)"),
    Mutant("lost_tags_are_chosen_again", _REPLICA, "            self._namer.forget()\n", "            pass\n"),
    Mutant("highest_by_ts_only", "dsreg.core.tags", "return max(vectors)", "return max(vectors, key=lambda t: t[:8])"),
    Mutant("highest_of_a_run_by_ts_only", "dsreg.core.tags", "max(column) for", "max(column, key=lambda t: t[:8]) for"),
    Mutant(
        "write_keeps_the_ts",
        "dsreg.core.tags",
        "pack_tag(max(unpack_tag(tag)[0], floor) + 1, wr)",
        "pack_tag(max(unpack_tag(tag)[0], floor) or 1, wr)",
    ),
    Mutant(
        "late_answers_of_other_operations_count",
        _REPLICA,
        "        operation = self._operations.get(answer.rid)\n        if operation is None:\n            return []\n"
        "        command, register",
        "        operation = next((o for o in self._operations.values() if o.command.first == answer.first), None)\n"
        "        if operation is None:\n            return []\n        answer = answer._replace(rid=operation.rid)\n"
        "        command, register",
    ),
    Mutant("queue_overtakes", "dsreg.core.runqueue", "return not ahead", "return True"),
    Mutant(
        "queue_waits_for_one_only",
        "dsreg.core.runqueue",
        "if not follower.blockers and",
        "if follower.blockers < 2 and",
    ),
    Mutant("repeat_answered_before_done", "dsreg.core.repeats", "return Seen.DONE if done else Seen.IN_PROGRESS",
           "return Seen.DONE"),
    Mutant("part_of_a_run_acknowledges_all", "dsreg.core.contract", "if len(partial.tags) < partial.count:", "if 0:"),
    Mutant("nothing_is_sent_again", "dsreg.core.links", "for rank in ranks_in(entry.waiting & ~entry.receipts)]",
           "for rank in ()]"),
    Mutant(
        "unknown_tags_answered_as_zero",
        _REPLICA,
        "        first, count = question.first, question.count\n        if self._storage.unknown(first, count):",
        "        first, count = question.first, question.count\n        if False:",
    ),
    Mutant(
        "finished_operations_keep_their_messages", _REPLICA, "            self._links.cancel(operation.rid)\n",
        "            pass\n",
    ),
)

DURABILITY = (
    Mutant(
        "peer_acknowledges_before_persist",
        _REPLICA,
        "return [Persist(first, count, message.tags, message.data, (answer,))]",
        "return [answer, Persist(first, count, message.tags, message.data, ())]",
    ),
    Mutant(
        "contract_peer_acknowledges_before_persist",
        _REPLICA,
        "return [Persist(first, count, message.tags, message.data, (Durable(key), ack), owner=key)]",
        "return [ack, Persist(first, count, message.tags, message.data, (Durable(key),), owner=key)]",
    ),
    Mutant(
        "own_copy_counts_before_persist",
        _REPLICA,
        "effects.append(self._persist_own(operation, step))",
        "own = self._persist_own(operation, step); effects += [own._replace(then=()), *own.then]",
    ),
    Mutant("effects_do_not_wait_for_the_disk", "dsreg.node.interpreter", "if not ticket.done:", "if False:"),
    Mutant("refused_counts_as_stored", "dsreg.node.interpreter", "        if ok:\n", "        if True:\n"),
    Mutant(
        "named_tags_are_not_promised",
        "dsreg.node.interpreter",
        "return self._await_ticket(self.storage.reserve(effect.ts), effect)",
        "return effect.then",
    ),
    Mutant("promise_forgotten_after_restart", "dsreg.core.naming", "0 if promised % 2 else promised", "0"),
    Mutant(
        "operation_ids_reused_after_restart",
        "dsreg.storage.recovery",
        "state.incarnation + 1,",
        "state.incarnation,",
    ),
    Mutant("journal_not_synced", _COMMIT, "        self._journal.fdatasync()\n", ""),
    Mutant(
        "journal_sync_error_swallowed",
        _COMMIT,
        "        self._journal.fdatasync()\n",
        "        with __import__('contextlib').suppress(OSError): self._journal.fdatasync()\n",
    ),
    Mutant(
        "home_before_journal",
        _COMMIT,
        "            self._write_journal(kept)\n",
        "            self._write_home(kept); self._write_journal(kept)\n",
    ),
    Mutant(
        "checkpoint_frees_before_sync",
        "dsreg.storage.checkpoint",
        "            settle(self._directory, self._images)\n",
        "            self._free(); settle(self._directory, self._images)\n",
    ),
    Mutant(
        "checkpoint_does_not_sync_home", "dsreg.storage.checkpoint", "    directory.home.fdatasync()\n", ""
    ),
    Mutant(
        "checkpoint_does_not_sync_tags", "dsreg.storage.checkpoint", "    directory.tags.fdatasync()\n", ""
    ),
    Mutant("checkpoint_forgets_tags", _STABLE, "self._table.take_dirty())", "self._table.take_dirty()[1:])"),
    Mutant(
        "older_segment_not_replayed",
        "dsreg.storage.journal",
        "return [newest] if older is None or older.freed else [older, newest]",
        "return [newest]",
    ),
    Mutant("torn_journal_data_accepted", "dsreg.storage.journal",
           "if not in_order or checksums(entry.data, entry.count) != entry.crcs:", "if not in_order:"),
    Mutant("old_journal_records_accepted", "dsreg.storage.journal",
           "!= (_RECORD_MAGIC, salt, generation)", "!= (_RECORD_MAGIC, salt, its_generation)"),
    Mutant("sector_checksum_not_checked", "dsreg.storage.load",
           "        if checksums(data, self.count) == crcs and ZERO_TAG not in tags:\n", "        if True:\n"),
    Mutant(
        "damaged_sector_read_as_it_is",
        "dsreg.storage.load",
        "tuple(sorted({*self.absent, *self.bad}))",
        "()",
    ),
    Mutant("older_values_stored_over_newer", _STABLE, "if tag > old or lacking:", "if tag != old or lacking:"),
    Mutant("joined_persist_does_not_wait", _STABLE, "record.join(ticket)", "pass"),
    Mutant("state_not_synced", "dsreg.storage.state", "        file.fdatasync()\n", ""),
)

OUTSIDE = (
    Mutant("frame_hmac_not_checked", "dsreg.core.decoder",
           "if not rule.mac.verify(frame[-HMAC_SIZE:], frame[:-HMAC_SIZE]):", "if False:"),
    Mutant(
        "client_retries_write_with_new_tag",
        _CLIENT,
        "            self.counters.retries += 1\n",
        "            self.counters.retries += 1\n            if op.data is not None:"
        " op.command = op.command._replace(kind=CommandKind.TAG, tags=b'', data=b'')\n",
    ),
    Mutant("client_abandons_writes_under_way", _CLIENT,
           "if op is not None and op.outcome is Outcome.DID_NOT_HAPPEN:", "if op is not None:"),
    Mutant(
        "client_does_not_fail_over",
        _CLIENT,
        "            if not op.sent:\n                self._dispatch(op, now_s)\n\n    # --- answers",
        "            pass\n\n    # --- answers",
    ),
)

MUTANTS = ALGORITHM + DURABILITY + OUTSIDE
