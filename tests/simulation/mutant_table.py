"""The seeded bugs: each is one line of the product done wrong."""

from __future__ import annotations

from tests.simulation.mutant import Mutant
from tests.simulation.mutant_glue import GLUE

_QUORUM = "dsreg.register.quorum"
_REGISTER = "dsreg.register.atomic_register"
_COORDINATOR = "dsreg.register.coordinator"
_ACCEPTOR = "dsreg.register.acceptor"
_EPOCHS = "dsreg.register.epochs"
_TAGS = "dsreg.protocol.tags"
_COMMIT = "dsreg.storage.commit"
_PLACING = "dsreg.storage.placing"
_STABLE = "dsreg.storage.stable"
_TABLE = "dsreg.storage.slot_table"
_CHUNKS = "dsreg.storage.chunks"
_PAGES = "dsreg.storage.pages"
_INDEX_FILE = "dsreg.storage.index_file"
_INDEX = "tests/storage/test_index.py"
_BARE = "tests/storage/test_bare.py"
_CLIENT = "dsreg.client.core"
_DISPATCH = "dsreg.client.dispatch"
_REPLIES = "dsreg.client.replies"
_CLAIM = "dsreg.client.attachment"
_COUNTED = "dsreg.client.quorum"
_EPOCH_PLAYS = "tests/register/test_replica_epochs.py"

ALGORITHM = (
    Mutant("majority_off_by_one", _QUORUM, "self.needed = self.size // 2 + 1",
           "self.needed = max(1, self.size // 2)"),
    Mutant(
        "no_write_back",
        _REGISTER,
        "return self._store(StoreOwn(phase.rid, tags, data, repair=own is None), Return(tags, data))",
        "return self._finish(Return(tags, data))",
    ),
    Mutant("one_round_read_of_any_own", _REGISTER, "agreeing = _agreeing(phase, own.tags)",
           "agreeing = phase.ranks"),
    Mutant(
        "one_round_read_counts_older_copies",
        _REGISTER,
        "if answer.tags == tags:\n",
        "if answer.tags <= tags:\n",
        test="tests/register/test_atomic_register.py",
    ),
    Mutant(
        "one_round_read_without_majority_of_tags",
        _REGISTER,
        "if answer.tags == tags:\n",
        "if answer.tags >= tags:\n",
    ),
    Mutant("acks_counted_twice", _REGISTER, "phase.acks |= bit(rank)", "phase.acks = phase.acks << 1 | 2"),
    Mutant(
        "own_tag_announced_before_durable",
        _REGISTER,
        "return [record]  # L4, own copy first",
        "self.phase = Storing(record, Return(b'', b'')); return [StoreAll(phase.rid, tags, data), record]",
    ),
    Mutant("named_tags_are_not_avoided", _REGISTER, "self.rank, ts_floor, self.epoch", "self.rank, 0, self.epoch"),
    Mutant("lost_tags_are_chosen_again", _COORDINATOR, "            self._tags.forget()\n", "            pass\n",
           test="tests/register/test_replica.py"),
    Mutant("highest_by_ts_only", _TAGS, "return max(vectors)", "return max(vectors, key=lambda t: t[:13])"),
    Mutant("highest_of_a_run_by_ts_only", _TAGS, "max(column) for", "max(column, key=lambda t: t[:13]) for"),
    Mutant(
        "write_keeps_the_ts",
        "dsreg.protocol.tags",
        "pack_tag(max(unpack_tag(tag).ts, floor) + 1, wr, life, epoch)",
        "pack_tag(max(unpack_tag(tag).ts, floor) or 1, wr, life, epoch)",
    ),
    Mutant(
        "late_answers_of_other_operations_count",
        _COORDINATOR,
        "        execution = self._executions.get(answer.rid)\n        if execution is None:\n",
        "        execution = next((e for e in self._executions.values() if e.command.first == answer.first), None)\n"
        "        if execution: answer = answer._replace(rid=execution.rid)\n"
        "        if execution is None:\n",
    ),
    Mutant("queue_overtakes", "dsreg.register.run_queue", "return not ahead", "return True"),
    Mutant(
        "queue_waits_for_one_only",
        "dsreg.register.run_queue",
        "if not follower.blockers and",
        "if follower.blockers < 2 and",
    ),
    Mutant("repeat_answered_before_done", "dsreg.register.repeats", "return Seen.DONE if done else Seen.IN_PROGRESS",
           "return Seen.DONE"),
    Mutant("part_of_a_run_acknowledges_all", "dsreg.register.contract",
           "if len(run.tags) == run.message.count:", "if True:"),
    Mutant("nothing_is_sent_again", "dsreg.register.links", "for rank in ranks_in(entry.waiting & ~entry.receipts)]",
           "for rank in ()]"),
    Mutant(
        "unknown_tags_answered_as_zero",
        _ACCEPTOR,
        "        if self._storage.unknown(first, count):\n            self._repairs.want(first, count)\n",
        "        if False:\n            pass\n",
    ),
    Mutant(
        "finished_operations_keep_their_messages", _COORDINATOR, "            self._links.cancel(execution.rid)\n",
        "            pass\n",
    ),
)

