"""The report: figures beside the peers' and the aims, as Markdown."""

import datetime
import os
import pathlib
import platform

# Above this many cores in use by others, a row is marked: it may be worse than the server is.
FOREIGN_CORES = 0.15
PEAK_RSS_AIM_MB = 64


class Judgement:
    """One server's cell beside the peers' and the aims."""

    def __init__(self, run, row, server):
        cells = run.results.get(row.name, {})
        self.seen = cells.get(server.name, {})
        self.aims, self.missed, self.ratio = [], [], None
        if "ops" not in self.seen or server.is_peer:
            return
        rates = [cells.get(peer.name, {}).get("ops_per_s", 0) for peer in run.servers if peer.is_peer]
        if max(rates, default=0) > 0:
            self.ratio = self.seen["ops_per_s"] / max(rates)
        if not server.has_aims:
            return
        wanted = row.ratio_aim.get(server.name)
        if wanted is not None:
            self.require(f"{wanted}x", "ratio", self.ratio is not None and self.ratio >= wanted)
        if row.cpu_aim is not None:
            unit = "s/GB" if row.per_gigabyte else "ms"
            met = cpu(row, self.seen) is not None and cpu(row, self.seen) <= row.cpu_aim
            self.require(f"CPU {row.cpu_aim} {unit}", "CPU", met)
        if row.sends_no_body:
            self.require("no body sent", "body", self.seen["sent_bytes"] == 0)
        if row.rate_like is not None:
            before = run.results.get(row.rate_like.name, {}).get(server.name, {}).get("ops_per_s", 0)
            met = before > 0 and self.seen["ops_per_s"] >= 0.9 * before
            self.require("rate at least 0.9 of the smaller bucket's", "growth", met)
        peak = self.seen["server_peak_rss_mb"]
        met = peak is not None and peak <= PEAK_RSS_AIM_MB
        self.require(f"RSS {PEAK_RSS_AIM_MB} MB", "RSS", met)

    def require(self, aim, short, met):
        self.aims.append(aim)
        if not met:
            self.missed.append(short)

    def verdict(self):
        if not self.aims:
            return ""
        return "missed: " + ", ".join(self.missed) if self.missed else "met"


def cpu(row, seen):
    """Server CPU: seconds per 10^9 bytes, or milliseconds per operation."""
    if not seen.get("ops"):
        return None
    if row.per_gigabyte:
        return seen["server_cpu_s"] / (seen["ops"] * row.size / 1e9)
    return seen["server_cpu_s"] / seen["ops"] * 1e3


def number(value, digits=3):
    if value is None:
        return "-"
    if value and abs(value) < 1:
        return f"{value:.{digits}f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def table(run):
    """All rows, and those that miss an aim."""
    head = "| run | server | op/s | MB/s | p50 / p99 ms | server CPU | peak RSS MB | errors | to better peer | aim | result |"
    lines = [head, "|---|---|---:|---:|---:|---:|---:|---:|---:|---|---|"]
    missed = []
    for row in run.rows():
        for server in run.servers:
            if row.name not in run.results or server.name not in run.results[row.name]:
                continue
            judged = Judgement(run, row, server)
            seen = judged.seen
            if "failed" in seen:
                empty = " | " * 8
                lines.append(f"| {row.name} | {server.name} | failed{empty}|")
                missed.append(f"- {row.name}, {server.name}: failed, {seen['failed'][:200]}")
                continue
            busy = " \\*" if seen["other_cpu"] > FOREIGN_CORES else ""
            ratio = "" if judged.ratio is None else f"{judged.ratio:.2f}x"
            rate = number(seen["mb_per_s"]) if seen["mb_per_s"] else "-"
            unit = "s/GB" if row.per_gigabyte else "ms/op"
            cells = [
                row.name,
                server.name + busy,
                number(seen["ops_per_s"]),
                rate,
                f"{number(seen['p50_ms'], 2)} / {number(seen['p99_ms'], 2)}",
                f"{number(cpu(row, seen))} {unit}",
                number(seen["server_peak_rss_mb"]),
                str(seen["errors"]),
                ratio,
                "; ".join(judged.aims),
                judged.verdict(),
            ]
            lines.append("| " + " | ".join(cells) + " |")
            if judged.missed:
                missed.append(f"- {row.name}, {server.name}: {', '.join(judged.missed)}")
    return lines, missed


