"""scripts/bench WORK [DIRECTORY]: see there. Progress goes to standard error."""
import signal
import sys

import allocations
import capacity
import connections
import instructions
import race
import report
import sessions
import users

# name -> what runs it and tells the report; `all` runs them in this order
WORKS = {
    "auth": race.auth,
    "login": race.login,
    "mixed": race.mixed,
    "connections": connections.connections,
    "overload": connections.overload,
    "slow": connections.slow,
    "limit": connections.limit,
    "revoke": sessions.revoke,
    "memory": sessions.memory,
    "allocations": allocations.allocations,
    "instructions": instructions.instructions,
    "users": users.users,
    "capacity": capacity.capacity,
}


def main(argv):
    if len(argv) not in (2, 3) or argv[1] not in (*WORKS, "all"):
        raise SystemExit(f"usage: scripts/bench {'|'.join(WORKS)}|all [DIRECTORY]")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    result = report.Report(argv[1])
    for work in WORKS if argv[1] == "all" else [argv[1]]:
        WORKS[work](result)
    if len(argv) == 3:
        result.keep(argv[2])


main(sys.argv)
