#!/bin/bash
# istiod.sh : prints the folder of a real istiod, after making it if this version is not in the cache: istiod.tar (an image,
# localhost/istiod:1) and charts/ (Istio's own). Cold it takes 7 minutes of two cores. Several callers may run side by side.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/version.sh"
# The same Istio whose golden files injection is compared with.
VERSION=$(sed -nE 's/^const VERSION.*"(.*)";/\1/p' "$HERE/../../pilot/tests/inject_golden/main.rs")
OUT=${FERROMESH_CACHE:-$HOME/.cache/ferromesh}/istiod/$VERSION
[ -s "$OUT/istiod.tar" ] && { echo "$OUT"; exit; }
mkdir -p "$OUT"
exec 9> "$OUT/lock"
flock 9
[ -s "$OUT/istiod.tar" ] && { echo "$OUT"; exit; }
cd /
if [ ! -x "$OUT/pilot-discovery" ]; then
  say "building istiod $VERSION; cold this takes 7 minutes of two cores"
  CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOBIN=$OUT go install -trimpath \
    -ldflags "-s -w -X istio.io/istio/pkg/version.buildVersion=$VERSION" "istio.io/istio/pilot/cmd/pilot-discovery@$VERSION" >&2
fi
source=$(go mod download -json "istio.io/istio@$VERSION" | python3 -c 'import json,sys; print(json.load(sys.stdin)["Dir"])')
rm -rf "$OUT/charts"
cp -r "$source/manifests/charts" "$OUT/charts"
chmod -R u+w "$OUT/charts"
W=$(mktemp -d "$OUT/.image.XXXX"); trap 'rm -rf "$W"' EXIT
mkdir -m 1777 "$W/tmp"
printf 'istio:x:1337:1337::/:/sbin/nologin\n' > "$W/passwd"
python3 "$HERE/mkimage.py" "$W/istiod.tar" localhost/istiod:1 --entrypoint '["/usr/local/bin/pilot-discovery"]' --user 1337:1337 \
  "$OUT/pilot-discovery:/usr/local/bin/pilot-discovery:755" "$W/passwd:/etc/passwd:644" "$W/tmp:/tmp"
mv "$W/istiod.tar" "$OUT/istiod.tar"
echo "$OUT"
