"""Seeded bugs of the glue: what runs the core on trio, threads, sockets and the kernel, and what the simulator has in a
form of its own. The tests of these parts have to catch them.
"""

from __future__ import annotations

from tests.simulation.mutant import Mutant

_DISK = "dsreg.node.disk"
_INTERPRETER = "dsreg.node.interpreter"
_LINK_OUTBOX = "dsreg.node.link_outbox"
_OUTBOX = "dsreg.outbox"
_WORKER = "dsreg.node.worker"
_PROCESS = "dsreg.node.process"
_ENGINE = "dsreg.client.engine"
_RUNNER = "dsreg.client.runner"
_CONNECTION = "dsreg.client.connection"
_LINES = "dsreg.lines"
_ADMISSION = "dsreg.client.admission"
_CACHE = "dsreg.cache.writeback"
_BUFFER = "dsreg.cache.core"
_FILES = "fuse_frontend.files"
_DIRECT = "fuse_frontend.direct"
_SESSION = "fuse_frontend.session"

_TEST_DISK = "tests/node/test_disk.py"
_TEST_INTERPRETER = "tests/node/test_interpreter.py"
_TEST_OUTBOX = "tests/node/test_outbox.py"
_TEST_WORKER = "tests/node/test_worker.py"
_TEST_PROCESS = "tests/node/test_process.py"
_TEST_ENGINE = "tests/client/test_engine.py"
_TEST_CLIENT = "tests/client/test_client.py"
_TEST_SUBMIT = "tests/client/test_submit.py"
_TEST_CACHE = "tests/cache/test_writeback.py"
_TEST_BUFFER = "tests/cache/test_core.py"
_TEST_LINES = "tests/test_lines.py"
_TEST_CONNECTION = "tests/client/test_connection.py"

