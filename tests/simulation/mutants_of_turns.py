"""Seeded bugs that have survived all tests once: calls back in the wrong order, and answers that count though they must
not."""

from __future__ import annotations

from tests.simulation.mutant import Mutant

_BLOCKS = "dsreg.block_device"
_STORE = "dsreg.store"
_CACHE = "dsreg.cache.writeback"
_ATTACHMENT = "dsreg.client.attachment"
_GUARD = "dsreg.client.guard"
_CORE = "dsreg.client.core"
_REPLIES = "dsreg.client.replies"
_ENGINE = "dsreg.client.engine"
_RUNNER = "dsreg.client.runner"
_FOREIGN = "dsreg.register.foreign"
_TABLE = "dsreg.storage.slot_table"
_TABLE_FILE = "dsreg.storage.tags_file"
_READERS = "fuse_frontend.readers"
_TEST_READERS = "tests/fuse/test_readers.py"
_TEST_BLOCKS = "tests/test_block_device.py"
_TEST_ENDS = "tests/client/test_ends_at_once.py"
_TEST_TURNS = "tests/cache/test_turns.py"
_TEST_CLAIMS = "tests/client/test_attachment_claims.py"
_TEST_MEMBERS = "tests/client/test_members.py"
_TEST_FOREIGN = "tests/register/test_foreign.py"
_TEST_ENGINE = "tests/client/test_engine.py"
_TEST_INDEX = "tests/storage/test_index.py"
_TEST_BARE = "tests/storage/test_bare.py"
_TEST_HOLDERS = ("tests/fuse/test_holders.py::"
                 "test_mounts_are_released_from_the_last_and_what_is_beside_them_is_left_alone")
_TEST_NODES = "tests/node/test_members.py"
_TEST_HEALTH = "tests/cli/test_health.py"
_TEST_CHECKS = "tests/health/test_checks.py"
_TEST_EPOCHS = "tests/register/test_epochs.py"

