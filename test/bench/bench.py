"""scripts/bench WORK [DIRECTORY]: see there. Progress goes to standard error."""
import signal
import sys

import allocations
import capacity
import connections
import ends
import instructions
import masters
import race
import publish
import report
import scale
import sessions
import users

# name -> what runs it and tells the report; `all` runs them in this order
WORKS = {
    "auth": race.auth,
    "login": race.login,
    "mixed": race.mixed,
    "connections": connections.connections,
    "scale": scale.scale,
    "overload": connections.overload,
    "slow": connections.slow,
    "limit": connections.limit,
    "revoke": sessions.revoke,
    "ends": ends.ends,
    "memory": sessions.memory,
    "allocations": allocations.allocations,
    "instructions": instructions.instructions,
    "users": users.users,
    "capacity": capacity.capacity,
    "masters": masters.masters,
}


def main(argv):
    if len(argv) not in (2, 3) or argv[1] not in (*WORKS, "all", "publish"):
        raise SystemExit(f"usage: scripts/bench {'|'.join(WORKS)}|all|publish [DIRECTORY]")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    if argv[1] == "publish":
        failed = publish.publish(*argv[2:])
    else:
        result = report.Report(argv[1])
        for work in WORKS if argv[1] == "all" else [argv[1]]:
            WORKS[work](result)
        if len(argv) == 3:
            result.keep(argv[2])
        failed = result.failed
    if failed:
        sys.exit(f"bench: {'; '.join(failed)}")


main(sys.argv)
