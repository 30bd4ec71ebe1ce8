#!/bin/bash
# Clusters by kind: the same on a contributor's machine with Docker and on one that has no container registry.
#
#   cluster.sh packages         the Debian packages for local mode
#   cluster.sh build            what is slow when cold, but nothing that runs: packages, programs, the node's root file system
#   cluster.sh prepare          what "up" needs (local mode: packages, programs, node image, Docker daemon); slow when cold
#   cluster.sh up NAME [NODES]  a cluster of one control plane and NODES-1 workers; prints the path of its kubeconfig
#   cluster.sh kubeconfig NAME  the path of the kubeconfig of a cluster that runs
#   cluster.sh load NAME TAR... images for its nodes (docker archive or OCI archive)
#   cluster.sh down NAME        delete it; with the last one our own Docker daemon ends too
#   cluster.sh kubectl NAME ... kubectl as its administrator
#   cluster.sh check NAME       whether it does what a mesh needs, in local mode: redirection, native sidecars, webhooks, ... (check.sh)
#   cluster.sh env              the variables to export: PATH, DOCKER_HOST
#
# CLUSTER_MODE     auto (default) | stock | local
#                  stock: the machine's own docker and kind, kind's published node image or $KIND_NODE_IMAGE
#                  local: own dockerd, node image made here, nothing pulled
#                  auto:  stock where docker answers and either it has $KIND_NODE_IMAGE or CI is not set; else local
# KIND_NODE_IMAGE  node image for kind
# CLUSTER_CACHE    where the expensive results live (default ~/.cache/ferromesh/kube)
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/version.sh"
MODE=${CLUSTER_MODE:-auto}; STATE=$CACHE/state; IMAGE=${KIND_NODE_IMAGE:-}
if [ "$MODE" = auto ]; then
  MODE=local
  if command -v kind >/dev/null && timeout 10 docker version >/dev/null 2>&1; then
    if [ -z "${CI:-}" ] || { [ -n "$IMAGE" ] && docker image inspect "$IMAGE" >/dev/null 2>&1; }; then MODE=stock; fi
  fi
fi
if [ "$MODE" = local ]; then
  BIN=$CACHE/bin-$(key); export PATH=$BIN:$PATH DOCKER_HOST=unix://$STATE/docker/docker.sock
  IMAGE=${IMAGE:-ferromesh-local/node:$V}
fi

base() { # the node's Debian part, as an archive that is kept
  local archive=$CACHE/base-bookworm.tar
  [ -s "$archive" ] && return
  say "node root file system"
  mmdebstrap --quiet --variant=minbase --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --include=systemd,conntrack,iptables,nftables,iproute2,ethtool,kmod,procps,jq,containerd,runc,containernetworking-plugins,ca-certificates bookworm "$CACHE/base.part.tar"
  mv "$CACHE/base.part.tar" "$archive"
}

packages() {
  [ "$MODE" = stock ] || need containerd runc docker.io iptables conntrack iproute2 mmdebstrap containernetworking-plugins busybox-static gcc libc6-dev python3 openssl curl
}

build() {
  [ "$MODE" = stock ] && return
  packages
  mkdir -p "$STATE"
  # A fault ends the script, also one of the job beside.
  base & local job=$!
  "$HERE/build.sh" > /dev/null
  wait $job
}

prepare() {
  if [ "$MODE" = stock ]; then
    command -v kind docker kubectl >/dev/null || { say "kind, docker and kubectl must be in PATH; or set CLUSTER_MODE=local"; exit 1; }
    return
  fi
  build
  D=$STATE/docker OCIFIX=$BIN/ocifix "$HERE/dockerd-up.sh"
  if [ "$(docker image inspect -f '{{index .Config.Labels "key"}}' "$IMAGE" 2>/dev/null)" != "$(image_key)" ]; then
    say "node image"
    local root=$CACHE/rootfs; rm -rf "$root"; mkdir -p "$root"; tar -C "$root" -xf "$CACHE/base-bookworm.tar"
    "$HERE/mknode-base.sh" "$root" "$(cat "$BIN/kind.src")"
    KEY=$(image_key) "$HERE/mknode.sh" "$root" "$BIN/hyper" "$BIN/pause" "$IMAGE" >/dev/null
    rm -rf "$root"
  fi
}

configuration() {
  printf 'kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n- role: control-plane\n'
  local i; for ((i = 1; i < $1; i++)); do printf -- '- role: worker\n'; done
}

up() {
  local name=$1 nodes=${2:-1} config=$STATE/$1.kubeconfig
  prepare
  mkdir -p "$STATE"
  configuration "$nodes" | kind create cluster --name "$name" --config - ${IMAGE:+--image "$IMAGE"} --kubeconfig "$config" --wait "${CLUSTER_WAIT:-180s}" >&2
  # kind waits for the control plane alone.
  kubectl --kubeconfig "$config" wait --for=condition=Ready nodes --all --timeout=120s >&2
  kubectl --kubeconfig "$config" -n kube-system rollout status deployment/coredns --timeout=120s >&2
  echo "$config"
}

down() {
  kind delete cluster --name "$1" --kubeconfig "$STATE/$1.kubeconfig" >&2
  rm -f "$STATE/$1.kubeconfig"
  if [ "$MODE" = local ] && [ -z "$(kind get clusters 2>/dev/null)" ]; then
    D=$STATE/docker "$HERE/dockerd-down.sh"
  fi
}

check() {
  local archive=$STATE/tapp.tar
  python3 "$HERE/mkimage.py" "$archive" localhost/tapp:1 --entrypoint '["/tapp"]' "$BIN/tapp:/tapp:755"
  kind load image-archive "$archive" --name "$1" >&2
  KEEP=1 KUBECTL=kubectl "$HERE/check.sh" "$STATE/$1.kubeconfig"
}

# One at a time: two callers must not start two daemons, nor one end what the other has just started.
locked() { mkdir -p "$CACHE"; exec 7> "$CACHE/cluster.lock"; flock 7; "$@" 7>&-; exec 7>&-; }

case ${1:-} in
  packages) packages;;
  build) locked build;;
  prepare) locked prepare;;
  up) locked up "${2:?name}" "${3:-1}";;
  kubeconfig) [ -f "$STATE/${2:?name}.kubeconfig" ] || { say "no cluster $2"; exit 1; }; echo "$STATE/$2.kubeconfig";;
  load) name=$2; shift 2; for archive; do kind load image-archive "$archive" --name "$name" >&2; done;;
  check) check "${2:?name}";;
  kubectl) name=${2:?name}; shift 2; exec kubectl --kubeconfig "$STATE/$name.kubeconfig" "$@";;
  down) locked down "${2:?name}";;
  env) [ "$MODE" = stock ] || printf 'export DOCKER_HOST=%q PATH=%q:$PATH\n' "$DOCKER_HOST" "$BIN"; echo "export CLUSTER_MODE=$MODE";;
  *) sed -n '2,22p' "$0" >&2; exit 2;;
esac
