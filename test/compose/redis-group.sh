# A Redis that fails over, in one container of the local stack.
#
#   sh redis-group.sh sentinel PASSWORD_FILE   a master at port 6379, replicas at 6380 and 6381, sentinels at 26379 to 26381
#   sh redis-group.sh cluster PASSWORD_FILE    three masters with two replicas each, at 6379 to 6387
#   sh redis-group.sh healthy KIND PASSWORD_FILE
#
# Two replicas for each master, as docs/redis.md says: with one, nobody could confirm a logout while
# the dead server is away, and it would be answered 503.
# A server that dies is missed after DOWN_MS, and comes back after BACK_S: later than another is
# elected, else it would be master still. It is one container because servers know each other by address, and containers have
# other addresses each time. Nothing outlives the container.
set -eu

BACK_S=10
DOWN_MS=${REDIS_GROUP_DOWN_MS:-2000}
ADDRESS=${REDIS_GROUP_ADDRESS:-}
for each in ${ADDRESS:-$(hostname -i)}; do
	case $each in *:*) ;; *) ADDRESS=$each ;; esac
done
keepers=

ask() { # port, command
	port=$1
	shift
	redis-cli -h "$ADDRESS" -p "$port" "$@" 2>/dev/null
}

until_it_is() { # what, command: at most a minute
	what=$1
	shift
	for _ in $(seq 300); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.2
	done
	echo "redis-group: $what: not within a minute" >&2
	exit 1
}

keep() { # a command that becomes its program: runs it, and again some time after it ended
	(
		trap 'kill $child 2>/dev/null; wait; exit 0' TERM
		while :; do
			"$@" &
			child=$!
			wait $child || :
			sleep $BACK_S &
			child=$!
			wait $child || :
		done
	) &
	keepers="$keepers $!"
}

server() { # port, more arguments
	port=$1
	shift
	mkdir -p "$dir/$port"
	exec redis-server --port "$port" --bind "$ADDRESS" --dir "$dir/$port" --save '' --appendonly yes \
		--maxmemory-policy noeviction --requirepass "$REDISCLI_AUTH" --masterauth "$REDISCLI_AUTH" \
		--replica-announce-ip "$ADDRESS" --repl-diskless-sync-delay 0 "$@"
}

member() { # port: master or replica, as the sentinels say by now
	master=$(ask 26379 sentinel get-master-addr-by-name mymaster | sed -n 2p) || :
	if [ "${master:-6379}" = "$1" ]; then server "$1"; fi
	server "$1" --replicaof "$ADDRESS ${master:-6379}"
}

# A split vote is repeated after twice the failover-timeout: that must be before BACK_S.
sentinel() { # port
	mkdir -p "$dir/$1"
	[ -e "$dir/$1/sentinel.conf" ] || cat >"$dir/$1/sentinel.conf" <<CONF
port $1
bind $ADDRESS
dir $dir/$1
sentinel announce-ip $ADDRESS
sentinel monitor mymaster $ADDRESS 6379 2
sentinel auth-pass mymaster $REDISCLI_AUTH
sentinel down-after-milliseconds mymaster $DOWN_MS
sentinel failover-timeout mymaster 1500
CONF
	exec redis-server "$dir/$1/sentinel.conf" --sentinel
}

node() { # port
	server "$1" --cluster-enabled yes --cluster-node-timeout "$DOWN_MS" --cluster-require-full-coverage no \
		--cluster-announce-ip "$ADDRESS"
}

all_answer() { # ports
	for each in "$@"; do ask "$each" ping | grep -q PONG || return 1; done
}

healthy() {
	case $1 in
	sentinel)
		for each in 26379 26380 26381; do
			ask $each info sentinel | grep -q 'status=ok,.*slaves=2,sentinels=3' || return 1
		done
		;;
	cluster)
		ask 6379 cluster info | grep -q cluster_state:ok &&
			[ "$(ask 6379 cluster nodes | grep -c 'slave [0-9a-f]\{40\} .* connected')" = 6 ]
		;;
	esac
}

start_sentinel() {
	for port in 6379 6380 6381; do keep member $port; done
	until_it_is "three servers answer" all_answer 6379 6380 6381
	for port in 26379 26380 26381; do keep sentinel $port; done
}

start_cluster() {
	ports='6379 6380 6381 6382 6383 6384 6385 6386 6387'
	hosts=
	for port in $ports; do
		keep node "$port"
		hosts="$hosts $ADDRESS:$port"
	done
	# shellcheck disable=SC2086
	until_it_is "nine servers answer" all_answer $ports
	# shellcheck disable=SC2086
	redis-cli --cluster create $hosts --cluster-replicas 2 --cluster-yes
}

verb=$1
[ "$verb" != healthy ] || shift
kind=$1
REDISCLI_AUTH=$(cat "$2")
export REDISCLI_AUTH="${REDISCLI_AUTH:?the file redis_password is empty}"
if [ "$verb" = healthy ]; then
	healthy "$kind"
	exit
fi
dir=$(mktemp -d)
trap 'kill $keepers; wait; rm -rf "$dir"; exit 0' INT TERM
"start_$kind"
wait
