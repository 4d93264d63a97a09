"""The pages of requests over both pools: what a request reuses, takes, names and gives back. No jax."""

from collections.abc import Iterable

from g4jax.cache.allocator import PagePool
from g4jax.cache.prefix import extend_keys, find_prefix, first_needed_page
from g4jax.engine.request import Request


class Paging:
    """Both pools of a model with `window` tokens of sliding attention, `page_size` tokens a page."""

    def __init__(self, *, sliding_pages: int, full_pages: int, page_size: int, window: int):
        self.sliding = PagePool(sliding_pages)
        self.full = PagePool(full_pages)
        self.page_size = page_size
        self.window = window

    def pages_for(self, tokens: int) -> int:
        return -(-tokens // self.page_size)

    def pages_short(self, request: Request, end: int) -> int:
        """Pages, the same number in both pools, that the request lacks for positions 0..end-1."""
        return max(0, self.pages_for(end) - len(request.full_pages))

    def most_sliding_pages(self, new_tokens: int) -> int:
        """Sliding pages one request holds at most: those of a window and of `new_tokens` that run together."""
        return self.pages_for(self.window - 1 + new_tokens) + 1

    def reuse(self, request: Request) -> int:
        """Give a request without pages the longest cached prefix; at least its last token remains to be computed."""
        self._extend_keys(request)
        hit = find_prefix(
            request.page_keys,
            self.sliding,
            self.full,
            most=request.num_tokens - 1,
            window=self.window,
            page_size=self.page_size,
            spans=request.spans,
        )
        for page in filter(None, hit.sliding_pages):
            self.sliding.share(page)
        for page in hit.full_pages:
            self.full.share(page)
        request.sliding_pages, request.full_pages = hit.sliding_pages, hit.full_pages
        request.num_computed = hit.length
        return hit.length

    def grow(self, request: Request, end: int) -> bool:
        """Take pages for positions 0..end-1, or none at all if a pool has not enough."""
        short = self.pages_short(request, end)
        if short > min(self.sliding.available, self.full.available):
            return False
        request.sliding_pages += [self.sliding.allocate() for _ in range(short)]
        request.full_pages += [self.full.allocate() for _ in range(short)]
        return True

    def advance(self, request: Request, count: int) -> None:
        """`count` more tokens have their K/V: name the pages that became full, give back those the window has left."""
        before, now = request.num_computed, request.num_computed + count
        request.num_computed = now
        self._extend_keys(request)
        for page in range(before // self.page_size, now // self.page_size):
            self.sliding.register(request.sliding_pages[page], request.page_keys[page])
            self.full.register(request.full_pages[page], request.page_keys[page])
        for page in range(self._first_needed(before), self._first_needed(now)):
            self.sliding.release(request.sliding_pages[page])
            request.sliding_pages[page] = 0

    def release(self, request: Request) -> None:
        """Give everything back, the tail first: it is of no use without the head, so it is forgotten first."""
        for page in filter(None, reversed(request.sliding_pages)):
            self.sliding.release(page)
        for page in reversed(request.full_pages):
            self.full.release(page)
        request.sliding_pages, request.full_pages = [], []
        request.num_computed = 0

    def forget(self) -> None:
        """No page that is known now is reused by a later request."""
        self.sliding.forget()
        self.full.forget()

    def check_integrity(self, requests: Iterable[Request]) -> None:
        """Raise AssertionError unless the pools' books are the pages of these requests."""
        live = list(requests)
        self.sliding.check_integrity(page for request in live for page in request.sliding_pages)
        self.full.check_integrity(page for request in live for page in request.full_pages)
        for request in live:
            first = self._first_needed(request.num_computed)
            assert len(request.sliding_pages) == len(request.full_pages) >= self.pages_for(request.num_computed)
            assert all(request.full_pages) and all(request.sliding_pages[first:])
            assert not any(request.sliding_pages[:first])

    def _first_needed(self, position: int) -> int:
        return first_needed_page(position, self.window, self.page_size)

    def _extend_keys(self, request: Request) -> None:
        extend_keys(request.page_keys, request.content, self.page_size, spans=request.spans, salt=request.cache_salt)
