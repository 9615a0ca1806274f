"""Moves between backends: begun by the command, and followed to their end."""

import json

from .wait import wait_until

ENDS = ("done", "ended")


def moves(server):
    """All moves, as the command tells of them."""
    return json.loads(server.command("move", "status", "--json").stdout)


def begin(server, *words, check=True):
    """Begins a move and answers what is told of it; without `check`, None where the command fails."""
    begun = server.command("move", *words, "--background", "--json", check=check)
    return json.loads(begun.stdout) if begun.returncode == 0 else None


def ended(server, id, deadline=400):
    """Waits for the end of a move, whichever it is, and answers what is told of it then."""
    return _ended(lambda: next(move for move in moves(server) if move["id"] == id), id, deadline)


def row(cluster, id):
    """What the database has of a move: for nodes of which any may be away."""
    [columns] = cluster.query(f"SELECT state, failed FROM moves WHERE id = {id}")
    state, failed = columns.split("\t")
    return {"state": state, "failed": int(failed)}


def ended_in_rows(cluster, id, deadline=200):
    """The same as `ended` by what the database has."""
    return _ended(lambda: row(cluster, id), id, deadline)


def _ended(look, id, deadline):
    def over():
        move = look()
        return move if move["state"] in ENDS else None

    return wait_until(over, deadline, f"the end of move {id}")