DURABILITY = (
    Mutant(
        "peer_acknowledges_before_persist",
        _ACCEPTOR,
        "return [Persist(first, count, message.tags, message.data, (answer,))]",
        "return [answer, Persist(first, count, message.tags, message.data, ())]",
    ),
    Mutant(
        "contract_peer_acknowledges_before_persist",
        _ACCEPTOR,
        "return [Persist(first, count, message.tags, message.data, (Durable(key), ack), origin=key)]",
        "return [ack, Persist(first, count, message.tags, message.data, (Durable(key),), origin=key)]",
    ),
    Mutant(
        "own_copy_counts_before_persist",
        _COORDINATOR,
        "return [Reserve(promise, (Again(StoreOwnCopy(step.rid)),)) if promise else persist]",
        "return [persist._replace(then=()), own]",
    ),
    Mutant("effects_do_not_wait_for_the_disk", "dsreg.node.interpreter", "if not ticket.done:", "if False:"),
    Mutant("refused_counts_as_stored", "dsreg.node.interpreter", "        if ticket.ok:\n", "        if True:\n"),
    Mutant(
        "named_tags_are_not_promised",
        "dsreg.node.interpreter",
        "return self._await_ticket(self.storage.reserve(effect.ts), effect, now)",
        "return effect.then",
    ),
    Mutant("promise_forgotten_after_restart", "dsreg.register.tag_allocator", "0 if promised % 2 else promised", "0"),
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
        "                settle(self._directory, self._spans)\n",
        "                if self._header is not None:\n                    self._free(self._header)\n"
        "                settle(self._directory, self._spans)\n",
    ),
    Mutant(
        "checkpoint_does_not_sync_home", "dsreg.storage.checkpoint", "    directory.home.fdatasync()\n", ""
    ),
    Mutant(
        "checkpoint_does_not_sync_tags", "dsreg.storage.checkpoint", "    directory.tags.fdatasync()\n", ""
    ),
    Mutant("checkpoint_forgets_tags", _STABLE, "dirty, zeros = table.take_dirty(),",
           "dirty, zeros = table.take_dirty()[1:],"),
    Mutant(
        "older_segment_not_replayed",
        "dsreg.storage.journal",
        "return [newest] if older is None or older.freed else [older, newest]",
        "return [newest]",
    ),
    Mutant("torn_journal_data_accepted", "dsreg.storage.journal",
           "if not in_order or not entry.is_whole:", "if not in_order:"),
    Mutant("old_journal_records_accepted", "dsreg.storage.journal",
           "(its_salt, its_generation) != (salt, generation)", "its_salt != salt"),
    Mutant("sector_checksum_not_checked", "dsreg.storage.load",
           "        if checksums(data, self.count) == crcs and 0 not in held:\n", "        if True:\n"),
    Mutant(
        "damaged_sector_read_as_it_is",
        "dsreg.storage.load",
        "tuple(sorted({*self.absent, *self.bad}))",
        "()",
    ),
    Mutant("older_values_stored_over_newer", "dsreg.storage.persists", "if tag > old or lacking:",
           "if tag != old or lacking:"),
    Mutant("joined_persist_does_not_wait", "dsreg.storage.persists", "record.join(ticket)", "pass"),
    Mutant("state_not_synced", "dsreg.storage.files", "b\"\\0\")], offset)\n    file.fdatasync()\n",
           "b\"\\0\")], offset)\n"),
)

