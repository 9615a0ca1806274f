"""Folders of small files, and what is in a folder."""

import os

LONG_AGO = 1_600_000_000  # older than any upload, so that tools that compare times find nothing to do


def write_tree(folder, names):
    """Files whose content is their name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        os.utime(path, (LONG_AGO, LONG_AGO))
    return folder


def read_tree(folder):
    """{name: content} of all files below."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