NODE = (
    Mutant("acknowledged_before_the_commit_has_run", _DISK,
           "            self._time(commit)\n            self._committed(commit, self._storage.finish_commit(commit))\n",
           "            self._committed(commit, self._storage.finish_commit(commit))\n            self._time(commit)\n",
           test=_TEST_DISK),
    Mutant("checkpoint_does_not_wake_the_commit", _DISK,
           "                self._commit.set()  # a commit may have waited for room in the journal\n", "",
           test=_TEST_DISK),
    Mutant("loads_that_wait_for_a_commit_are_forgotten", _DISK,
           "        for load in waiting:\n            self._loads.send_nowait(load)\n", "", test=_TEST_DISK),
    Mutant("rest_of_a_turn_on_a_slow_disk_is_forgotten", _DISK,
           "            self._commit.set()  # the disk has become slow\n", "            pass\n", test=_TEST_DISK),
    Mutant("one_commit_for_each_waking", _DISK,
           "                while (commit := self._storage.next_commit()) is not None:\n                    await",
           "                if (commit := self._storage.next_commit()) is not None:\n                    await",
           test=_TEST_DISK),
    Mutant("load_that_proved_nothing_is_forgotten", _DISK,
           "            elif loaded is None:\n                self._loads.send_nowait(load)\n",
           "            elif loaded is None:\n                pass\n", test=_TEST_DISK),
    Mutant("full_journal_waits_until_all_is_idle", _DISK,
           "        if self._storage.checkpoint_due(idle=False):\n            self._checkpoint.set()\n", "",
           test=_TEST_DISK),
    Mutant("idle_disk_keeps_its_journal", _DISK, "checkpoint_due(idle=idle.cancelled_caught)",
           "checkpoint_due(idle=False)", test=_TEST_DISK),
    Mutant("one_load_at_a_time", _DISK, "for _ in range(LOADERS):", "for _ in range(1):", test=_TEST_DISK),
    Mutant("turn_of_a_commit_does_not_end", _INTERPRETER,
           "                call()\n        self.end_turn()\n", "                call()\n", test=_TEST_DISK),
    Mutant("turn_of_a_load_does_not_end", _INTERPRETER,
           "        self.carry_out(self._report_load(load, loaded, now), now)\n        self.end_turn()\n",
           "        self.carry_out(self._report_load(load, loaded, now), now)\n", test=_TEST_DISK),
    Mutant("given_up_commands_stay_counted", _INTERPRETER,
           "for command in (*given_up, *self.held", "for command in (*(), *self.held",
           test="tests/node/test_leftovers.py"),
    Mutant("answers_wait_for_no_link", _INTERPRETER, "(message, (Value, Ack)) and is_of_contract(message):\n",
           "(message, ()):\n", test=_TEST_INTERPRETER),
    Mutant("answers_that_waited_are_dropped", _INTERPRETER,
           "        for answer in self._answers.pop(rank, ()):\n            outbox.send(answer)\n", "",
           test=_TEST_INTERPRETER),
    Mutant("end_of_an_old_link_ends_the_new_one", _INTERPRETER,
           "if outbox is not None and outbox.transport is transport:", "if outbox is not None:",
           test=_TEST_INTERPRETER),
    Mutant("reader_that_waits_for_room_is_not_woken", _INTERPRETER,
           "        if connection.room is not None:\n            connection.room.set()\n", "",
           test=_TEST_INTERPRETER),
    Mutant("nobody_hears_that_all_is_done", _INTERPRETER, "            self.on_idle()\n", "            pass\n",
           test=_TEST_INTERPRETER),
    Mutant("bytes_of_questions_count_for_nothing", "dsreg.register.execution",
           "    return command.count * SECTOR_SIZE\n", "    return len(command.data)\n", test=_TEST_INTERPRETER),
    Mutant("nobody_hears_that_a_port_has_room", _OUTBOX,
           "        transport.on_room = self._pump\n", "", test=_TEST_OUTBOX),
    Mutant("what_is_over_is_sent_all_the_same", _OUTBOX,
           "            if self._is_wanted(message):\n                self.transport.put",
           "            if True:\n                self.transport.put", test=_TEST_OUTBOX),
    Mutant("answers_are_weeded_out", _LINK_OUTBOX, "if not isinstance(message, (ReadProc, WriteProc)) or", "if",
           test=_TEST_OUTBOX),
    Mutant("a_node_that_was_spared_writes_is_not_told", _LINK_OUTBOX, "self._spared |= isinstance(message, WriteProc)",
           "pass", test=_TEST_OUTBOX),
    Mutant("a_node_that_was_spared_writes_is_not_asked_to_compare", "dsreg.client.node_view",
           "self.is_short |= bool(spared)", "pass", test="tests/client/test_node_selector.py"),
    Mutant("who_caught_up_does_not_compare", "dsreg.client.replies", "if node.is_to_compare(now_s):", "if False:",
           test="tests/client/test_core_attached.py"),
    Mutant("runs_of_one_operation_replace_each_other", _LINK_OUTBOX, "(type(message), message.rid, message.first)",
           "(type(message), message.rid, 0)", test=_TEST_OUTBOX),
    Mutant("commit_is_cut_off_half_way", _WORKER, "trio.lowlevel.Abort.FAILED", "trio.lowlevel.Abort.SUCCEEDED",
           test=_TEST_WORKER),
    Mutant("error_in_the_thread_is_lost", _WORKER, "trio.lowlevel.reschedule, task, result)",
           "trio.lowlevel.reschedule, task)", test=_TEST_WORKER),
    Mutant("thread_goes_on_for_ever", _WORKER, "        self._calls.put(None)\n", "        pass\n", test=_TEST_WORKER),
    Mutant("deadline_is_not_moved", _PROCESS, "            scope.deadline = min(scope.deadline, next_due())\n",
           "            pass\n", test=_TEST_PROCESS),
    Mutant("stopping_waits_for_nothing", _PROCESS, "            await idle.wait()\n", "", test=_TEST_PROCESS),
    Mutant("slot_of_a_connection_is_never_free_again", _PROCESS,
           "                self._room.release_on_behalf_of(transport)\n", "                pass\n",
           test=_TEST_PROCESS),
    Mutant("storage_is_left_open", _PROCESS, "            await trio.to_thread.run_sync(storage.close)\n",
           "            pass\n", test=_TEST_PROCESS),
    Mutant("one_life_for_all_incarnations", "dsreg.register.assembly",
           "storage.ts_reserved, storage.incarnation, life)", "storage.ts_reserved, 1, life)",
           test="tests/register/test_assembly.py"),
    Mutant("both_copies_under_one_sync", "dsreg.storage.state",
           "        write_copy(file, raw, index * COPY_DISTANCE)\n",
           "        file.pwritev([raw], index * COPY_DISTANCE)\n    file.fdatasync()\n",
           test="tests/storage/test_power_cuts.py"),
)