OUTSIDE = (
    Mutant("frame_hmac_not_checked", "dsreg.protocol.decoder",
           "if not rule.mac.verify(frame[-HMAC_SIZE:], body) and not self._find_key(rule.mac, frame):", "if False:"),
    Mutant(
        "client_retries_write_with_new_tag",
        _DISPATCH,
        "            self._operations.counters.retries += 1\n",
        "            self._operations.counters.retries += 1\n            if op.data is not None:"
        " step.command = step.command._replace(kind=CommandKind.TAG, tags=b'', data=b'')\n",
    ),
    Mutant("client_abandons_writes_under_way", _CLIENT,
           "if op is not None and not op.exposures:", "if op is not None:"),
    Mutant(
        "client_does_not_fail_over",
        "dsreg.client.node_selector",
        "        for distance in range(len(self.nodes)):\n            node = self.nodes[(op.home",
        "        for distance in range(1):\n            node = self.nodes[(op.home",
    ),
)

# Each breaks one rule of docs/attachments.md.
ATTACHMENTS = (
    Mutant("older_epoch_is_stored", _ACCEPTOR, "if epoch < self._epochs.promised:", "if False:"),
    Mutant("answers_before_it_promises", _ACCEPTOR,
           "return [epochs.fence(max(question.epoch, epochs.promised), Again(question, origin))]",
           "return [self._reply(origin, question._replace(values=False), self._storage.tags(question.first,"
           " question.count), None, question.epoch)]"),
    Mutant("fenced_attachment_is_served", _EPOCHS, "if command.epoch and command.epoch < self.promised:", "if False:"),
    Mutant("epoch_forgotten_after_restart", "dsreg.storage.recovery", "incarnation=state.incarnation + 1,",
           "incarnation=state.incarnation + 1, epoch=0, owner=bytes(64),"),
    Mutant("answers_of_an_older_epoch_count", _COORDINATOR, "if answer.epoch != register.epoch:",
           "if answer.epoch > register.epoch + 100:"),
    Mutant("second_owner_accepted", _EPOCHS, "and self._owner not in (NO_OWNER, owner)", "and False"),
    Mutant("nothing_is_raised", _TAGS, "    if is_restamped(tags, epoch):\n        return tags\n", "    return tags\n"),
    Mutant("write_loses_to_a_raised_copy", _REGISTER,
           "Copy(restamped(chosen.tags, self.epoch), chosen.data), Copy(", "chosen, Copy("),
    Mutant("write_goes_on_without_asking", _REGISTER,
           "            self._chosen = Copy(phase.own.tags, phase.own.data)\n        return",
           "            own = phase.own._replace(tags=restamped(phase.own.tags, epoch), rid=next(self.rids))\n"
           "            return self._store(own, Return(b'', b''))\n        return", test=_EPOCH_PLAYS),
    Mutant("read_goes_on_without_asking", _REGISTER,
           "        return self._ask(values=True)\n\n    @property",
           "        if not isinstance(phase, Storing) or self._chosen: return self._ask(values=True)\n"
           "        own = phase.own._replace(tags=restamped(phase.own.tags, epoch), rid=next(self.rids))\n"
           "        return self._store(own, phase.result)\n\n    @property"),
    Mutant("strict_read_takes_older_copies", _REGISTER, "self.epoch if strict else 0", "0",
           test=_EPOCH_PLAYS),
    Mutant("counted_read_takes_older_copies", _COUNTED,
           "may_return(quorum, answered, self._tags, self._epoch)", "may_return(quorum, answered, self._tags, 0)",
           test="tests/client/test_quorum.py"),
    Mutant("counted_read_does_not_compare", _COUNTED,
           "        if not self.agree:\n", "        if False:\n"),
    Mutant("put_counted_short_of_a_majority", _COUNTED,
           "            if quorum.decided(answered):\n", "            if answered:\n"),
    Mutant("claim_without_a_majority", _CLAIM, "if self.quorum.decided(mask(self._accepted)):", "if self._accepted:"),
    Mutant("epoch_taken_twice", _CLAIM, "return newest if own else newest + 1", "return max(newest, 1)"),
    Mutant("fenced_client_goes_on", _CLAIM,
           "self.state is State.HELD and response.status is Status.FENCED and response.epoch > self.epoch:", "False:"),
)

