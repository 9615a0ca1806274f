"""Sizes and keys at which S3 implementations and clients tend to break."""

INLINE = 16 * 1024  # contents up to this size live in their row
PART = 8 * 1024 * 1024  # the clients' multipart chunk
MIN_PART = 5 * 1024 * 1024  # S3's smallest part but the last

SMALL_SIZES = [0, 1, INLINE - 1, INLINE, INLINE + 1]
CLIENT_SIZES = [*SMALL_SIZES, PART - 1, PART, PART + 1, 100 * 1024 * 1024]

# Named so that a failing test says which.
UNUSUAL_KEYS = {
    "spaces": "a b  c ",
    "plus": "a+b + c",
    "percent": "100%/%41%zz",
    "double slash": "a//b",
    "leading slash": "/a",
    "dot segments": "a/./b/../c",
    "only dots": "..",
    "unicode": "äöü/日本語/ключ",
    "emoji": "\U0001f98a/\U0001f600",
    "combining": "e\u0301 and \u00e9",
    "query": "a?b=c&d#e",
    "quotes": "a\"b'c`d",
    "xml": "a<b>&amp;c",
    "brackets": "a[0]{1}^|~",
    "backslash": "a\\b",
    "stars": "*?!$(),;:=@",
    "trailing slash": "folder/",
    "newline": "a\nb\tc",
    "1024 bytes": "k" * 1024,
    "1024 bytes of unicode": "ü" * 512,
}

# What every client can name, on its command line and as a file on disk.
CLIENT_KEYS = [
    "a b  c",
    "a+b + c",
    "100%/%41%zz",
    "äöü/日本語/ключ",
    "\U0001f98a.bin",
    "q?b=c&d#e",
    "x'y",
    "a&b;c=d@e",
    "deep/" + "n" * 200 + "/" + "m" * 200,
]
