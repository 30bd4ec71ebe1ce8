#!/bin/bash
# mkk8simages.sh ROOTFS HYPER PAUSE OUT.tar : one archive with every image kubeadm asks for.
# All of them share one layer: the hyper binary, its names, iptables and busybox from ROOTFS/host.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/version.sh"
R=$1 HYPER=$2 PAUSE=$3 OUT=$4
W=$(mktemp -d "$(dirname "$OUT")/img.XXXX"); trap 'rm -rf "$W"' EXIT
mkdir -p $W/bin $W/sbin $W/lib $W/lib64 $W/usr/sbin $W/usr/lib/x86_64-linux-gnu $W/etc
cp /bin/busybox $W/bin/busybox; for a in sh ls cat grep mount id sleep wget nc ip ps; do ln -s busybox $W/bin/$a; done
for b in xtables-nft-multi xtables-legacy-multi; do cp $R/usr/sbin/$b $W/usr/sbin/; done
for a in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do ln -s xtables-nft-multi $W/usr/sbin/$a; done
cp -r $R/usr/lib/x86_64-linux-gnu/xtables $W/usr/lib/x86_64-linux-gnu/
# the libraries those two and their extensions need (libxt_statistic.so wants libm), by the loader inside ROOTFS
chroot $R sh -c 'ldd /usr/sbin/xtables-nft-multi /usr/sbin/xtables-legacy-multi /usr/lib/x86_64-linux-gnu/xtables/*.so' | grep -o '/[^ :]*' | grep '\.so' | grep -v /xtables/ | sort -u | while read -r l; do
  mkdir -p $W/$(dirname $l); cp -L $R$l $W$l; done
printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' > $W/etc/passwd
items=()
for d in bin sbin lib lib64 usr etc; do items+=("$W/$d:/$d"); done
items+=("$HYPER:/usr/local/bin/hyper:755")
for n in kube-apiserver kube-controller-manager kube-scheduler kube-proxy etcd coredns netd kubectl; do items+=("/usr/local/bin/$n@hyper"); done
mapfile -t want < <("$R/usr/bin/kubeadm" config images list --kubernetes-version "$V" 2>/dev/null)
args=(); main="localhost/hyper:$V"; cdns=
for i in "${want[@]}"; do case $i in
  *coredns*) cdns=$i;; *pause*) args+=("$i" --entrypoint '["/pause"]' --user 65535:65535 "$PAUSE:/pause:755" --);;
  *) main+=",$i";; esac; done
python3 $HERE/mkimage.py "$OUT" "${args[@]}" "$main" "${items[@]}" -- "$cdns" --entrypoint '["/usr/local/bin/coredns"]' "${items[@]}"
