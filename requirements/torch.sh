#!/bin/sh
# Installs the in-process engine's parts, if a CPU build of torch can be had: on Linux the default build brings
# gigabytes of CUDA, so only the "+cpu" one is taken (from PyTorch's own CPU wheel index or a wheel folder that pip
# is configured for: PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS). Without it everything works but `engine: local`.
set -eu
python=$1
case "$(uname -s)" in
  Darwin) torch="torch==2.13.0" ;;
  *) torch="torch==2.13.0+cpu" ;;
esac
if "$python" -m pip --disable-pip-version-check --quiet install --no-deps "$torch" 2>/dev/null; then
  "$python" -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r requirements/local.txt
else
  echo "pip finds no $torch for this Python: the demo answers with a stand-in engine instead of the tiny model."
  echo "To get it, point PIP_EXTRA_INDEX_URL at PyTorch's CPU wheel index and run: make clean demo"
fi
