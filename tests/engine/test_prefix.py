from hypothesis import given, settings
from hypothesis import strategies as st

from g4jax.cache.allocator import PagePool
from g4jax.cache.prefix import extend_keys, find_prefix, first_needed_page, span_over


def keys_of(tokens, page_size, **options):
    keys: list[bytes] = []
    extend_keys(keys, tokens, page_size, **options)
    return keys


tokens_of = st.lists(st.integers(0, 2), max_size=20)


@given(tokens_of, tokens_of, st.integers(1, 5))
def test_keys_are_equal_exactly_for_equal_prefixes(left, right, page_size):
    for page, (a, b) in enumerate(zip(keys_of(left, page_size), keys_of(right, page_size), strict=False)):
        end = (page + 1) * page_size
        assert (a == b) == (left[:end] == right[:end])


@given(tokens_of, st.integers(0, 20), st.integers(1, 5))
def test_keys_grow_as_tokens_come(tokens, first, page_size):
    keys = keys_of(tokens[:first], page_size)
    extend_keys(keys, tokens, page_size)
    assert keys == keys_of(tokens, page_size) and len(keys) == len(tokens) // page_size


def test_salt_and_the_end_of_an_image_are_part_of_the_key():
    tokens = [9] * 12
    plain = keys_of(tokens, 4)
    assert not set(plain) & set(keys_of(tokens, 4, salt=b"picture"))
    short, long = keys_of(tokens, 4, spans=[(2, 6)]), keys_of(tokens, 4, spans=[(2, 7)])
    assert len({plain[0], short[0], long[0]}) == 3
    assert keys_of(tokens, 4, spans=[(1, 4)])[0] == plain[0]


@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 8))
def test_first_needed_page_against_the_definition(position, window, page_size):
    seen = [j for j in range(position + 1) if j > position - window]
    assert first_needed_page(position, window, page_size) == min(seen) // page_size


@settings(max_examples=300)
@given(st.data())
def test_the_longest_prefix_whose_pages_are_all_there(data):
    page_size, window = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9))
    keys = [bytes([n]) for n in range(8)]
    held = st.sets(st.sampled_from(keys))
    in_full, in_sliding = data.draw(held), data.draw(held)
    in_full |= set(keys[: data.draw(st.integers(0, 8))])
    most = data.draw(st.integers(0, 8 * page_size))
    start = data.draw(st.integers(0, 20))
    spans = [(start, start + data.draw(st.integers(1, 6)))]
    sliding, full = pool_with(in_sliding), pool_with(in_full)

    def reusable(n: int) -> bool:
        needed = keys[first_needed_page(n * page_size, window, page_size) : n]
        return set(keys[:n]) <= in_full and set(needed) <= in_sliding and not span_over(spans, n * page_size)

    hit = find_prefix(keys, sliding, full, most=most, window=window, page_size=page_size, spans=spans)
    best = max(n for n in range(most // page_size + 1) if reusable(n))
    assert hit.length == best * page_size
    assert hit.full_pages == [full.find(key) for key in keys[:best]]
    behind = first_needed_page(hit.length, window, page_size)
    assert hit.sliding_pages == [0] * behind + [sliding.find(key) for key in keys[behind:best]]


def pool_with(keys: set[bytes]) -> PagePool:
    pool = PagePool(len(keys) + 2)
    for key in sorted(keys):
        pool.register(pool.allocate(), key)
    return pool
