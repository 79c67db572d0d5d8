#!/usr/bin/env bash
# Trains on all workers of a Cloud TPU slice that it queues for, and again after each preemption. It runs on any machine
# with gcloud, until the training is done; arguments after the slice's name are those of fqgan train:
#
#   ZONE=us-west4-a ACCELERATOR=v5litepod-16 RUNTIME=v2-alpha-tpuv5-lite SETUP="pip install 'fqgan-jax[tpu,gcs]'" \
#       launch/tpu_pod.sh dual --config configs/tokenizer_imagenet.py:k=2,f=16 --workdir gs://BUCKET/dual \
#       --config.data.source=gs://BUCKET/records
#
# SETUP makes a worker ready (done before every start). A state that is too large for one worker's memory goes into a
# bucket that all mount: SETUP="gcsfuse --implicit-dirs --rename-dir-limit 100000 BUCKET ~/runs; …", --workdir runs/dual.
# The slice stays when the training ends: gcloud compute tpus queued-resources delete dual --zone us-west4-a --force
set -euo pipefail

name=${1:?"usage: launch/tpu_pod.sh NAME --config FILE --workdir FOLDER ..."}
shift
: "${ZONE:?}" "${ACCELERATOR:?}" "${RUNTIME:?}"
queued=(gcloud compute tpus queued-resources)
train="${SETUP:-true} && fqgan train $(printf '%q ' "$@")"
trained=

while true; do
    state=$("${queued[@]}" describe "$name" --zone "$ZONE" --format 'value(state.state)' 2>/dev/null || true)
    case "$state" in
    "")
        "${queued[@]}" create "$name" --node-id "$name" --zone "$ZONE" --accelerator-type "$ACCELERATOR" \
            --runtime-version "$RUNTIME" --spot
        trained=
        ;;
    SUSPENDING | SUSPENDED | FAILED) # preempted
        "${queued[@]}" delete "$name" --zone "$ZONE" --force --quiet
        ;;
    ACTIVE)
        if [ -n "$trained" ]; then
            echo "fqgan train failed and the slice still exists: see the output above." >&2
            exit 1
        fi
        if gcloud compute tpus tpu-vm ssh "$name" --zone "$ZONE" --worker all --command "$train"; then
            exit 0
        fi
        trained=yes
        ;;
    esac
    sleep "${POLL:-60}"
done
