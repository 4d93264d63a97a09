import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from g4jax.cache.allocator import PagePool

CAPACITY = 5


class PoolMachine(RuleBasedStateMachine):
    """A pool beside a model of it: a list of holds, and the cached pages in the order they were given back."""

    def __init__(self):
        super().__init__()
        self.pool = PagePool(CAPACITY + 1)
        self.held: list[int] = []
        self.cached: list[int] = []
        self.keys: dict[int, bytes] = {}

    @precondition(lambda self: self.pool.available)
    @rule()
    def allocate(self):
        unused = CAPACITY - len(set(self.held)) - len(self.cached)
        page = self.pool.allocate()
        assert 0 < page <= CAPACITY and page not in self.held
        if unused:
            assert page not in self.cached
        else:
            assert page == self.cached.pop(0), "the cached page given back longest ago goes first"
            del self.keys[page]
        self.held.append(page)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data):
        page = data.draw(st.sampled_from(self.held))
        self.pool.release(page)
        self.held.remove(page)
        if page not in self.held and page in self.keys:
            self.cached.append(page)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), key=st.integers(0, 6))
    def register(self, data, key):
        page = data.draw(st.sampled_from(self.held))
        self.pool.register(page, bytes([key]))
        if page not in self.keys and bytes([key]) not in self.keys.values():
            self.keys[page] = bytes([key])

    @precondition(lambda self: self.keys)
    @rule(data=st.data())
    def share(self, data):
        page, key = data.draw(st.sampled_from(sorted(self.keys.items())))
        assert self.pool.find(key) == page
        self.pool.share(page)
        self.held.append(page)
        if page in self.cached:
            self.cached.remove(page)

    @invariant()
    def books_agree(self):
        self.pool.check_integrity(self.held)
        assert self.pool.used == len(set(self.held)) and self.pool.available == CAPACITY - self.pool.used
        assert all(self.pool.find(bytes([key])) in (None, *self.keys) for key in range(7))
        assert all(self.pool.find(key) == page for page, key in self.keys.items())


PoolMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestPool = PoolMachine.TestCase


def test_misuse_is_an_error():
    pool = PagePool(2)
    page = pool.allocate()
    with pytest.raises(IndexError, match="no page is available"):
        pool.allocate()
    pool.release(page)
    with pytest.raises(ValueError, match="not held"):
        pool.release(page)
    with pytest.raises(ValueError, match="not held"):
        pool.register(page, b"key")
    with pytest.raises(ValueError, match="num_pages"):
        PagePool(1)


def test_integrity_sees_a_lost_page():
    pool = PagePool(4)
    pool.allocate()
    with pytest.raises(AssertionError, match="ref counts"):
        pool.check_integrity([])