CLIENT = (
    Mutant("clock_that_stops_while_the_machine_sleeps", _RUNNER, "CLOCK_BOOTTIME", "CLOCK_MONOTONIC",
           test=_TEST_ENGINE),
    Mutant("slot_is_leaked_on_cancel", _ENGINE,
           "            self.ready.remove(run)\n            self._release(run)\n",
           "            self.ready.remove(run)\n            del self._runs[run]\n", test=_TEST_ENGINE),
    Mutant("who_gave_up_still_waits_for_room", _ENGINE,
           "                self._admission.give_up(run.entry)\n", "                pass\n", test=_TEST_SUBMIT),
    Mutant("sectors_stay_locked_when_a_waiter_leaves", _ENGINE,
           "                self._lock.release(run.held)\n            run.over()\n        else:\n",
           "                pass\n            run.over()\n        else:\n",
           test=_TEST_SUBMIT),
    Mutant("nobody_comes_in_when_one_who_waits_leaves", _ADMISSION,
           "        self._queue.remove(entry)\n        self._admit()\n", "        self._queue.remove(entry)\n",
           test="tests/client/test_admission.py"),
    Mutant("large_run_is_overtaken_by_small_ones", _ADMISSION, "if not self._queue and self._operations and",
           "if self._operations and", test="tests/client/test_admission.py"),
    Mutant("what_has_ended_is_overdue", _ENGINE, "if run not in self._runs or (done := run.done) is None:",
           "if (done := run.done) is None:", test=_TEST_SUBMIT),
    Mutant("time_limit_is_forgotten", _ENGINE, "        self._end_overdue()\n", "", test=_TEST_SUBMIT),
    Mutant("lost_node_counts_as_up", _RUNNER, "            self.ups[rank] = trio.Event()\n", "            pass\n",
           test=_TEST_CLIENT),
    Mutant("clock_ticks_for_the_first_operation_only", _ENGINE,
           "        self._ticks = self.core.busy\n        return self._ticks\n", "        return self.core.busy\n",
           test=_TEST_ENGINE),
    Mutant("what_an_answer_sets_off_is_not_sent", _ENGINE,
           "        self.step(Received(rank, messages))\n        self.end_turn()\n",
           "        self.step(Received(rank, messages))\n", test=_TEST_ENGINE),
    Mutant("what_a_loss_sets_off_is_not_sent", _ENGINE,
           "        self.step(event)\n        self.end_turn()\n", "        self.step(event)\n", test=_TEST_ENGINE),
    Mutant("cancelled_call_goes_on", _ENGINE, "            self.step(Abandon(run.operation))\n", "            pass\n",
           test=_TEST_ENGINE),
    Mutant("cancelled_write_did_not_happen", _ENGINE, "            outcome = self._outcome(run)\n", "",
           test=_TEST_CLIENT),
    Mutant("done_part_of_a_write_did_not_happen", "dsreg.store",
           "if self._data is not None and (error is None or outcome_of(error) is Outcome.MAY_HAVE_HAPPENED):",
           "if False:", test=_TEST_CLIENT),
    Mutant("broken_connection_takes_a_put_back", "dsreg.client.core",
           "            del op.phase.sent[node.rank]\n",
           "            del op.phase.sent[node.rank]\n            op.exposures -= 1\n",
           test="tests/client/test_core_fenced.py"),
    Mutant("lost_connection_counts_as_up", _CONNECTION, "        self._outbox = None\n", "        pass\n",
           test=_TEST_CONNECTION),
    Mutant("withdrawn_is_sent_all_the_same", _OUTBOX, "        self._waiting.pop(key, None)\n", "        pass\n",
           test=_TEST_CONNECTION),
    Mutant("record_limit_is_not_passed_on", _LINES, "record_bytes = effect.size", "record_bytes += 0",
           test=_TEST_LINES),
    Mutant("given_up_dialling_goes_on", _LINES, "            self._dialling[line].cancel()\n", "            pass\n",
           test=_TEST_LINES),
    Mutant("time_that_is_moved_is_missed", _LINES, "self._due_s = self._wait.deadline = due_s",
           "self._due_s = due_s", test=_TEST_LINES),
)

