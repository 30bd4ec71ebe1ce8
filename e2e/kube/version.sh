# Sourced by the scripts of this folder: which Kubernetes, and where what is expensive is kept.
HERE=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# go.mod alone says which version.
V=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' "$HERE/go.mod")
CACHE=${CLUSTER_CACHE:-$HOME/.cache/ferromesh/kube}
say() { printf '%s %s: %s\n' "$(date +%T)" "$(basename "$0")" "$*" >&2; }
# Everything that decides what the programs are; their cache is named by it.
key() { (cd "$HERE" && { go version; cat go.mod go.sum build.sh version.sh hyper/*.go ocifix/*.go tapp/*.go; } | sha256sum | cut -c1-16); }
# The same for the node image, which holds them.
image_key() { (cd "$HERE" && { key; cat mk*.sh mkimage.py default-*.yaml; } | sha256sum | cut -c1-16); }
# Debian packages that are missing are installed; the user must be root for it.
need() {
  local package missing=()
  for package in "$@"; do dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package"); done
  [ ${#missing[@]} = 0 ] && return
  say "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}
