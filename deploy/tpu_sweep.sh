#!/bin/bash
# A sweep over several TPU hosts, one trial on each at a time:
#   bash deploy/tpu_sweep.sh PROJECT ZONE SERVER:/SHARE REPOSITORY
# SERVER:/SHARE is a file store (NFS) in the same network, for data and runs; REPOSITORY is what `git clone` takes. gcloud
# must be logged in. A spot host may be taken back: ask again with another name, and the sweep goes on from the share.
set -euo pipefail
project=$1 zone=$2 share=$3 repository=$4
name=sel-sweep hosts=4 chips=8 # a v5e host has up to 8 chips; slices of one host share nothing, which suits trials
queue() { gcloud compute tpus queued-resources "$1" "$name" --project="$project" --zone="$zone" "${@:2}"; }

queue create --accelerator-type="v5litepod-$chips" --runtime-version=v2-alpha-tpuv5-lite \
  --node-count="$hosts" --node-prefix="$name" --spot
until [[ $(queue describe --format='value(state.state)') == ACTIVE ]]; do sleep 60; done

queue ssh --node=all --worker=all --command="
  set -e
  sudo mkdir -p /runs && sudo mount -t nfs $share /runs
  git clone $repository sel && cd sel
  python3 -m venv .venv && . .venv/bin/activate
  pip install -q -r requirements.txt 'jax[tpu]==0.10.2' 'ray[tune]==2.60.0' matplotlib"

# Ray finds the chips by itself. Only those who hold the token may use it.
environment='. .venv/bin/activate && export PYTHONPATH=$PWD RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=/runs/.ray_token'
queue ssh --node=0 --command='umask 077; openssl rand -hex 32 > /runs/.ray_token'
head=$(queue ssh --node=0 --command='hostname -I | cut -d" " -f1')
queue ssh --node=0 --command="cd sel && $environment && ray start --head --port=6379"
for node in $(seq 1 $((hosts - 1))); do
  queue ssh --node="$node" --command="cd sel && $environment && ray start --address=$head:6379"
done

queue ssh --node=0 --command="cd sel && $environment && nohup python -m experiments.sweep \
  --sweep=configs/sweeps/divergence.py --config=configs/lol_v1.py:small --config.data.root=/runs/LOL \
  --config.data.validation=0.1 --config.validate_every=1000 --workdir=/runs/divergence --launcher=ray --address=auto \
  --accelerator=TPU --accelerators_per_trial=$chips --retries=2 > /runs/divergence.log 2>&1 < /dev/null &"
echo "The sweep writes /runs/divergence.log. At its end: gcloud compute tpus queued-resources delete $name --force"
