"""NodeSelector: the nodes of the cluster, and which of them to ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from dsreg.client.events import KeyRefused, NotSealed, Refusal
from dsreg.client.limits import ATTEMPT_MAX_S, FULL_S, PROBE_S, RESEND_S, SILENCE_S
from dsreg.client.node_view import NodeView
from dsreg.client.operation import Delegated, Operation
from dsreg.errors import AuthenticationFailed, ClientError, Outcome, UnsealedNode, WrongDisk
from dsreg.protocol.configuration import Configuration
from dsreg.register.configuration import quorum_of
from dsreg.register.quorum import Quorum, bit, counted, how_many_decide, majority_of, mask

# Of a node that tells another configuration of the number of the one that is known here.
_NO_NUMBER: Final = -1
_NONE: tuple[list[NodeView], int] = [], 0


class NodeSelector:
    """`ranks`: in the order of preference.

    `quorum`: of all nodes of the cluster, as these say. The configuration of a client may lack some of them, and list
    others that are none, or not any more. `configuration`: that decides, the latest that one of them has told; None:
    none has. `number`: of that. docs/configurations.md.
    """

    def __init__(self, ranks: Sequence[int]) -> None:
        assert ranks and len(set(ranks)) == len(ranks)
        self.nodes = [NodeView(rank, index) for index, rank in enumerate(ranks)]
        self.by_rank = {node.rank: node for node in self.nodes}
        self.configured = frozenset(ranks)  # are kept, whatever becomes of them
        self.quorum: Quorum = majority_of(ranks)
        self.configuration: Configuration | None = None
        self.number = 1
        # What `enough_of` has found last of nodes in this order, by the first one: counting costs as much as asking.
        self._enough: dict[int, tuple[list[NodeView], int]] = {}
        self._ever_connected = False
        self._arrange()

    def _arrange(self) -> None:
        self._rounds = [self.nodes[home:] + self.nodes[:home] for home in range(len(self.nodes))]  # by the first one
        self._enough.clear()

    # --- which nodes there are ------------------------------------------------------------------------
    def add(self, rank: int) -> None:
        """There is this one as well."""
        node = NodeView(rank, len(self.nodes))
        self.nodes.append(node)
        self.by_rank[rank] = node
        self._arrange()

    def remove(self, node: NodeView) -> None:
        """It is not asked any more, and has nothing to answer."""
        self.nodes.remove(node)
        del self.by_rank[node.rank]
        for index, other in enumerate(self.nodes):
            other.index = index
        self._arrange()

    def told(self, node: NodeView, configuration: Configuration) -> bool:
        """The node answers under this one; whether other nodes decide from now on. One of two that have the same number
        is wrong: who tells another one than was told first is not counted."""
        known = self.configuration
        is_later = known is None or configuration.number > known.number
        if is_later:
            self.configuration, self.number = configuration, configuration.number
        if configuration.members & bit(node.rank):
            node.stopping = False  # one that is not a member yet refuses like one that stops
        node.number = _NO_NUMBER if self._is_another(configuration) else configuration.number
        if not is_later or known is None and self._is_of_all(configuration):
            return False
        self.quorum = quorum_of(configuration)
        for each in self.nodes:
            each.is_member = bool(configuration.members & bit(each.rank))
        self._enough.clear()
        return True

    def _is_another(self, configuration: Configuration) -> bool:
        known = self.configuration
        return known is not None and configuration.number == known.number and configuration != known

    def _is_of_all(self, configuration: Configuration) -> bool:
        """Whether that is what has been taken for right until now: number 1, of the nodes that are configured."""
        is_first = configuration.number == 1 and not configuration.joining
        return is_first and configuration.ranks == mask(self.by_rank) == self.quorum.members

    # --- connections ----------------------------------------------------------------------------------
    def connected(self, node: NodeView, cluster_size: int = 0) -> None:
        assert not node.up
        if cluster_size > self.quorum.size and self.configuration is None:
            self.quorum = majority_of(self.by_rank, cluster_size)
            self._enough.clear()
        node.up = node.tried = self._ever_connected = True
        node.stopping, node.refusal, node.number = False, None, 0

    @property
    def refusal(self) -> Refusal | None:
        """Why there is nothing to wait for: each node has been tried, none was ever good, and this one refused us."""
        if self._ever_connected or not all(node.tried for node in self.nodes):
            return None
        return next((node.refusal for node in self.nodes if node.refusal is not None), None)

    @property
    def owes_answers(self) -> bool:
        return any(node.silent_since_s is not None for node in self.nodes)

    def choose(self, op: Operation, step: Delegated, now_s: float) -> NodeView | None:
        """The node to send to: one that does not have the command before one that does, one that answers
        before one that did not of late, else the next rank from the operation's home on."""
        best, best_badness = None, 4
        for distance in range(len(self.nodes)):
            node = self.nodes[(op.home + distance) % len(self.nodes)]
            # Who is behind does not know all nodes yet, and would not take the tags that the others choose.
            if not self.may_count(node) or op.disbelief & bit(node.rank):
                continue
            badness = 0
            if node.rank in step.sent:
                if not _seems_lost(step, node, now_s):
                    continue
                badness += 2
            if node.avoided_until_s > now_s:
                badness += 1
            if badness == 0:
                return node
            if badness < best_badness:
                best, best_badness = node, badness
        return best

    def may_count(self, node: NodeView) -> bool:
        """Whether the node can be asked, and its answer belongs to the configuration that decides."""
        return node.usable and self.is_current(node)

    def is_current(self, node: NodeView) -> bool:
        """Whether it answers under the configuration that decides."""
        return (node.number or 1) == self.number

    def nearest(self, home: int, now_s: float) -> list[NodeView]:
        """The nodes that can be asked and counted: those that answer first, each in the order of ranks from the
        operation's `home`."""
        usable = [
            node for node in self._rounds[home % len(self.nodes)]
            if node.up and not node.stopping and not node.barred and node.is_member
            and (node.number or 1) == self.number
        ]
        for node in usable:
            if node.avoided_until_s > now_s:
                return sorted(usable, key=lambda node: node.avoided_until_s > now_s)
        return usable

    def enough_of(self, nodes: list[NodeView]) -> int:
        """How many of these nodes, from the first one on, decide; 0 if not even all of them do."""
        home = nodes[0].rank if nodes else 0
        known, enough = self._enough.get(home, _NONE)
        if known != nodes:
            enough = how_many_decide(self.quorum, [node.rank for node in nodes])
            self._enough[home] = nodes, enough
        return enough

    def avoid_silent(self, sent: Mapping[int, float], now_s: float) -> None:
        """Of the nodes that were sent something, by rank and when, those that have answered nothing since."""
        for rank, sent_s in sent.items():
            node = self.by_rank.get(rank)
            if node is not None and node.answered_s <= sent_s:
                node.avoid(now_s)

    def obstacle(self, now_s: float) -> tuple[str, bool]:
        """Why no majority can store anything, as far as is known, and whether it is for want of room; "" if nothing is
        in the way."""
        up = [node for node in self.nodes if node.up and node.is_member]
        ranks = mask(node.rank for node in up)
        if not self.quorum.decided(ranks):
            return f"no majority: {counted(self.quorum, ranks, 'are connected')}", False
        full = [node.rank for node in up if now_s - node.full_s < FULL_S]
        if self.quorum.decided(mask(node.rank for node in up if node.rank not in full)):
            return "", False
        which = f"node {full[0]} has" if len(full) == 1 else f"the nodes {', '.join(map(str, full))} have"
        return f"no space: {which} no room for new data, make some there", True

    def silent(self, now_s: float) -> tuple[list[NodeView], list[NodeView]]:
        """Nodes that owe answers and say nothing: those to ask for a sign of life, and those to give up."""
        asked, given_up = [], []
        for node in self.nodes:
            if node.silent_since_s is None:
                continue
            silence_s = now_s - node.silent_since_s
            if silence_s >= SILENCE_S:
                given_up.append(node)
            elif silence_s >= PROBE_S and not node.probed:
                node.probed = True
                asked.append(node)
        return asked, given_up


def refused_by_all(refusal: Refusal, outcome: Outcome) -> ClientError:
    if isinstance(refusal, KeyRefused):
        return AuthenticationFailed("no node accepts the client key", outcome)
    if isinstance(refusal, NotSealed):
        return UnsealedNode(f"node {refusal.rank} does not seal its connections, as require_sealed demands", outcome)
    rank, sectors, expected = refusal
    return WrongDisk(f"node {rank} has a disk of {sectors} sectors, not of {expected} as configured here", outcome)


def _seems_lost(step: Delegated, node: NodeView, now_s: float) -> bool:
    """Whether a command that the node was sent is to be sent to it again: see limits.RESEND_S."""
    sent_s = step.sent[node.rank]
    since_s = now_s - sent_s
    if node.answered_s > sent_s:
        return since_s >= ATTEMPT_MAX_S
    return since_s >= max(RESEND_S, (now_s - step.started_s) / 2)