def first_errors(run):
    lines = []
    for name, cells in run.results.items():
        for server, seen in cells.items():
            if seen.get("errors"):
                excerpt = " ".join(seen["first_error"].split())[:160]
                excerpt = "".join(c for c in excerpt if c.isprintable()).replace("`", "'")
                lines.append(f"- {name}, {server}: {seen['errors']}, the first: `{excerpt}`")
    return lines


def processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def file_system(directory):
    """The type of the file system the data is on: a memory file system would void every sync."""
    best = ("", "unknown")
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        inside = mount == "/" or f"{directory}/".startswith(f"{mount}/")
        if inside and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1]


def report(run, took):
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    now = datetime.datetime.now(datetime.timezone.utc)
    peers = [f"| {s.name} | {s.version()} | {s.syncs} |" for s in run.servers]
    rows, missed = table(run)
    errors = run.failures + first_errors(run)
    return "\n".join(
        [
            "# Benchmark results",
            "",
            "Written by `benches/run` from one run; not edited.",
            "",
            f"- {now:%Y-%m-%d %H:%M} UTC, {took / 60:.0f} minutes, {run.settings.seconds:g} s a row.",
            f"- {os.cpu_count()} cores ({processor()}), {memory:.0f} GB of memory,",
            f"  Linux {platform.release()}, data on {file_system(run.work)}.",
            "- Client and server share the cores: loopback, HTTP/1.1 keep-alive, path style, SigV4 with",
            "  `UNSIGNED-PAYLOAD`; cN is N connections of one single-threaded client process.",
            "- Every content is unique pseudo-random bytes, except PUT-DUP and PUT-INSTANT: there, one",
            "  content that the server already has under new keys. PUT-INSTANT signs the body's SHA-256 and",
            "  sends `Expect: 100-continue`. MULTIPART has 8 MiB parts, four in flight; an operation is a",
            "  whole object. LIST walks a bucket of 200 keys a directory, max-keys 1000; an operation is",
            "  a page, with `delimiter=/` the one page of all directories.",
            "- GET and HEAD choose among stored objects of which all fit the page cache; DELETE removes what",
            "  the PUT above it has put. Rows of few operations (large objects, large DELETE) are coarse, and",
            "  CPU time is counted in steps of 10 ms.",
            "- Each server starts on an empty directory for each size and for LIST; the disk is synced before",
            "  each row; peak RSS is reset before each row to what is then resident.",
            "- 1 MB is 10^6 bytes, 1 MiB 2^20. Bytes of every 16th GET and of some objects after PUTs were",
            "  compared; a difference would count as an error.",
            f"- \\* others used more than {FOREIGN_CORES} core during the row (the kernel's writeback counts).",
            "- *To better peer*: operations a second over those of the faster peer in this same run.",
            "- *osproxy encrypted* encrypts every object (SSE-S3, the bucket's default), *osproxy postgres* has its",
            "  namespace in a PostgreSQL on the same cores and disk, whose CPU and memory its rows leave out. Both are",
            "  durable, the peers do neither, and there are no aims for them.",
            "",
            "| server | version | data synced before the answer? |",
            "|---|---|---|",
            *peers,
            "",
            "## Aims missed and rows failed",
            "",
            *(missed or ["None."]),
            "",
            "## Errors",
            "",
            *(errors or ["None."]),
            "",
            "## Table",
            "",
            *rows,
            "",
        ]
    )
