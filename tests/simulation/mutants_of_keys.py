"""Seeded bugs in how keys are changed while everything runs: docs/keys.md."""

from __future__ import annotations

from tests.simulation.mutant_table import Mutant

_ROTATION = "dsreg.config.rotation"
_CONFIG = "dsreg.config.load"
_UNSEALING = "dsreg.protocol.unsealing"
_GREETING = "dsreg.protocol.greeting"
_ACCEPTED = "dsreg.link.accepted_line"
_NODE = "dsreg.node.keys"
_BY_MODEL = "tests/test_keys_model.py"
_BY_FILES = "tests/test_config_keys.py"
_BY_DECODER = "tests/protocol/test_keyring.py"
_BY_PROCESSES = "tests/processes/test_keys.py"

KEYS = (
    Mutant("new_key_is_used_at_once", "dsreg.config.keys", "step=Step.NEXT, other=new,",
           "step=Step.PREVIOUS, key=new, other=self.key,", test=_BY_MODEL),
    Mutant("interrupted_step_is_not_ended_first", _ROTATION, "for step in (Step.NEXT, Step.PREVIOUS) if step in steps",
           "for step in (Step.PREVIOUS, Step.NEXT) if step in steps", test=_BY_MODEL),
    Mutant("key_of_the_nodes_is_left_out_after_a_kill", _ROTATION, "client.step is Step.NEXT and system.step",
           "client.step is Step.ONE and system.step", test=_BY_MODEL),
    Mutant("cluster_has_another_id_after_a_change", _CONFIG, "return pinned or configured",
           "return configured or derive_cluster_id(system_key)", test=_BY_FILES),
    Mutant("file_that_is_read_again_is_not_bound", _CONFIG,
           "    if recovered is None:\n        return file.key,",
           "    if recovered is None or file.other:\n        return file.key,", test=_BY_FILES),
    Mutant("client_key_is_good_between_nodes", _UNSEALING, "self.ring.clients if mac is self._client_mac else",
           "self.ring.clients if mac is not self._client_mac else", test=_BY_DECODER),
    Mutant("old_key_lives_on_without_sealing", _UNSEALING, "        if not client_is_good:\n", "        if False:\n",
           test=_BY_DECODER),
    Mutant("old_key_lives_on_between_nodes", _UNSEALING, "if not system_is_good and self._system_mac is not None:",
           "if False and self._system_mac is not None:", test=_BY_DECODER),
    Mutant("sealed_connection_outlives_its_key", _UNSEALING, "return system_is_good if self._between_nodes else "
           "client_is_good", "return True", test=_BY_DECODER),
    Mutant("key_of_the_nodes_ends_clients", _UNSEALING, "return system_is_good if self._between_nodes else "
           "client_is_good", "return system_is_good and client_is_good", test=_BY_DECODER),
    Mutant("other_key_does_not_seal", _GREETING, "if keys is None or keys == self.keys:", "if True:", test=_BY_DECODER),
    Mutant("answer_is_signed_before_the_key_is_known", _ACCEPTED, "effects.insert(0, AnswerUnder",
           "effects.append(AnswerUnder", test=_BY_DECODER),
    Mutant("node_answers_under_its_own_key", _NODE, "under[connection.transport] = self._signing[keys].encode", "pass",
           test=_BY_PROCESSES),
    Mutant("who_is_late_is_not_named", "dsreg.health.keys", "if is_late and (peer", "if not is_late and (peer",
           test=_BY_PROCESSES),
)