# They break rules of attachments as well, but only where several rare things meet in a moment: directed runs
# (kinds.py) bring these about.
RARE = (
    Mutant("clock_starts_when_held", _CLAIM, "self.state, self.waits_for = State.HELD, Wait()",
           "self.state, self.waits_for, self._asked_s = State.HELD, Wait(), now_s"),
    Mutant("name_of_an_earlier_life", "dsreg.register.tag_allocator", "self._rank, self.life_in(epoch), epoch)",
           "self._rank, 1, epoch)"),
    Mutant("two_writes_with_one_tag", _CLAIM, "max(self._last_counter + 1, int(", "max(1, int(1e3 * "),
    Mutant("choice_of_an_earlier_life", _REGISTER, "life = life if self.epoch else bare_life",
           "life = 1 if self.epoch else bare_life"),
    Mutant("promise_counts_before_it_is_durable", _EPOCHS, "        return self._storage.epoch\n",
           "        return self.promised\n"),
    Mutant("fence_overtakes_stores", "dsreg.storage.promises", " and fence.after <= self.decided\n",
           "\n"),
    Mutant("own_copy_stored_under_an_older_epoch", _COORDINATOR,
           "if epoch < self._epochs.promised:\n            return self.outdated(step",
           "if False:\n            return self.outdated(step"),
    Mutant("plain_write_below_the_epoch", _TAGS, "    floor = max(floor, ts_of(epoch, 0))\n", ""),
    Mutant("fence_in_force_before_it_is_done", _STABLE, "self.promises.in_force[0]", "self.promises.state.epoch"),
    Mutant("own_copy_not_checked_again_after_a_reservation", _COORDINATOR, "(Again(StoreOwnCopy(step.rid)),)",
           "(persist,)", test=_EPOCH_PLAYS),
)

# Copies without a value: what is restamped and was never written.
BARE = (
    Mutant("raise_journaled_but_not_replayed", "dsreg.storage.recovery",
           "        table.put_dataless(first, count, entry.tags)\n", "", test=_BARE),
    Mutant("state_of_a_chunk_over_a_newer_value", _TABLE,
           "if chunk not in looked_at or self.find(number) is None:", "if True:", test=_BARE),
    Mutant("new_slot_forgets_what_its_chunk_said", _TABLE, "Slot(number, known * GROUP_SECTORS,",
           "Slot(number, NO_TAGS,", test=_BARE),
    Mutant("state_of_a_chunk_replaced_while_it_counts", _CHUNKS, "if not counts & ~cover:", "if True:", test=_BARE),
    Mutant("checkpoint_forgets_states_of_chunks", _CHUNKS, "        self._pages.dirty.add(slot)\n", "", test=_BARE),
    Mutant("pieces_of_a_chunk_replace_each_other", _CHUNKS, "cover | before.cover if", "cover if", test=_BARE),
    Mutant("lost_state_of_a_chunk_taken_for_none", _TABLE, "suspect = self.lost or sector // CHUNK_SECTORS in "
           "self.chunks.suspect", "suspect = self.lost", test=_BARE),
    Mutant("home_of_a_raised_sector_read", "dsreg.storage.load", "            if not held[index]:\n",
           "            if not any(self.tags[16 * index:16 * index + 16]):\n", test=_BARE),
    Mutant("restamped_sector_written_without_room", _PLACING, "            if not table.holds(record.first):\n",
           "            if not any(table.tag(record.first)):\n", test=_BARE),
    Mutant("stale_index_used", _INDEX_FILE, "(slots - 1) * SLOT_SIZE) != head:\n", "0) == b'':\n", test=_INDEX),
    Mutant("index_has_slots_that_are_not_certain", _INDEX_FILE, "or not 0 < slots <= certain", "", test=_INDEX),
    Mutant("rest_of_the_index_not_read", "dsreg.storage.recovery",
           "    tags_file.load_rest(table, directory.tags, slots, keys_only=True)\n", "", test=_INDEX),
    Mutant("changed_page_leaves_the_memory", _PAGES, "{slot // PAGE_SLOTS for slot in self.dirty} | self._writing",
           "set(self._writing)", test=_INDEX),
    Mutant("page_leaves_the_memory_before_it_is_written", _PAGES,
           "        self._writing = {slot // PAGE_SLOTS for slot in dirty}\n", "", test=_INDEX),
    Mutant("slot_used_unchecked", _PAGES, "if not isinstance(contents, Slot) or contents.key != key:", "if False:",
           test=_INDEX),
    Mutant("counter_of_the_attachment_not_in_the_journal", _STABLE,
           "sealed.written, sealed.highest,", "sealed.written, b'',", test=_INDEX),
)

