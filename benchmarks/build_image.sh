#!/usr/bin/env bash
# Builds the Dockerfile where no registry of images can be reached, as root on Debian, and uses the image: the base is
# made of Debian sid's packages, which have the newest Python, and the builder is buildah.
#
#     apt-get install buildah debootstrap
#     benchmarks/build_image.sh FOLDER [OPTION OF buildah bud ...]    # sid is unpacked in FOLDER, once
set -euo pipefail
cd "$(dirname "$0")/.."
python=3.14
folder=$1
shift

if [ ! -x "$folder/usr/bin/python$python" ]; then
    debootstrap --variant=minbase --include="python$python,python$python-venv,ca-certificates" sid "$folder"
fi
ln -sf "/usr/bin/python$python" "$folder/usr/local/bin/python" # as in the official images
base=$(buildah from scratch)
buildah add --quiet "$base" "$folder" /
buildah commit --quiet --rm "$base" "docker.io/library/python:$python-slim"

buildah bud --isolation chroot --pull-never --build-arg "PYTHON=$python" --tag fbnetv3-zoo "$@" .

image=$(buildah from --pull-never fbnetv3-zoo)
trap 'buildah rm "$image" >/dev/null' EXIT
in_image() { buildah run --isolation chroot "$image" -- "$@"; }
echo "as user $(in_image id -u), in $(in_image pwd), $(in_image python --version):"
in_image fbnetv3 --version
in_image fbnetv3 export onnx fbnetv3_nano --pretrained
