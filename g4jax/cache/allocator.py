"""The pages of one pool on the host: who holds which, which still hold reusable K/V. No jax."""

from collections import Counter, OrderedDict
from collections.abc import Iterable


class PagePool:
    """Pages 1..num_pages-1 of one device pool; page 0 is the null page and is never handed out.

    A page is held (ref count above 0), cached (nobody holds it, but its content has a key and may be shared again), or
    free. Handing out prefers free pages, then forgets the cached page that was given back longest ago.
    """

    def __init__(self, num_pages: int):
        if num_pages < 2:
            raise ValueError(f"num_pages: a pool needs at least 2 pages (page 0 is never handed out), got {num_pages}")
        self.num_pages = num_pages
        self._refs = [0] * num_pages
        self._free = list(range(num_pages - 1, 0, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._key_of: dict[int, bytes] = {}
        self._page_of: dict[bytes, int] = {}

    @property
    def capacity(self) -> int:
        return self.num_pages - 1

    @property
    def available(self) -> int:
        """Pages that `allocate` can hand out now, the cached ones included."""
        return len(self._free) + len(self._cached)

    @property
    def used(self) -> int:
        return self.capacity - self.available

    def allocate(self) -> int:
        """A page of unknown content, held once. IndexError when none is available: ask `available` first."""
        if self._free:
            page = self._free.pop()
        elif self._cached:
            page, _ = self._cached.popitem(last=False)
            del self._page_of[self._key_of.pop(page)]
        else:
            raise IndexError("no page is available")
        self._refs[page] = 1
        return page

    def find(self, key: bytes) -> int | None:
        """The page whose content has this key, held or cached."""
        return self._page_of.get(key)

    def share(self, page: int) -> None:
        """Hold a page that `find` returned once more."""
        self._refs[page] += 1
        self._cached.pop(page, None)

    def release(self, page: int) -> None:
        """Give back one hold. A page with a key stays cached, as the last to be forgotten."""
        if self._refs[page] <= 0:
            raise ValueError(f"page {page} is not held")
        self._refs[page] -= 1
        if self._refs[page]:
            return
        if page in self._key_of:
            self._cached[page] = None
        else:
            self._free.append(page)

    def register(self, page: int, key: bytes) -> None:
        """Name the content of a held page. If another page has this content already, that one stays the known one."""
        if self._refs[page] <= 0:
            raise ValueError(f"page {page} is not held")
        if key not in self._page_of and page not in self._key_of:
            self._page_of[key] = page
            self._key_of[page] = key

    def forget(self) -> None:
        """Drop the keys of all pages; those that nobody holds are free."""
        self._free += self._cached
        self._cached.clear()
        self._key_of.clear()
        self._page_of.clear()

    def check_integrity(self, held: Iterable[int]) -> None:
        """Raise AssertionError unless the books agree with each other and with `held`: all holds, 0 = none."""
        holds = Counter(page for page in held if page)
        counted = {page: refs for page, refs in enumerate(self._refs) if refs}
        assert counted == holds, f"ref counts {counted} but holds {dict(holds)}"
        every = sorted([*counted, *self._free, *self._cached])
        assert every == list(range(1, self.num_pages)), f"pages lost or doubled: {every}"
        assert {page: key for key, page in self._page_of.items()} == self._key_of
        assert all(page in self._key_of for page in self._cached), "a cached page has no key"
        assert not any(page in self._key_of for page in self._free), "a free page has a key"
