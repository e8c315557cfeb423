"""Seeded bugs of what shows a cluster to people: the page, its server, and dsreg top."""

from __future__ import annotations

from tests.simulation.mutant import Mutant

_TEST_DOCUMENT = "tests/page/test_document.py"
_TEST_HTTP = "tests/metrics/test_http.py"
_TEST_SERVING = "tests/metrics/test_serving.py"
_TEST_TRAFFIC = "tests/health/test_traffic.py"
_TEST_LOOKING = "tests/page/test_looking.py"

LOOKING = (
    Mutant("names_of_others_are_html", "dsreg.page.markup",
           "child if isinstance(child, Html) else escape(child) for child", "child for child", test=_TEST_DOCUMENT),
    Mutant("attributes_are_not_escaped", "dsreg.page.markup", '="{escape(str(value))}"', '="{value}"',
           test="tests/page/test_markup.py"),
    Mutant("a_token_may_be_left_out", "dsreg.metrics.http", "if self._token and not is_shown(",
           'if self._token and "authorization" in headers and not is_shown(', test=_TEST_HTTP),
    Mutant("a_beginning_of_the_token_is_enough", "dsreg.metrics.token", "return hmac.compare_digest(given, token)",
           "return hmac.compare_digest(given, token[:len(given)])", test=_TEST_HTTP),
    Mutant("others_are_served_without_a_token", "dsreg.metrics.serving",
           "        if not token and not are_for_this_host(listeners):\n", "        if False:\n",
           test=_TEST_SERVING),
    Mutant("any_name_leads_to_this_host", "dsreg.metrics.http", "if not self._token and not is_own(",
           "if False and not is_own(", test=_TEST_SERVING),
    Mutant("a_name_that_begins_as_an_address_is_one", "dsreg.metrics.host", "_PARTS.fullmatch(", "_PARTS.match(",
           test=_TEST_SERVING),
    Mutant("everybody_who_looks_asks", "dsreg.page.looking", "if seen is not None and now_s - seen.at_s < FRESH_S:",
           "if False:", test=_TEST_LOOKING),
    Mutant("rates_are_of_any_time", "dsreg.page.looking", "if seen is None or now_s - seen.at_s > STALE_S else",
           "if seen is None else", test=_TEST_LOOKING),
    Mutant("a_start_between_two_answers_is_not_seen", "dsreg.health.traffic",
           "after is None or before.start != after.start or", "after is None or", test=_TEST_TRAFFIC),
    Mutant("names_reach_the_terminal_as_they_are", "dsreg.units",
           "character if character.isprintable() else", "character if character else", test=_TEST_TRAFFIC),
    Mutant("any_connection_is_that_of_the_owner", "dsreg.register.epochs",
           "self.promised > 0 and self._attached.get(connection) == self.promised",
           "self.promised > 0 and self.is_owner_connected", test="tests/node/test_traffic.py"),
    Mutant("nodes_in_reach_of_others_are_given_up", "dsreg.health.serving",
           "+ [rank for rank in linked if rank not in changed])", ")", test="tests/health/test_serving.py"),
)
