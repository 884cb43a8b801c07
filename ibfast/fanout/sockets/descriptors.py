"""Descriptors of this process: each connection takes one, and the system permits only so many.

The rule of the file: the limit is raised where the process may do that, never beyond what is needed; what is missing is
said with its remedy, before the first connection comes.
"""

from __future__ import annotations

import sys

from ibfast.errors import ConfigError

__all__ = ["OTHERS", "connections_possible"]

OTHERS = 256
"""Descriptors for everything but a server's connections: files, the gateway, other sockets of the program."""


def connections_possible(wanted: int, refused: int) -> tuple[int, str]:
    """Raise the process's limit of descriptors for a server, and return how many connections it may have.

    Args:
        wanted: `security.max_connections`.
        refused: connections beyond those, which are there until they have had their answer.

    Returns:
        `wanted`, or what the limit permits if that is less; and a warning, "" if it is not less.

    Raises:
        ConfigError: the limit permits no connection at all.
    """
    if sys.platform == "win32":
        return wanted, ""
    import resource

    needed = wanted + refused + OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, raised), hard))
            soft = max(soft, raised)
        except (ValueError, OSError):
            pass  # some systems have a lower limit than they say
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted, ""
    possible = soft - refused - OTHERS
    remedy = f"raise the limit to {needed} (ulimit -n, LimitNOFILE of systemd)"
    told = f"security.max_connections={wanted} needs {needed} descriptors, and the system permits this process {soft}"
    if possible < 1:
        raise ConfigError(f"{told}, too few for any connection: {remedy}")
    return possible, f"{told}: {possible} connections are served; {remedy}, or set max_connections={possible}"
