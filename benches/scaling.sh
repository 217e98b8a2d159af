#!/usr/bin/env bash
# The model of `limbeck bench scaling` beside measured steps: two hosts, network namespaces of this
# machine joined by a link whose rate is limited, with one thread each. Writes a JSON file for each
# net and rate to the folder that is named. Needs Open MPI, root, and a program with --features mpi:
#
#     cargo build --release --features mpi && benches/scaling.sh results/scaling
set -euo pipefail
out=$1
program=${LIMBECK:-target/release/limbeck}
mkdir -p "$out"
hosts=(lbkscale0 lbkscale1)
agent=$(mktemp)
remove() {
    for host in "${hosts[@]}"; do
        ip netns del "$host" 2> /dev/null || true
        ip link del "v$host" 2> /dev/null || true
    done
    ip link del lbkscale 2> /dev/null || true
    rm -rf "$agent" "$agent.hosts" "$agent.tmp"
}
trap remove EXIT

ip link add lbkscale type bridge
ip addr add 10.78.78.254/24 dev lbkscale
ip link set lbkscale up
for i in 0 1; do
    host=${hosts[$i]}
    ip netns add "$host"
    ip link add "v$host" type veth peer name eth0 netns "$host"
    ip link set "v$host" master lbkscale
    ip link set "v$host" up
    ip -n "$host" addr add "10.78.78.$((i + 1))/24" dev eth0
    ip -n "$host" link set eth0 up
    ip -n "$host" link set lo up
done
# What mpirun calls in the place of ssh: AGENT [OPTION …] HOST COMMAND …. A host has a name and
# temporary files of its own: under one name the ranks' daemons take each other's.
cat > "$agent" << 'END'
#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
host=lbkscale$((${1##*.} - 1))
shift
export TMPDIR="$0.tmp/$host"
mkdir -p "$TMPDIR"
exec ip netns exec "$host" unshare --uts sh -c "hostname $host; $*"
END
chmod +x "$agent"
printf '10.78.78.%d slots=1\n' 1 2 > "$agent.hosts"

measure() { # RATE NET BATCH NAME
    for host in "${hosts[@]}"; do
        ip netns exec "$host" tc qdisc del dev eth0 root 2> /dev/null || true
        if [ "$1" != none ]; then
            ip netns exec "$host" tc qdisc add dev eth0 root tbf rate "$1" burst 512kb latency 100ms
        fi
    done
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun -n 2 --bind-to none \
        --hostfile "$agent.hosts" --mca plm rsh --mca plm_rsh_agent "$agent" \
        --mca orte_keep_fqdn_hostnames 1 --mca pml ob1 --mca btl tcp,self \
        --mca btl_tcp_if_include 10.78.78.0/24 --mca oob_tcp_if_include 10.78.78.0/24 \
        "$program" --threads 1 --json bench scaling --net "$2" --batch "$3" > "$out/$4.json"
}

# What it all ran on.
{
    printf '{"date": "%s", "mpi": "%s", "command": "benches/scaling.sh %s", "machine": ' \
        "$(date --utc +%FT%TZ)" "$(mpirun --version | head -1)" "$out"
    "$program" info --json
    printf '}\n'
} > "$out/manifest.json"

acoustic=1040-2560-2560-2560-2560-2560-2560-2560-2560-14000
measure none 784-1200-1200-10 128 teacher-link-unlimited
measure 10gbit 784-1200-1200-10 128 teacher-link-10-gbit
measure 1gbit 784-1200-1200-10 128 teacher-link-1-gbit
measure 10gbit "$acoustic" 128 acoustic-link-10-gbit

# The predictions for a whole node: all cores, no other rank beside it.
"$program" --json bench scaling --net 784-1200-1200-10 --batch 128 > "$out/teacher.json"
"$program" --json bench scaling --net 784-1200-1200-10 --batch 512 > "$out/teacher-batch-512.json"
"$program" --json bench scaling --net "$acoustic" --batch 128 > "$out/acoustic.json"
"$program" --json bench scaling --net "$acoustic" --batch 512 > "$out/acoustic-batch-512.json"
