#!/bin/bash
# MagnaTagATune on a Slurm cluster: extract and align, then every method and seed at once, then
# the table. Run it on a login node, from any folder:
#
#   FEATREG_WORK=/scratch/$USER/featreg FEATREG_DATA=/data/music deploy/slurm/submit.sh
#
# FEATREG_RUN is put before every command, where featreg is not installed but in a container. The
# container cannot be written to: /cache, for weights and compiled kernels, is a folder outside.
# docs/deploy.md says how the .sif is made and the weights fetched.
#
#   FEATREG_RUN="apptainer exec --nv --bind /scratch,/data,$CACHE:/cache /scratch/$USER/featreg.sif"

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${FEATREG_WORK:?names the working folder, on a disk that every node sees}"
: "${FEATREG_DATA:?names the folder that holds the folder mtat, on such a disk too}"
export FEATREG_WORK FEATREG_DATA FEATREG_RUN="${FEATREG_RUN:-}"

after() {  # a job that can never start is removed, and does not wait for good
    sbatch --parsable --kill-on-invalid-dep=yes --dependency="afterok:$1" "$here/$2"
}

extracted=$(sbatch --parsable "$here/extract.sbatch")
trained=$(after "$extracted" train.sbatch)
compared=$(after "$trained" compare.sbatch)
echo "extract and align $extracted, train $trained, compare $compared"
