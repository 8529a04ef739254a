#!/bin/sh
# Written by `machine`: keeps the agent running where there is no systemd.
# start  run the agent in the background and restart it when it ends (no-op when it runs)
# stop   end the supervisor and the agent; containers live on
# status exit 0 when the supervisor runs
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
self=/opt/machine/supervise
run=/run/machine
pidfile=$run/supervise.pid
child=$run/agent.pid
log=/var/log/machine-agent.log

alive() {  # PIDFILE WORD: the process runs, is no zombie, and is really ours
    pid=$(cat "$1" 2>/dev/null) || return 1
    [ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q "$2"
}

ended() {  # PIDFILE WORD TENTHS: wait until the process is gone
    n=0
    while alive "$1" "$2" && [ "$n" -lt "$3" ]; do
        sleep 0.1
        n=$((n + 1))
    done
    ! alive "$1" "$2"
}

case ${1:-start} in
start)
    mkdir -p -m 0700 "$run"
    alive "$pidfile" supervise && exit 0
    setsid /bin/sh $self loop </dev/null >>"$log" 2>&1 &
    ;;
loop)
    echo $$ >"$pidfile"
    agent=
    trap 'trap "" TERM; [ -n "$agent" ] && kill "$agent" 2>/dev/null; wait; rm -f "$pidfile" "$child"; exit 0' TERM INT
    while IFS= read -r line; do
        case $line in [A-Za-z_]*=*) export "${line?}" ;; esac
    done </etc/machine/environment
    ulimit -c 0
    ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -Hn)" 2>/dev/null
    while :; do
        [ "$(wc -c <"$log" 2>/dev/null || echo 0)" -gt 10485760 ] && : >"$log"
        @PYTHON@ -I /opt/machine/agent serve &
        agent=$!
        echo "$agent" >"$child"
        echo -500 >"/proc/$agent/oom_score_adj" 2>/dev/null
        wait "$agent"
        echo "machine: the agent ended with status $?; starting it again"
        sleep 1 &
        wait $!
    done
    ;;
stop)
    alive "$pidfile" supervise && kill "$(cat "$pidfile")" && ended "$pidfile" supervise 150
    alive "$child" /opt/machine/agent && kill -9 "$(cat "$child")"
    ended "$child" /opt/machine/agent 50
    ;;
restart)
    # The supervisor itself starts it again; without one, start both.
    alive "$pidfile" supervise || exec /bin/sh $self start
    alive "$child" /opt/machine/agent && kill "$(cat "$child")"
    ;;
status)
    alive "$pidfile" supervise
    ;;
esac
