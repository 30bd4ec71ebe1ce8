#!/bin/bash
# mknode.sh ROOTFS(base, after mknode-base.sh) HYPER PAUSE TAG : puts Kubernetes into the rootfs and imports it into docker
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/version.sh"
R=$1 HYPER=$2 PAUSE=$3 TAG=$4
install -m755 $HYPER $R/usr/bin/hyper
for n in kubelet kubeadm kubectl; do ln -sf hyper $R/usr/bin/$n; done
echo -n "$V" > $R/kind/version
sed "s/HYPER_VERSION/$V/" $HERE/default-cni.yaml > $R/kind/manifests/default-cni.yaml
cp $HERE/default-storage.yaml $R/kind/manifests/
T=$(mktemp -d); CT=
trap '[ -z "$CT" ] || kill $CT 2>/dev/null || true; rm -rf "$T"' EXIT
$HERE/mkk8simages.sh $R $HYPER $PAUSE $T/images.tar
pause=$($R/usr/bin/kubeadm config images list --kubernetes-version $V 2>/dev/null | grep pause)
sed -i "s#sandbox_image = .*#sandbox_image = \"$pause\"#" $R/etc/containerd/config.toml
# fill the content store of the node's containerd with a private one on the host
rm -rf $R/var/lib/containerd; mkdir -p $R/var/lib/containerd
printf 'version = 2\nroot = "%s"\nstate = "%s"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "%s"\n' $R/var/lib/containerd $T/state $T/ctd.sock > $T/c.toml
containerd -c $T/c.toml > $T/ctd.log 2>&1 & CT=$!
for i in $(seq 50); do [ -S $T/ctd.sock ] && break; sleep 0.1; done
ctr -a $T/ctd.sock -n k8s.io images import --all-platforms --no-unpack $T/images.tar > /dev/null
for i in $(ctr -a $T/ctd.sock -n k8s.io images ls -q); do ctr -a $T/ctd.sock -n k8s.io images label "$i" io.cri-containerd.pinned=pinned >/dev/null; done
ctr -a $T/ctd.sock -n k8s.io images ls -q
kill $CT; wait $CT 2>/dev/null || true; CT=
rm -rf $R/var/lib/containerd/io.containerd.runtime* $R/var/lib/containerd/tmpmounts
tar -C $R --numeric-owner -c . | docker import -c "LABEL key=${KEY:-none}" -c 'ENV container=docker' -c 'ENTRYPOINT ["/usr/local/bin/entrypoint","/sbin/init"]' - "$TAG"
