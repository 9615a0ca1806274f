"""The rows of the table: what is measured, how much of it, and the aims."""

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
KINDS = ["PUT", "PUT-DUP", "PUT-INSTANT", "MULTIPART", "GET", "HEAD", "DELETE", "LIST"]


class Row:
    """One line of the plan: a workload whose servers are compared."""

    def __init__(self, kind, size, concurrency, detail=""):
        self.kind = kind
        self.size = size
        self.concurrency = concurrency
        what = detail or size_name(size)
        self.name = f"{kind} {what} c{concurrency}"
        # Ratio to the better peer, by durability where it differs.
        self.ratio_aim = {}
        self.cpu_aim = None
        self.sends_no_body = False
        self.rate_like = None

    def aim(self, durable, relaxed=None):
        self.ratio_aim = {"osproxy durable": durable, "osproxy relaxed": relaxed or durable}
        return self

    @property
    def per_gigabyte(self):
        return self.size >= MIB and self.kind not in ("HEAD", "DELETE", "LIST")


def size_name(size):
    for unit, bytes_in_unit in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= bytes_in_unit:
            return f"{size // bytes_in_unit}{unit}"
    return f"{size}B"


class Objects:
    """PUT, GET, HEAD and DELETE of one size."""

    seed = 100

    def __init__(self, settings, size, stored):
        self.settings = settings
        self.size = size
        self.stored = stored
        self.rows = {}
        for concurrency in (1, 4, 16, 64) if size > MIB else (1, 16, 64):
            for kind in ("PUT", "GET", "HEAD", "DELETE"):
                if kind == "PUT" or concurrency != 4:
                    self.add(kind, concurrency)
        if size < MIB:
            self.add("PUT-DUP", 16)
        if size > MIB:
            self.add("PUT-DUP", 1)
            self.add("PUT-INSTANT", 1).sends_no_body = True

    def add(self, kind, concurrency):
        row = Row(kind, self.size, concurrency)
        self.rows[kind, concurrency] = row
        small, large = self.size < MIB, self.size > MIB
        if kind == "GET" and small and concurrency == 16:
            row.aim(3.0).cpu_aim = 0.06
        elif kind == "HEAD" and small and concurrency == 16:
            row.aim(2.0)
        elif kind == "GET" and not small:
            row.aim(1.6 if large else 1.7)
        elif kind == "PUT" and small and concurrency == 16:
            row.aim(1.5, 2.5)
        elif kind == "PUT" and not small:
            row.cpu_aim = 3.0
            if not large:
                row.aim(1.0, 1.2)
            elif concurrency in (1, 4):
                row.aim(1.4 if concurrency == 1 else 1.2)
        elif kind == "PUT-DUP":
            row.aim(1.5)
        return row

    def measure(self, cells):
        size, seconds = {"size": self.size}, {"seconds": self.settings.seconds}
        reads = {**size, "keys": self.stored, "seed": self.seed, "prefix": "get/"}
        if cells.wants(row for (kind, _), row in self.rows.items() if kind in ("GET", "HEAD")):
            cells.fill({**size, "count": self.stored, "seed": self.seed, "prefix": "get/"})
        for (kind, concurrency), row in self.rows.items():
            many = {"concurrency": concurrency}
            if kind in ("GET", "HEAD"):
                cells.measure(row, kind.lower(), {**reads, **many, **seconds})
            elif kind == "PUT":
                self.put_and_delete(cells, row, self.rows.get(("DELETE", concurrency)))
            elif kind == "PUT-DUP" or (kind == "PUT-INSTANT" and not cells.server.is_peer):
                prefix = {"prefix": f"{kind.lower()}/", "seed": self.seed + 90}
                # The two share no content: the first instant upload must not profit from the other.
                prefix["seed"] += kind == "PUT-INSTANT"
                options = {**size, **many, **prefix, **self.put_bounds(concurrency)}
                cells.measure(row, kind.lower(), options)

    def put_and_delete(self, cells, put, delete):
        """The objects deleted are those just put; without a row for it, it only frees the disk."""
        if not cells.wants([put] + [delete] * (delete is not None)):
            return
        concurrency = put.concurrency
        many = {"size": self.size, "concurrency": concurrency, "prefix": f"put{concurrency}/"}
        bounds = self.put_bounds(concurrency)
        bounds["seed"] = self.seed + concurrency
        seen = cells.measure(put, "put", {**many, **bounds}, needed=True)
        made = seen.get("ops", 0) + seen.get("errors", 0)
        if made == 0:
            return
        if delete is None:
            cells.unlisted("delete", {**many, "count": made})
        else:
            bounds = {"count": made, "seconds": self.settings.seconds}
            cells.measure(delete, "delete", {**many, **bounds})

    def put_bounds(self, concurrency):
        if self.size <= MIB:
            # The count keeps a fast server from filling the disk.
            return {"seconds": self.settings.seconds, "count": 4000 if self.size == MIB else 10**6}
        return {"count": self.settings.large_puts[concurrency], "seconds": 90}


