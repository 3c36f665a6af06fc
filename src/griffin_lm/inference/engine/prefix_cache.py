"""The prefix cache: states at places of prompts, found again by the tokens before them.

A tree for each owner; its edges are the tokens between two canonical cuts, its nodes may hold a
mark. It has a budget of bytes for all marks together: the one that was unused longest goes first.
Nodes stay for a while without their marks, so that a miss can say why it is one.
"""

import hashlib
from array import array
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...models import Griffin, State
from .mark import Mark

LAST = 4  # cuts at the end of a prompt at which a mark is always left: the next turns branch here
SPREAD = 8  # marks over the rest of a long prompt
NODES = 50_000  # nodes, of some hundred bytes each, that are kept at most


@dataclass(eq=False)
class _Node:
    parent: "_Node | None"
    edge: bytes
    children: dict[bytes, "_Node"] = field(default_factory=dict[bytes, "_Node"])
    mark: Mark | None = None
    had_mark: bool = False


@dataclass
class Visit:
    """One prompt in the cache.

    found     tokens that need not be read; `state` is the state after them
    miss      why not more than none were found, "" for a hit: "short" (no place to pause at),
              "new" (nothing known begins so), "unmarked" (known, but no state was left), "evicted"
    wanted    numbers of tokens at which `keep` should be called
    """

    cache: "PrefixCache"
    nodes: dict[int, _Node]
    found: int
    state: State | None
    miss: str
    wanted: frozenset[int]

    def keep(self, tokens: int, state: State) -> bool:
        """Leaves a mark at this many tokens; whether it did (it may be there already)."""
        return self.cache.keep(self.nodes[tokens], state)


class PrefixCache:
    """Marks by the tokens before them; for one thread.

    model    whose states they are
    budget   bytes of all marks; 0: nothing is kept
    """

    def __init__(self, model: Griffin, budget: int) -> None:
        self.model, self.budget = model, budget
        self.nbytes = 0
        self.hits = self.found_tokens = self.evictions = 0
        self.misses: Counter[str] = Counter()
        self._roots: dict[str, _Node] = {}
        self._marked: OrderedDict[_Node, None] = OrderedDict()  # least recently used first
        self._bare: OrderedDict[_Node, None] = OrderedDict()  # nodes without a mark

    def __len__(self) -> int:
        """Marks."""
        return len(self._marked)

    def visit(
        self, owner: str, ids: Sequence[int], cuts: Sequence[int], marks: Sequence[int] = ()
    ) -> Visit:
        """Looks a prompt up, by its canonical cuts, and says where marks should be left.

        marks: those of the cuts at which one was asked for. Paths that pause elsewhere are others
        in the tree, so what is found was read with the same pauses.
        """
        node = self._roots.setdefault(owner, _Node(None, b""))
        nodes: dict[int, _Node] = {}
        found, state, known, begin, was_marked = 0, None, 0, 0, False
        best: _Node | None = None
        for cut in cuts:
            edge = hashlib.blake2b(array("q", ids[begin:cut]).tobytes(), digest_size=16).digest()
            child = node.children.get(edge)
            if child is None:
                child = node.children[edge] = _Node(node, edge)
                self._bare[child] = None
            else:
                known = cut
                was_marked |= child.had_mark
                self._touch(child)
            if child.mark is not None:
                found, best = cut, child
            nodes[cut] = node = child
            begin = cut
        if best is not None and best.mark is not None:
            state = best.mark.state(self.model)
        miss = ""
        if not found:
            miss = "short" if not cuts else "new" if not known else "unmarked"
            miss = "evicted" if miss == "unmarked" and was_marked else miss
            self.misses[miss] += 1
        else:
            self.hits += 1
            self.found_tokens += found
        self._prune(nodes)
        return Visit(self, nodes, found, state, miss, self._wanted(cuts, found, known, marks))

    def keep(self, node: _Node, state: State) -> bool:
        """Leaves a mark at a node."""
        if node.mark is not None:
            return False
        mark = Mark(state)
        if mark.nbytes > self.budget:
            return False
        while self.nbytes + mark.nbytes > self.budget:
            self._evict()
        node.mark, node.had_mark = mark, True
        self.nbytes += mark.nbytes
        self._bare.pop(node, None)
        self._marked[node] = None
        return True

    def _wanted(
        self, cuts: Sequence[int], found: int, known: int, marks: Sequence[int]
    ) -> frozenset[int]:
        """The last cuts, where prompts branch, some in between, and those asked for."""
        if not self.budget:
            return frozenset()
        stride = max(1, -(-len(cuts) // SPREAD))
        wanted = {*cuts[-LAST:], *cuts[stride - 1 :: stride], *set(marks).intersection(cuts)}
        if known:
            wanted.add(known)  # where this prompt leaves an earlier one
        return frozenset(cut for cut in wanted if cut > found)

    def _touch(self, node: _Node) -> None:
        line = self._bare if node.mark is None else self._marked
        line.move_to_end(node)

    def _evict(self) -> None:
        node, _ = self._marked.popitem(last=False)
        assert node.mark is not None
        self.nbytes -= node.mark.nbytes
        node.mark = None
        self.evictions += 1
        self._bare[node] = None

    def _prune(self, in_use: dict[int, _Node]) -> None:
        """Forgets leaves without a mark, those unused longest, where there are too many nodes."""
        visited = set(in_use.values())
        for node in list(self._bare) if len(self._bare) > NODES else ():
            if node.children or node in visited or node.parent is None:
                continue
            del node.parent.children[node.edge], self._bare[node]
            if len(self._bare) <= NODES * 9 // 10:
                break