# What only the engine and the cache over it can do wrong. The simulator's clients run through them: seeds find these.
ENGINE = (
    Mutant("range_is_free_while_its_operation_runs", _ENGINE,
           "            self.step(Start(operation, run.first, run.count, run.data, run.force, run.zero, run.maps))\n",
           "            if run.held is not None:\n"
           "                self._lock.release(run.held)\n"
           "                run.held = self._lock.acquire(1 << 40, (1 << 40) + 1, run.locked)\n"
           "            self.step(Start(operation, run.first, run.count, run.data, run.force, run.zero, run.maps))\n"),
    Mutant("run_that_was_given_up_holds_what_it_has_for_ever", _ENGINE,
           "        self._release(run)\n        if run.done is not None:\n            run.done(data, error)\n",
           "        if run.done is not None:\n            self._release(run)\n            run.done(data, error)\n"),
    Mutant("turn_of_a_tick_is_not_ended", _ENGINE,
           "        self._end_overdue()\n        self.end_turn()\n", "        self._end_overdue()\n"),
    Mutant("run_that_was_given_up_ends_again", _ENGINE,
           "        run.done, run.deadline_s = None, math.inf\n", "        run.deadline_s = math.inf\n"),
    Mutant("more_is_under_way_than_is_admitted", _ADMISSION,
           "        if not self._queue and self._operations and", "        if not self._queue and"),
    Mutant("flush_ends_before_its_writes", _CACHE, "        if flush.is_over:\n", "        if True:\n"),
    Mutant("ranges_are_taken_for_free", "dsreg.client.range_lock",
           "        return self._earlier > 0\n", "        return False\n"),
)

CACHE = (
    Mutant("writers_wait_for_room_for_ever", _CACHE,
           "while self._writers and self._writers[0].deadline_s <= now_s:", "while False:", test=_TEST_CACHE),
    Mutant("read_passes_what_is_buffered", _CACHE,
           "        if not buffered:\n            self.counts.misses += 1\n",
           "        if True:\n            self.counts.misses += 1\n", test=_TEST_CACHE),
    Mutant("stored_value_covers_the_buffered_one", _CACHE,
           "            for start, until in missing:\n", "            for start, until in [(begin, end)]:\n",
           test=_TEST_CACHE),
    Mutant("fenced_cache_tries_again", _CACHE, "FINAL = (AttachRefused, ClientClosed, DiskFenced, OutOfRange)",
           "FINAL = (AttachRefused, ClientClosed, OutOfRange)", test=_TEST_CACHE),
    Mutant("last_flush_does_not_wait_for_what_is_under_way", _CACHE,
           "            if self._runs:\n                waiter",
           "            if False:\n                waiter", test=_TEST_CACHE),
    Mutant("writers_that_wait_are_overtaken", _CACHE, "elif self._writers or not self._buffer.reserve(len(data)):",
           "elif not self._buffer.reserve(len(data)):", test=_TEST_CACHE),
    Mutant("flush_does_not_wait_for_the_next_departure", _BUFFER,
           "                chunk.flushes.append(flush)\n                flush.pending += 1\n",
           "                pass\n",
           test=_TEST_BUFFER),
    Mutant("failed_run_covers_what_came_since", _BUFFER, "slide_under(chunk.dirty, extent)",
           "cover(chunk.dirty, extent)", test=_TEST_BUFFER),
    Mutant("departed_value_is_read_over_the_newer_one", _BUFFER, "                cover(departed, extent)\n",
           "                slide_under(departed, extent)\n", test=_TEST_BUFFER),
    Mutant("something_departs_in_a_pause", _BUFFER, "if now < self._paused_until_s or self._oldest_entry() is None:",
           "if self._oldest_entry() is None:", test=_TEST_BUFFER),
    Mutant("age_of_a_failed_run_begins_anew", _BUFFER, "        chunk.since_s = run.departure.since_s\n",
           "        chunk.since_s = now\n", test=_TEST_BUFFER),
)