_DOUBT = "tests/client/test_core_doubt.py"
_CLAIMS = "tests/client/test_attachment_claims.py"
_ATTACHING = "tests/register/test_attaching.py"

# Rules 11 to 17 of docs/attachments.md: what clients that were put back to a snapshot, nodes with wrong clocks, and
# claims that fail must not do. Wrong clocks and forged numbers do not occur in the simulator.
DOUBTS = (
    Mutant("later_write_is_overlooked", _TAGS, "    if ATTACHED not in there[TAG_SIZE - 1 :: TAG_SIZE]:\n",
           "    if True:\n"),
    Mutant("coordinator_overlooks_later_writes", _EPOCHS, "command.kind is _STORE and self", "0 and self",
           test=_ATTACHING),
    Mutant("peers_do_not_tell_of_later_writes", _ACCEPTOR, "message.tags[TAG_SIZE - 1::TAG_SIZE] and self",
           "b'' and self", test=_ATTACHING),
    Mutant("plain_reads_end_at_later_writes", _COORDINATOR, "if answer.overtaken and command.epoch and command",
           "if answer.overtaken or command.epoch and 0 and command", test=_ATTACHING),
    Mutant("put_back_clients_go_on", _CLAIM, "and response.counter > self._last_counter and", "and 0 and",
           test=_CLAIMS),
    Mutant("counter_of_an_older_attachment", _EPOCHS, "self._counter, self._met = 0, False", "self._met = False",
           test=_ATTACHING),
    Mutant("counter_forgotten_after_restart", _STABLE, "return attached_counter(self._table.highest, self.epoch)",
           "return 0", test="tests/storage/test_fence.py"),
    Mutant("one_node_s_disbelief_is_final", _REPLIES,
           "self._selector.quorum.blocks(sure)", "sure", test=_DOUBT),
    Mutant("who_does_not_believe_is_asked_again", "dsreg.client.node_selector", " or op.disbelief & bit(node.rank)", "",
           test=_DOUBT),
    Mutant("who_was_told_again_is_not_asked", "dsreg.client.access", "            op.disbelief &= ~bit(rank)",
           "            pass", test=_DOUBT),
    Mutant("failed_claims_use_up_epochs", _CLAIM, "return newest if own else newest + 1", "return newest + 1",
           test=_CLAIMS),
    Mutant("epoch_of_another_claimed_again", _CLAIM, "own = newest and all(", "own = newest and any(", test=_CLAIMS),
    Mutant("claims_that_nobody_believes", _CLAIM, "        if not decided(mask(told.keys() - doubtful)):",
           "        if 0:", test=_CLAIMS),
    Mutant("who_is_unsure_counts_as_gone", _CLAIM, "        if not decided(mask(told.keys() - unsure)):",
           "        if 0:", test=_CLAIMS),
    Mutant("failed_take_over_fenced_nobody", _CLAIM, "any(count > 0 for count in", "any(count > 9 for count in",
           test=_CLAIMS),
    Mutant("nodes_are_sure_at_once", _EPOCHS, "unsure = not self._met and now.s < self._sure_s", "unsure = False",
           test="tests/register/test_epochs.py"),
    Mutant("gets_and_puts_raise_promises", _EPOCHS,
           "        if epoch > self.promised:\n            return self._refuse(connection, command, Status.DIS",
           "        if epoch > self.promised: return Wait(self.fence(epoch, Again(what, connection)))\n"
           "        if epoch > self.promised:\n            return self._refuse(connection, command, Status.DIS",
           test="tests/register/test_acceptor.py"),
    Mutant("leaps_are_taken_unasked", _EPOCHS, "return epoch > self.promised + MAX_LEAP and", "return False and",
           test=_ATTACHING),
    Mutant("leaps_are_taken_whatever_others_say", "dsreg.register.attaching", "max(self._epochs.promised, leap.",
           "max(1 << 24, leap.", test=_ATTACHING),
)

