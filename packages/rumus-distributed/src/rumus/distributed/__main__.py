"""`python -m rumus.distributed -n 4 script.py ...`: start a script on several ranks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rumus.distributed.errors import RankError
from rumus.distributed.launcher import Job, launch


def parsed(arguments: Sequence[str]) -> Job:
    """Return the job described by a command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rumus.distributed",
        description="Start a script on several ranks, with the MPI of this environment.",
    )
    parser.add_argument("-n", type=int, required=True, metavar="RANKS", help="of all hosts")
    parser.add_argument("--hosts", default="", help="machines, as node1,node2: each gets as many")
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    hosts = [host for host in given.hosts.split(",") if host]
    return Job(given.n, given.script, given.arguments, hosts)


def main(arguments: Sequence[str]) -> int:
    """Start the job; return its exit code."""
    try:
        return launch(parsed(arguments))
    except (RankError, ValueError) as error:
        print(f"rumus.distributed: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
