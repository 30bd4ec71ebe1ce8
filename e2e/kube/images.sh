#!/bin/bash
# images.sh PROGRAMS OUT [COMPONENT...]: one image per component out of the programs in PROGRAMS, as OUT/COMPONENT.tar (docker archive).
# No Docker, no base image: a program, the shared libraries that it needs, and for the proxy the tools that redirect traffic.
# Ours run as uid 1337 on a read-only root file system, applications as 1000. IMAGE_MAX_MB (30) is the largest allowed; 0
# allows any. IMAGE_TAG may be several, by commas. Made only where they are named: tools, what tests run in pods; envoy, a
# real one out of $ENVOY.
set -euo pipefail
HERE=$(dirname "$(readlink -f "$0")")
PROGRAMS=$1 OUT=$2 ONLY=" ${*:3} " MAX=${IMAGE_MAX_MB:-30}
HUB=${IMAGE_HUB:-ferromesh}
TAG=${IMAGE_TAG:-$(sed -nE '/^\[workspace.package\]/,/^\[/s/^version = "(.*)"/\1/p' "$HERE/../../Cargo.toml")}
NAMES() { local tag all=; for tag in ${TAG//,/ }; do all+=,$HUB/$1:$tag; done; echo "${all#,}"; }
USER_ID=1337
mkdir -p "$OUT"
W=$(mktemp -d "$OUT/.images.XXXX"); trap 'rm -rf "$W"' EXIT
printf 'root:x:0:0::/:/sbin/nologin\napp:x:1000:1000::/:/sbin/nologin\nproxy:x:1337:1337::/:/sbin/nologin\nnobody:x:65534:65534::/:/sbin/nologin\n' > "$W/passwd"
printf 'root:x:0:\napp:x:1000:\nproxy:x:1337:\nnobody:x:65534:\n' > "$W/group"
printf 'hosts: files dns\n' > "$W/nsswitch.conf"
etc=("$W/passwd:/etc/passwd:644" "$W/group:/etc/group:644" "$W/nsswitch.conf:/etc/nsswitch.conf:644")

# image COMPONENT CMD ITEM... : entry point is the program; CMD what it does where nothing else is said
image() {
  local name=$1 cmd=$2 size; shift 2
  [ -z "${ONLY// /}" ] || [[ $ONLY == *" $name "* ]] || return 0
  strip -o "$W/$name" "$PROGRAMS/$name"
  python3 "$HERE/mkimage.py" "$OUT/$name.tar" "$(NAMES "$name")" --entrypoint "[\"/usr/local/bin/$name\"]" --cmd "$cmd" --user $USER_ID:$USER_ID \
    --libraries "$W/$name" "$W/$name:/usr/local/bin/$name:755" "${etc[@]}" "$@"
  size=$(stat -c %s "$OUT/$name.tar")
  printf '%-10s %5.1f MB  %s\n' "$name" "$((size / 100000))e-1" "$(NAMES "$name")"
  [ "$MAX" = 0 ] || [ "$size" -le $((MAX * 1000000)) ] || { echo "$name: more than $MAX MB" >&2; return 1; }
}

# What the init container needs: iptables in both of its ways with their extensions, and ip.
tools=(); extensions=/usr/lib/$(uname -m)-linux-gnu/xtables
for program in xtables-nft-multi xtables-legacy-multi ip; do
  path=$(readlink -f "$(PATH=$PATH:/usr/sbin:/sbin command -v $program)") || { echo "$program is missing: install iptables and iproute2" >&2; exit 1; }
  tools+=("$path:/usr/sbin/$program:755" --libraries "$path")
done
for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do tools+=("/usr/sbin/$name@xtables-nft-multi"); done
for library in "$extensions"/*.so; do tools+=(--libraries "$library"); done

# The plugin of the node agent runs on the node itself, whatever system that has: it brings all that it needs.
plugin() {
  local profile=dev folder=debug; [[ $PROGRAMS == */release ]] && profile=release folder=release
  (cd "$HERE/../.." && cargo rustc --quiet -p istio-cni --profile $profile --target-dir "$OUT/plugin" -- -C target-feature=+crt-static)
  strip -o "$W/istio-cni" "$OUT/plugin/$folder/istio-cni"
}
[ -n "${ONLY// /}" ] && [[ $ONLY != *" proxy "* ]] || plugin

image proxy '["proxy", "sidecar"]' "$W/istio-cni:/usr/local/bin/istio-cni:755" /usr/local/bin/pilot-agent@proxy "${tools[@]}" "$extensions:$extensions"
image pilot '["discovery"]' /usr/local/bin/pilot-discovery@pilot
image citadel '["serve"]'
image mixer '["serve"]'
image meshctl '["help"]'
USER_ID=1000 # traffic of 1337 would not be redirected
image bookshop '["--help"]'

# A shell with its programs, and meshctl for load.
if [[ $ONLY == *" tools "* ]]; then
  busybox=$(command -v busybox) || { echo "busybox is missing: install busybox-static" >&2; exit 1; }
  links=(); for name in $("$busybox" --list); do [ "$name" = busybox ] || links+=("/bin/$name@busybox"); done
  strip -o "$W/meshctl" "$PROGRAMS/meshctl"
  python3 "$HERE/mkimage.py" "$OUT/tools.tar" "$(NAMES tools)" --cmd '["sh"]' --user $USER_ID:$USER_ID --libraries "$busybox" --libraries "$W/meshctl" \
    "$busybox:/bin/busybox:755" "${links[@]}" "$W/meshctl:/usr/local/bin/meshctl:755" "${etc[@]}"
fi

# Envoy as it is published.
if [[ $ONLY == *" envoy "* ]]; then
  python3 "$HERE/mkimage.py" "$OUT/envoy.tar" "$(NAMES envoy)" --entrypoint '["/usr/local/bin/envoy"]' --user 1337:1337 --libraries "$ENVOY" \
    "$ENVOY:/usr/local/bin/envoy:755" "${etc[@]}"
fi
