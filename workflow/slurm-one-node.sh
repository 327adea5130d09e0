#!/usr/bin/env bash
# A Slurm of one node, this machine, for trying cluster workflows: no root, cgroups,
# database or systemd needed. All that it writes is in FOLDER, and jobs run as the
# user who starts it.
#
#   eval "$(slurm-one-node.sh start FOLDER)"
#   slurm-one-node.sh stop FOLDER
#
# SLURMCTLD_PORT and SLURMD_PORT choose other ports than Slurm's own 6817 and 6818.
set -euo pipefail
PATH+=:/usr/sbin # where the daemons are; a plain user's PATH may lack it

die() {
    echo "slurm-one-node: $2" >&2
    exit "$1"
}

need() {
    command -v "$1" >/dev/null || die 2 "no program $1: install the Debian package $2"
}

# The process id of one of our daemons, if it runs. A pid file may outlive its process,
# and the number may then belong to anyone, so the command line has to name FOLDER.
pid_of() {
    local pid
    pid=$(cat "$folder/$1.pid" 2>/dev/null) || return 1
    grep -qF -- "$folder/" "/proc/$pid/cmdline" 2>/dev/null || return 1
    echo "$pid"
}

all_run() {
    pid_of munged && pid_of slurmctld && pid_of slurmd
} >/dev/null

wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.2
    done
}

write_conf() {
    local cpus memory
    cpus=$(nproc)
    memory=$(awk '/^MemTotal:/ {print int($2 / 1024)}' /proc/meminfo)
    # JobRequeue=0: whoever submitted a job decides on a second attempt, not Slurm.
    # MinJobAge: without a database, squeue is the only one to ask how a job ended.
    # DefMemPerCPU: without it a job that names no memory takes all of the node's.
    # EnforcePartLimits: a job that asks for more than the node has is refused, not queued.
    # config_overrides: in a container the machine may look larger than it is.
    cat >"$folder/slurm.conf" <<CONF
ClusterName=one-node
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=${SLURMCTLD_PORT:-6817}
SlurmdPort=${SLURMD_PORT:-6818}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdPidFile=$folder/slurmd.pid
SlurmdLogFile=$folder/slurmd.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog=$folder/task-prolog
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0
EnforcePartLimits=ALL
DefMemPerCPU=$((memory / cpus))
JobRequeue=0
MinJobAge=3600
KillWait=5
MessageTimeout=30
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=$node NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
}

# Snakemake's plugin drops SLURM_CONF from the environment of the srun inside a job,
# which then finds no Slurm, but it keeps PATH.
write_srun() {
    local srun
    srun=$(command -v srun)
    mkdir -p "$folder/bin"
    cat >"$folder/bin/srun" <<SRUN
#!/bin/sh
SLURM_CONF=$folder/slurm.conf exec $srun "\$@"
SRUN
    cat >"$folder/task-prolog" <<PROLOG
#!/bin/sh
echo "export PATH=$folder/bin:\$PATH"
PROLOG
    chmod +x "$folder/bin/srun" "$folder/task-prolog"
}

node_is_idle() {
    [[ $(timeout 5 sinfo -h -o %T 2>/dev/null) == idle ]]
}

# True as soon as there is nothing more to wait for.
idle_or_dead() {
    node_is_idle || ! all_run
}

no_jobs() {
    [[ -z $(timeout 5 squeue -h 2>/dev/null) ]]
}

not_running() {
    ! pid_of "$1" >/dev/null
}

end_daemon() {
    local pid
    pid=$(pid_of "$1") || return 0
    kill "$pid" 2>/dev/null || true
    wait_until 10 not_running "$1" || kill -KILL "$pid" 2>/dev/null || true
}

# Processes of our jobs. They are told by their environment, as a job that has lost its
# slurmstepd is unknown to Slurm.
job_pids() {
    local proc
    for proc in /proc/[0-9]*; do
        grep -qzxF "SLURM_CONF=$SLURM_CONF" "$proc/environ" || continue
        if [[ $(cat "$proc/comm") == slurmstepd ]] || grep -qz '^SLURM_JOB_ID=' "$proc/environ"; then
            echo "${proc#/proc/}"
        fi
    done
} 2>/dev/null

kill_job_pids() {
    local pids
    pids=$(job_pids)
    [[ -n $pids ]] || return 0
    xargs kill -KILL <<<"$pids" 2>/dev/null
    return 1
}

# Jobs are no children of slurmd and would outlive it.
end_jobs() {
    local jobs
    if pid_of slurmctld >/dev/null && jobs=$(timeout 5 squeue -h -o %A 2>/dev/null); then
        [[ -z $jobs ]] || xargs scancel <<<"$jobs" || true
        wait_until 20 no_jobs || true
    fi
    wait_until 5 kill_job_pids || true
}

stop_all() {
    end_jobs
    end_daemon slurmd
    end_daemon slurmctld
    end_daemon munged
}

fail() {
    echo "slurm-one-node: $1" >&2
    tail -n 15 "$folder"/*.log >&2 || true
    stop_all
    exit 1
}

start() {
    need munged munge
    need slurmctld slurmctld
    need slurmd slurmd
    need sinfo slurm-client
    # A Unix socket's path, FOLDER/spool/NODE_JOB.STEP the longest, ends at 107 characters.
    ((${#folder} + ${#node} <= 80)) || die 1 "the path of $folder is too long"

    if all_run; then
        echo "slurm-one-node: it runs already in $folder" >&2
        echo "export SLURM_CONF=$folder/slurm.conf"
        return
    fi
    stop_all
    rm -f "$folder"/*.log
    mkdir -p "$folder/state" "$folder/spool"
    write_conf
    write_srun
    [[ -s $folder/munge.key ]] ||
        (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")

    # Output to a file: a daemon that kept ours would hold up "$(... start)".
    # --force: to munged, a private folder or a root who starts it are errors.
    {
        munged --force --num-threads=2 --socket="$folder/munge.socket" \
            --key-file="$folder/munge.key" --pid-file="$folder/munged.pid" \
            --seed-file="$folder/munge.seed" --log-file="$folder/munged.log" &&
            slurmctld -f "$SLURM_CONF" &&
            slurmd -f "$SLURM_CONF" -N "$node"
    } </dev/null >"$folder/start.log" 2>&1 || fail "a daemon did not start"

    wait_until 5 all_run || fail "a daemon ended at once"
    wait_until 30 idle_or_dead || true
    node_is_idle || fail "the node did not become idle"
    echo "export SLURM_CONF=$folder/slurm.conf"
}

[[ $# == 2 && $1 =~ ^(start|stop)$ ]] || die 2 "usage: slurm-one-node.sh start|stop FOLDER"
folder=$(realpath -m -- "$2")
user=$(id -un)
node=$(hostname -s)
export SLURM_CONF=$folder/slurm.conf
case $1 in
    start) start ;;
    stop) stop_all ;;
esac