TURNS = (
    Mutant("flush_begins_before_the_last_write_has_ended", _BLOCKS,
           "self._waiting[0][0] < next(iter(self._numbers), self._last + 1)",
           "self._waiting[0][0] <= next(iter(self._numbers), self._last + 1)", test=_TEST_BLOCKS),
    Mutant("fua_makes_a_failed_write_good", _BLOCKS, "if error is None and fua and self.is_cached:",
           "if fua and self.is_cached:",
           test=_TEST_BLOCKS),
    Mutant("runs_begin_after_one_has_failed", _STORE, "if self._is_over or (step :=", "if (step :=", test=_TEST_ENDS),
    Mutant("run_goes_on_whose_submission_ended_all", _STORE,
           "            run.abandon()  # unless it has ended, another one has failed meanwhile\n",
           "            pass\n", test=_TEST_ENDS),
    Mutant("who_waits_behind_one_that_left_stays_out", _CACHE,
           "        self._writers.remove(writer)\n        self._admit()\n", "        self._writers.remove(writer)\n",
           test=_TEST_TURNS),
    Mutant("one_writer_comes_in_for_each_run", _CACHE,
           "                self._put(writer.first, writer.data, writer.done)\n            else:\n",
           "                self._put(writer.first, writer.data, writer.done)\n                return\n"
           "            else:\n", test=_TEST_TURNS),
    Mutant("why_nothing_went_out_is_lost", _CACHE, "            late.__cause__ = self._failing\n", "",
           test=_TEST_TURNS),
    Mutant("flush_waits_for_the_clock", _CACHE,
           "            self._flushes[flush] = done\n            self._start_runs()\n",
           "            self._flushes[flush] = done\n", test=_TEST_TURNS),
    Mutant("next_run_waits_for_the_clock", _CACHE,
           "        self._admit()\n        self._start_runs()\n        if not self._runs:",
           "        self._admit()\n        if not self._runs:", test=_TEST_TURNS),
    Mutant("failure_is_said_once_for_ever", _CACHE, "            self._failing = None\n            log.warning",
           "            log.warning", test=_TEST_TURNS),
    Mutant("every_failure_is_final", _CACHE, "failure.is_final = isinstance(error, FINAL)",
           "failure.is_final = True", test=_TEST_TURNS),
    Mutant("what_came_of_age_is_not_sent", _CACHE,
           "        self._admit()\n        self._start_runs()\n        self._store.end_turn()\n",
           "        self._admit()\n        self._start_runs()\n", test=_TEST_TURNS),
    Mutant("held_commands_of_one_that_left_are_done", "dsreg.register.held",
           "        self._commands = [each for each in self._commands if each[0] is not connection]\n", "",
           test="tests/node/test_members.py"),
    Mutant("foreign_though_it_greets", _FOREIGN, "        self.found.discard(rank)\n", "        pass\n",
           test=_TEST_FOREIGN),
    Mutant("foreign_by_hanging_up_alone", _FOREIGN, "if hung_up and rank in self._heard_s:", "if hung_up:",
           test=_TEST_FOREIGN),
    Mutant("acceptances_of_an_earlier_claim_count", _ATTACHMENT,
           "            self._accepted, self._refused = set(), {}\n", "            self._refused = {}\n",
           test=_TEST_CLAIMS),
    Mutant("refusal_stays_though_accepted_since", _ATTACHMENT,
           "                self._refused.pop(rank, None)\n", "", test=_TEST_CLAIMS),
    Mutant("claims_of_rivals_wait_for_a_node_that_is_down", _ATTACHMENT,
           "        if Status.FENCED in self._refused.values():\n", "        if False:\n", test=_TEST_CLAIMS),
    Mutant("claims_that_contract_nodes_will_refuse", _ATTACHMENT,
           "not decided(mask(rank for rank, answer in told.items() if not answer.mixed))",
           "all(answer.mixed for answer in told.values())", test=_TEST_CLAIMS),
    Mutant("owner_of_an_older_epoch_was_met", "dsreg.register.epochs", "self._met |= command.epoch == self.promised",
           "self._met = True", test=_TEST_EPOCHS),
    Mutant("counter_of_an_epoch_that_is_not_durable", "dsreg.register.epochs",
           "counter=self._counter if epoch == self.promised else 0", "counter=self._counter", test=_TEST_EPOCHS),
    Mutant("guard_believes_who_is_unsure", _GUARD, " or response.unsure:", ":", test="tests/client/test_guard.py"),
    Mutant("answers_of_a_changed_directory_stay_counted", _CORE,
           "case Counted() as step if step.tally.asked & bit(node.rank):", "case Counted() as step if False:",
           test=_TEST_MEMBERS),
    Mutant("acceptance_of_a_changed_directory_counts", _CORE,
           "        self._access.discount(node.rank)\n", "", test=_TEST_MEMBERS),
    Mutant("changed_directory_is_down_for_good", _CORE, "        node.up = up\n", "", test=_TEST_MEMBERS),
    Mutant("answers_of_a_changed_directory_are_heard", _REPLIES,
           "        if node.barred:\n            self._operations.counters.late_answers += 1\n            return\n", "",
           test=_TEST_MEMBERS),
    Mutant("part_that_ended_in_the_same_step_did_not_happen", _ENGINE,
           "                return effect.error.outcome\n", "                return Outcome.DID_NOT_HAPPEN\n",
           test=_TEST_ENDS),
    Mutant("overdue_parts_are_each_told", _ENGINE,
           "            if run not in self._runs or (done := run.done) is None:\n                continue  # ended",
           "            done = run.done  # ended", test=_TEST_ENDS),
    Mutant("who_waited_for_one_that_left_waits_for_the_clock", _ENGINE,
           "        self._start_ready()\n        return outcome\n", "        return outcome\n", test=_TEST_ENGINE),
    Mutant("questions_for_a_status_outlive_the_client", _RUNNER,
           "        for call in self._calls.values():\n            call.over.set()\n\n    async def ask_status",
           "\n    async def ask_status", test=_TEST_ENGINE),
    Mutant("restamped_chunks_of_the_index_are_forgotten", _TABLE_FILE,
           "    table.chunks.any = any(number << REGION_BITS >= CHUNK_KEYS[0] for number in found.keys.regions)\n", "",
           test=_TEST_INDEX),
    Mutant("restamped_chunks_behind_the_index_are_forgotten", _TABLE_FILE,
           "    table.chunks.any = table.chunks.any or is_chunk(key)\n    return True", "    return True",
           test=_TEST_INDEX),
    Mutant("lost_slots_of_the_index_are_forgotten", _TABLE_FILE, "    table.lost = found.lost\n", "", test=_TEST_INDEX),
    Mutant("counter_of_the_first_of_a_run", _TABLE,
           "some = (tags[:TAG_SIZE],) if is_uniform(tags) else iter_tags(tags)", "some = (tags[:TAG_SIZE],)",
           test=_TEST_INDEX),
    Mutant("check_of_the_last_piece_of_the_index", "dsreg.storage.index_file",
           "crc, at, piece = crc32(piece, crc), at + len(piece), bytearray()",
           "crc, at, piece = crc32(piece), at + len(piece), bytearray()", test=_TEST_INDEX),
    Mutant("slot_of_a_raised_chunk_is_not_claimed", _TABLE,
           "            if self.find(key) is None:\n                keys.add(key)\n        return keys",
           "        return keys", test=_TEST_BARE),
    Mutant("restamped_states_of_one_commit_have_room_for_two_alone", "dsreg.storage.placing",
           "    if shared.isdisjoint(chunks):\n", "    if True:\n", test=_TEST_BARE),
    Mutant("turn_that_is_wanted_within_a_turn_is_lost", "fuse_frontend.library",
           "            self._is_wanted = False\n            self._end_turn()\n",
           "            self._end_turn()\n            self._is_wanted = False\n",
           test="tests/fuse/test_bindings.py::test_what_is_submitted_while_a_turn_ends_has_a_turn_of_its_own"),
    Mutant("request_under_pyfuse3_ends_no_turn", "fuse_frontend.library",
           "        self._end_turn_soon()\n        return await answered.wait()\n",
           "        return await answered.wait()\n",
           test="tests/fuse/test_bindings.py::test_a_request_that_is_alone_is_sent"),
    Mutant("nobody_waits_for_the_next_request", _READERS,
           "            self._call(max(self._found, self._expected - self._found))\n", "            pass\n",
           test=_TEST_READERS),
    Mutant("task_that_was_called_is_always_on_its_way", _READERS, "        self._called -= 1\n", "",
           test=_TEST_READERS),
    Mutant("one_request_in_a_pass", _READERS, "max(self._found, self._expected - self._found)", "1",
           test=_TEST_READERS),
    Mutant("burst_of_before_is_forgotten", _READERS, "max(self._found, self._expected - self._found)", "self._found",
           test=_TEST_READERS),
    Mutant("who_always_finds_a_request_never_yields", _READERS, "            await trio.lowlevel.checkpoint()\n",
           "            pass\n", test=_TEST_READERS),
    Mutant("task_that_has_left_is_called", _READERS, "            self._idle.remove(task)\n", "            pass\n",
           test=_TEST_READERS),
    Mutant("reads_although_another_task_has_taken_it", _READERS, "        while not self._poll.poll(0):\n",
           "        if not self._poll.poll(0):\n", test=_TEST_READERS),
    Mutant("pyfuse3_waits_by_itself", _READERS, "pyfuse3.trio = given", "pyfuse3.trio = trio",
           test=_TEST_READERS),
    Mutant("what_a_hoarder_kept_is_freed_when_its_turn_comes", "dsreg.node.connection_table",
           "        self.connections[hoarder].decoder.drop()  # its", "        # its",
           test="tests/node/test_connection_table.py"),
    Mutant("who_waits_for_its_start_serves", "dsreg.health.serving",
           '    return not answer.report.get("lives", {}).get("waits_for")\n', "    return True\n", test=_TEST_HEALTH),
    Mutant("each_node_says_that_the_key_is_wrong", "dsreg.survey",
           "() if is_config_fault(self.error) else self.answers", "self.answers", test=_TEST_HEALTH),
    Mutant("no_space_hides_that_no_majority_answers", "dsreg.health.serving",
           "if not full or not quorum.decided(mask(full + roomy)) or", "if not full or", test=_TEST_HEALTH),
    Mutant("every_full_file_system_is_complained_about", "dsreg.health.of_machines",
           "None if available > sectors * SECTOR_SIZE - allocated else", "", test=_TEST_CHECKS),
    Mutant("a_node_is_slow_by_the_floor_alone", "dsreg.health.of_machines",
           " and took_s >= SLOW_TIMES * (usual_s := median(others)):", " and (usual_s := median(others)):",
           test=_TEST_CHECKS),
    Mutant("a_clock_is_judged_by_whoever_asks", "dsreg.health.of_machines",
           "median([0.0, *(ahead_s for _, ahead_s in ahead)])", "0.0", test=_TEST_CHECKS),
    Mutant("who_only_compares_is_a_warning", "dsreg.health.of_cluster",
           "Severity.NOTICE if is_about_to_pass else Severity.WARNING", "Severity.WARNING", test=_TEST_CHECKS),
    Mutant("a_node_that_is_down_is_missed_by_each_other_one", "dsreg.health.of_nodes",
           "in _LINK_FAULTS and peer not in silent:", "in _LINK_FAULTS:", test=_TEST_CHECKS),
    Mutant("changed_directories_are_counted_as_answering", "dsreg.survey",
           "return sum(serves(answer, changed) for", "return sum(serves(answer, ()) for", test=_TEST_HEALTH),
    Mutant("mounts_are_released_from_the_first", "fuse_frontend.holders",
           "for mount in reversed([mount for mount in self._here if mount in mounts or mount in below]):",
           "for mount in [mount for mount in self._here if mount in mounts or mount in below]:", test=_TEST_HOLDERS),
    Mutant("swap_beside_a_mount_is_in_it", "fuse_frontend.holders", "if swap.startswith(place):",
           "if swap.startswith(mount.mountpoint):", test=_TEST_HOLDERS),
    Mutant("own_words_that_come_back_are_an_answer", "dsreg.node.members",
           "        if rank == self.rank:\n            return\n", "", test=_TEST_NODES),
    Mutant("contract_peers_are_not_greeted", "dsreg.node.members", "            self.on_greet(rank)\n",
           "            pass\n", test=_TEST_NODES),
    Mutant("who_waits_for_its_start_is_silent", "dsreg.node.members",
           '            log.warning("%s", self.waits_for())\n', "            pass\n", test=_TEST_NODES),
    Mutant("an_owner_that_has_just_left_keeps_the_disk", "dsreg.client.presence",
           "now_s - self._since_s >= LEAVES_S", "True", test="tests/client/test_attachment.py"),
    Mutant("an_owner_is_thought_to_be_leaving_for_ever", "dsreg.client.presence",
           "        if self._since_s is None:\n", "        if True:\n", test="tests/client/test_attachment.py"),
    Mutant("the_count_of_sectors_becomes_negative", "dsreg.storage.slot_table", "return max(0, self.counted)",
           "return self.counted", test="tests/storage/test_parts.py"),
)
