#!/bin/bash
# An example of a Slurm job. Copy it, adapt the lines marked with <-, then: sbatch docker/slurm.sh CASE.toml
#
# Without Slurm it runs the same thing on this machine: NTASKS=2 docker/slurm.sh CASE.toml

#SBATCH --job-name=fpsolve
#SBATCH --nodes=1                  # <- one problem seldom needs more: memory per task decides
#SBATCH --ntasks=16                # <- MPI ranks; some 20 000 to 100 000 unknowns per rank are efficient
#SBATCH --cpus-per-task=1          # fpsolve computes with ranks, not with threads
#SBATCH --mem-per-cpu=3G           # <- direct solvers in 3D need the most
#SBATCH --time=01:00:00            # <-
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append         # a job that was requeued keeps its log

set -eu

# How to reach FEniCSx on this cluster, one of: <-
#   module load fenicsx && source ~/fpsolve-venv/bin/activate     the site's module and pip install --editable
#   conda activate fpsolve                                        environment.yml
#   in=docker/run                                                 docker/run; one node only, because its
#                                                                 mpirun starts all ranks inside
# Do the first run on a login node: it downloads, which compute nodes often cannot.
in=${FPSOLVE_IN:-}

case_file=${1:-demos/double_well/case.toml}     # <-
[ $# -eq 0 ] || shift
ranks=${SLURM_NTASKS:-${NTASKS:-1}}
out=${FPSOLVE_OUT:-results/$(basename "$case_file" .toml)-${SLURM_JOB_ID:-local}}   # no job writes over another's

# one thread per rank: BLAS would otherwise start as many as there are cores, in each rank
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

# Forms are compiled on rank 0 into the JIT cache and loaded by all ranks, so the cache must be on a
# disk that all nodes see. Set it when $HOME is not: <-
#   export XDG_CACHE_HOME=/scratch/$USER/cache

# srun starts the ranks when the MPI library was built with the cluster's process manager; the mpirun
# of a private MPI (conda-forge, docker/run) works within one node.
if [ -n "${SLURM_JOB_ID:-}" ] && [ -z "$in" ] && [ "${FPSOLVE_LAUNCH:-srun}" = srun ]; then
  launch=(srun --ntasks="$ranks")
else
  launch=(mpirun -n "$ranks")
fi

# What ran must be readable in the log a year later.
echo "date       $(date -u +%Y-%m-%dT%H:%M:%SZ)"
echo "job        ${SLURM_JOB_ID:-none} on ${SLURM_JOB_NODELIST:-$(hostname)}"
echo "revision   $(git describe --always --dirty 2>/dev/null || echo unknown)"
echo "case       $case_file"
echo "output     $out"
echo "ranks      $ranks, threads per rank $OMP_NUM_THREADS"
echo "command    ${in:+$in }${launch[*]} fpsolve exit $case_file --out $out $*"
$in fpsolve info

# Further arguments are passed on, e.g. -- -ksp_monitor. exec: Slurm's signals reach the launcher,
# and its exit status is the job's (0 answered, 2 wrong input, 3 not converged, 4 no finite answer).
exec $in "${launch[@]}" fpsolve exit "$case_file" --out "$out" "$@"