EDGE = (
    Mutant("synchronous_file_is_not_flushed", _FILES, "data, handle == SYNC_HANDLE)", "data, False)",
           test="tests/fuse/test_operations.py"),
    Mutant("write_reaches_behind_the_end", _FILES, "            data = data[:room]\n", "            pass\n",
           test="tests/fuse/test_operations.py"),
    Mutant("truncating_open_is_taken", _FILES, "        if flags & os.O_TRUNC:\n", "        if False:\n",
           test="tests/fuse/test_operations.py"),
    Mutant("size_may_be_changed", _FILES, "(inode != IMAGE_INODE or asked.size != self.volume.size)",
           "inode != IMAGE_INODE", test="tests/fuse/test_operations.py"),
    Mutant("failed_write_changes_the_times", _FILES, "        if not code:\n            self._mtime_ns",
           "        if True:\n            self._mtime_ns", test="tests/fuse/test_operations.py"),
    Mutant("page_cache_in_front_of_the_disk", _DIRECT,
           "kernel.FOPEN_DIRECT_IO | kernel.FOPEN_PARALLEL_DIRECT_WRITES", "kernel.FOPEN_PARALLEL_DIRECT_WRITES",
           test="tests/fuse/test_operations.py"),
    Mutant("one_bad_request_ends_the_mount", _SESSION,
           "                self.fail(unique, self._handler.failure(opcode, error))\n", "                raise\n",
           test="tests/fuse/test_session.py"),
)

# Of attachments, beside those of the table that the simulator catches.
OWNERS = (
    Mutant("owner_that_left_is_alive", "dsreg.register.epochs", "        self._attached.pop(connection, None)\n",
           "        pass\n", test="tests/register/test_epochs.py"),
    Mutant("owner_that_has_gone_meanwhile_is_alive", "dsreg.register.epochs",
           "        if connection in self._attached:  # else it has gone meanwhile\n", "        if True:\n",
           test="tests/register/test_epochs.py"),
    Mutant("live_owner_of_its_own_keeps_it_out", "dsreg.client.attachment",
           "if told.alive and told.owner != self.claim.owner]", "if told.alive]",
           test="tests/client/test_attachment_retries.py"),
    Mutant("acceptance_of_a_rival_counts", "dsreg.client.attachment",
           "if response.epoch == self.epoch and response.owner == self.claim.owner:",
           "if response.epoch == self.epoch:",
           test="tests/client/test_attachment.py"),
    Mutant("rivals_try_again_in_step", "dsreg.client.attachment",
           "RETRY_S * (1 + self.claim.owner[self._tries % 16] / 255)", "RETRY_S",
           test="tests/client/test_attachment.py"),
    Mutant("owner_of_an_older_fence_is_kept", "dsreg.storage.promises",
           "self._owned = max(self._owned, (epoch, owner))", "self._owned = (epoch, max(owner, self._owned[1]))",
           test="tests/storage/test_fence.py"),
    Mutant("command_that_was_given_up_is_remembered", "dsreg.node.metering", "self.began_s.pop(id(command), None)",
           "self.began_s.get(id(command))", test="tests/metrics/test_of_node.py"),
    Mutant("connections_of_scrapers_are_not_bounded", "dsreg.metrics.http",
           "if self._connections >= MAX_CONNECTIONS:", "if False:", test="tests/metrics/test_http.py"),
    Mutant("status_shows_a_dead_owner", "dsreg.node.reporting",
           "if node.replica.epochs.is_owner_connected else", "if True else", test=_TEST_PROCESS),
)

GLUE = NODE + CLIENT + ENGINE + CACHE + EDGE + OWNERS
