"""Which images belong together: files with the same content, by the digest of their bytes, and those of one group."""

from __future__ import annotations

from collections.abc import Sequence


def exact_copies(digests: Sequence[str]) -> list[tuple[int, ...]]:
    """Images that are byte for byte the same.

    Args:
        digests: ``N`` SHA-256 digests of content.

    Returns:
        Groups of at least two row numbers, ascending, in the order of their first member.

    >>> exact_copies(["a", "b", "a", "c", "b", "a"])
    [(0, 2, 5), (1, 4)]
    """
    return grouped(digests)


def grouped(names: Sequence[str | None]) -> list[tuple[int, ...]]:
    """Images of one group, as a manifest names it; those without a name belong to none.

    >>> grouped(["hive 1", None, "hive 1", "hive 2", None])
    [(0, 2)]
    """
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if name is not None:
            rows.setdefault(name, []).append(row)
    return [tuple(group) for group in rows.values() if len(group) > 1]


def joined(count: int, links: Sequence[Sequence[int]]) -> list[int]:
    """Number the sets that ``count`` images fall into when linked ones belong together (union-find, Tarjan 1975).

    Args:
        count: number of images.
        links: each links all the row numbers in it.

    Returns:
        For each image the smallest row number of its set.

    >>> joined(5, [(1, 3), (3, 4)])
    [0, 1, 2, 1, 1]
    """
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for link in links:
        for row in link[1:]:
            a, b = root(link[0]), root(row)
            parent[max(a, b)] = min(a, b)
    return [root(row) for row in range(count)]


def units_of(digests: Sequence[str], groups: Sequence[str | None] = ()) -> tuple[int, ...]:
    """What must not be on both sides of a split, numbered: a picture with its copies, a group, or what these link.

    Args:
        digests: of each image's content.
        groups: of each image, or empty where there are none.

    Returns:
        For each image the smallest row number of what it belongs to; images on their own have their own.

    >>> units_of(["a", "b", "a", "c", "d"], ["hive 1", "hive 2", None, "hive 1", "hive 3"])
    (0, 1, 0, 0, 4)
    """
    return tuple(joined(len(digests), [*exact_copies(digests), *grouped(groups)]))
