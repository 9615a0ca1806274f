"""The model that listings are compared with."""


def expected_entries(keys, prefix="", delimiter=None):
    """Keys under the prefix and, in place of those with the delimiter after it, their common prefixes."""
    found = []
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix):
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        entry = key if cut < 0 else key[: cut + len(delimiter)]
        if cut < 0 or entry not in found:
            found.append(entry)
    return sorted(found, key=str.encode)
