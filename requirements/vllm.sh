#!/bin/sh
# A real vLLM for CPUs in an environment of its own, for `make test-vllm`: Python 3.11 only, since the CPU build of
# torch that it pins exists for no other here. Without it the tests marked vllm are skipped and say so.
set -eu
venv=$1
if ! command -v python3.11 >/dev/null; then
  echo "no python3.11: the vLLM tests will be skipped"
  mkdir -p "$venv"
  exit 0
fi
echo "setting up $venv (once; 2.4 GB, about two minutes)"
test -x "$venv/bin/python" || python3.11 -m venv "$venv"
if ! "$venv/bin/pip" --disable-pip-version-check --quiet install --no-deps -r requirements/vllm.txt; then
  echo "the pins of requirements/vllm.txt cannot be installed here: the vLLM tests will be skipped"
  rm -rf "$venv/bin"
fi
