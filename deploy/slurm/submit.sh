#!/bin/bash
# Runs MagnaTagATune on a Slurm cluster: extraction and alignment, then all methods and seeds in
# parallel, then the table. Run it on a login node, from any folder:
#
#   FEATREG_WORK=/scratch/$USER/featreg FEATREG_DATA=/data/music deploy/slurm/submit.sh
#
# FEATREG_RUN is a prefix of every command, for featreg in a container. The container is read-only:
# /cache, for weights and compiled kernels, is a folder outside. docs/deploy.md describes how to
# build the .sif file and download the weights.
#
#   FEATREG_RUN="apptainer exec --nv --bind /scratch,/data,$CACHE:/cache /scratch/$USER/featreg.sif"

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${FEATREG_WORK:?names the working folder, on a disk that every node sees}"
: "${FEATREG_DATA:?names the folder that holds the folder mtat, on such a disk too}"
export FEATREG_WORK FEATREG_DATA FEATREG_RUN="${FEATREG_RUN:-}"

after() {  # remove jobs whose dependencies failed, which would wait forever
    sbatch --parsable --kill-on-invalid-dep=yes --dependency="afterok:$1" "$here/$2"
}

extracted=$(sbatch --parsable "$here/extract.sbatch")
trained=$(after "$extracted" train.sbatch)
compared=$(after "$trained" compare.sbatch)
echo "extract and align $extracted, train $trained, compare $compared"