# Peers of the contract, greetings and bad lines.
LINES = (
    Mutant("answered_part_of_a_run_is_sent_again", "dsreg.register.contract",
           "        self.pending.pop(offset, None)\n        prompt", "        prompt",
           test="tests/register/test_contract_resend.py"),
    Mutant("lost_part_of_a_run_is_not_sent_again", "dsreg.register.contract",
           "list(self.pending)[:RESEND_MESSAGES]", "list(self.pending)[:0]",
           test="tests/register/test_contract_resend.py"),
    Mutant("new_link_gets_nothing_of_a_run", "dsreg.register.contract",
           "range(self.message.count) if offset not in self.tags)", "range(0))",
           test="tests/register/test_contract_resend.py"),
    Mutant("runs_are_sent_again_whole", "dsreg.register.peers", "not (again and message.count > 1)", "True",
           test="tests/register/test_replica_peers.py"),
    Mutant("epoch_told_to_the_contract_again", "dsreg.register.peers", "return [] if epoch else sends", "return sends",
           test="tests/register/test_replica_peers.py"),
    Mutant("receipts_go_on_for_who_hangs_up", "dsreg.register.receipts", "if self._hang_ups >= HANG_UPS:", "if False:",
           test="tests/register/test_receipts.py"),
    Mutant("contract_peer_is_greeted_at_each_connection", "dsreg.link.dialing", "        if not speaks_contract:\n",
           "        if True:\n", test="tests/link/test_dialing.py"),
    Mutant("hang_ups_are_met_without_a_pause", "dsreg.link.dialing",
           "return 0.0 if lived_s >= RECONNECT_MAX_S else self.failed()", "return 0.0",
           test="tests/link/test_dialing.py"),
    Mutant("record_does_not_shrink", "dsreg.protocol.record_bound",
           "min(self._goal, max(largest, FIRST_BOUND)) // 2)", "self._goal)",
           test="tests/protocol/test_record_bound.py"),
    Mutant("record_holds_all_that_is_outstanding", "dsreg.transport",
           "if self._frames and self._frames_bytes + size > self.record_bytes:",
           "if self._frames_bytes + size > MAX_RECORD_BYTES:", test="tests/test_transport.py"),
    Mutant("lost_over_a_new_link_waits_for_the_old_interval", "dsreg.register.links",
           "if (due := now + self.intervals.first()) < self._alarms[rid]:",
           "if (due := now) > self._alarms[rid]:",
           test="tests/register/test_links.py"),
    Mutant("attaching_waits_for_contract_nodes", "dsreg.client.contract_nodes",
           "if not quorum.blocks(mask(sure)):", "if True:", test="tests/client/test_contract_nodes.py"),
)

MUTANTS = ALGORITHM + DURABILITY + OUTSIDE + ATTACHMENTS + RARE + BARE + DOUBTS + LINES + GLUE
BY_SEEDS = tuple(mutant for mutant in MUTANTS if not mutant.test)
BY_TESTS = tuple(mutant for mutant in MUTANTS if mutant.test)