class Multipart:
    """Whole objects in parts."""

    def __init__(self, settings):
        self.settings = settings
        self.row = Row("MULTIPART", settings.multipart, 4).aim(1.6)
        self.row.cpu_aim = 3.0
        self.rows = {"": self.row}

    def measure(self, cells):
        options = {"size": self.row.size, "part_size": 8 * MIB, "concurrency": 4, "seed": 300}
        bounds = {"count": self.settings.multipart_count, "seconds": 90, "prefix": "multipart/"}
        cells.measure(self.row, "multipart", {**options, **bounds})


class List:
    """Pages of 1000 keys, from a smaller and then a larger bucket."""

    def __init__(self, settings):
        self.few, self.many = settings.list_few, settings.list_many
        self.settings = settings
        self.first = Row("LIST", 0, 1, f"1000 of {self.few:,}").aim(3.0)
        self.second = Row("LIST", 0, 1, f"1000 of {self.many:,}").aim(3.0)
        self.second.rate_like = self.first
        self.grouped = Row("LIST", 0, 1, f"1000 of {self.many:,} delimiter")
        self.rows = {row.name: row for row in (self.first, self.second, self.grouped)}

    def measure(self, cells):
        bucket = {"bucket": "list", "seconds": self.settings.seconds}
        made = {"bucket": "list", "size": 128, "seed": 400}
        cells.fill({**made, "create_bucket": True, "count": self.few})
        cells.measure(self.first, "list", {**bucket, "keys": self.few})
        if cells.wants([self.second, self.grouped]):
            cells.fill({**made, "first": self.few, "count": self.many - self.few})
            cells.measure(self.second, "list", {**bucket, "keys": self.many})
            options = {**bucket, "keys": self.many, "delimiter": True}
            cells.measure(self.grouped, "list", options)


class Settings:
    """Sizes and times, whole or quick."""

    def __init__(self, arguments):
        quick = arguments.quick
        self.seconds = arguments.seconds or (0.5 if quick else 3.0)
        self.large = 16 * MIB if quick else 64 * MIB
        # Large PUTs by connections: at 200 MB/s, 3 to 20 seconds of them in a whole run.
        self.large_puts = {1: 12, 4: 16, 16: 32, 64: 64}
        if quick:
            self.large_puts = {1: 4, 4: 8, 16: 16, 64: 64}
        self.multipart = 256 * MIB if quick else GIB
        self.multipart_count = 1 if quick else 2
        self.list_many = arguments.list_keys or (10_000 if quick else 100_000)
        self.list_few = min(2_000 if quick else 20_000, self.list_many - 1)

    def groups(self):
        """Each group begins on an empty server."""
        yield [Objects(self, 4 * KIB, 1000)]
        yield [Objects(self, MIB, 200)]
        yield [Objects(self, self.large, 8), Multipart(self)]
        yield [List(self)]
