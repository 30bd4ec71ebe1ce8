#!/bin/bash
# One-node Kubernetes as plain processes in a network namespace of its own: no kind, no Docker, no systemd. Needs root.
#
#   bare.sh up NAME [api|node]    api: etcd and API server alone (5 s); node: with controllers, scheduler, kubelet, kube-proxy (10 s)
#   bare.sh load NAME TAR...      images for the node
#   bare.sh kubectl NAME ...      kubectl as its administrator
#   bare.sh stop NAME PROGRAM     kill one program, as kube-apiserver
#   bare.sh start NAME PROGRAM    start it again as it was
#   bare.sh down NAME             end it and take away everything that it left
#
# State is under $BARE_DIR (default /run/ferromesh/kube-bare)/NAME; admin's kubeconfig is kc/super-admin.conf in there.
# Several clusters may run side by side; each has a network of its own, and nothing in it reaches beyond this machine.
set -Eeuo pipefail
. "$(dirname "$(readlink -f "$0")")/version.sh"
NAME=${2:?name of the cluster}; ROOT=${BARE_DIR:-/run/ferromesh/kube-bare}; D=$ROOT/$NAME
NS=kube-$NAME; LINK=$(printf 'kb%s' "$(printf %s "$NAME" | sha256sum | cut -c1-10)")
SERVICES=10.96.0.0/16 PODS=10.244.0.0/16 NODE_PODS=10.244.0.0/24
CGROUPS=(cpu cpuacct cpuset memory devices freezer blkio pids systemd)

in_ns() { nsenter --net="/run/netns/$NS" "$@"; }

# Subnets 10.111.N.0/24: the first N that no interface has. The lock is held until the address is set.
network() {
  mkdir -p "$ROOT"; exec 8> "$ROOT/lock"; flock 8
  local n; for n in $(seq 254); do ip -o -4 address show | grep -q " 10\.111\.$n\." || break; done
  ip netns add "$NS"; ip link add "$LINK" type veth peer name eth0 netns "$NS"
  ip addr add "10.111.$n.1/24" dev "$LINK"; ip link set "$LINK" up
  flock -u 8
  IP=10.111.$n.2; echo "$IP" > "$D/ip"
  # Nothing leaves this machine, not even what is addressed to a Service that is not programmed yet.
  iptables -w -I FORWARD -i "$LINK" -j REJECT
  in_ns ip link set lo up; in_ns ip addr add "$IP/24" dev eth0; in_ns ip link set eth0 up; in_ns ip route add default via "10.111.$n.1"
  in_ns sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1
}

# A program is a file of its arguments, so that it can be started again as it was.
program() { local name=$1; shift; printf '%s\0' "$@" > "$D/$name.args"; start "$name"; }
start() {
  local args; mapfile -d '' -t args < "$D/$1.args"
  ( exec setsid nsenter --net="/run/netns/$NS" "${args[@]}" ) >> "$D/$1.log" 2>&1 < /dev/null 8>&- &
  echo $! > "$D/$1.pid"
}
stop() { local p; p=$(cat "$D/$1.pid" 2>/dev/null) || return 0; kill -9 "$p" 2>/dev/null || true; rm -f "$D/$1.pid"; }
# wait_for SECONDS COMMAND...
wait_for() {
  local i tries=$(($1 * 10)); shift
  for i in $(seq "$tries"); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
  say "$NAME: never succeeded: $*; logs are in $D"; return 1
}

certificates() {
  cat > "$D/kubeadm.yaml" <<Y
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: $IP, bindPort: 6443}
nodeRegistration: {name: bare, criSocket: "unix://$D/ctd.sock"}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: $V
certificatesDir: $D/pki
controlPlaneEndpoint: $IP:6443
encryptionAlgorithm: ECDSA-P256
networking: {serviceSubnet: $SERVICES, podSubnet: $PODS}
Y
  "$H" kubeadm init phase certs all --config "$D/kubeadm.yaml" > "$D/kubeadm.log" 2>&1
  "$H" kubeadm init phase kubeconfig all --config "$D/kubeadm.yaml" --kubeconfig-dir "$D/kc" >> "$D/kubeadm.log" 2>&1
}

api_server() { # "api" has no controllers, and so no service accounts for pods
  local P=$D/pki more=()
  [ "$1" = api ] && more=(--disable-admission-plugins=ServiceAccount)
  program etcd "$H" etcd --name bare --data-dir "$D/etcd" --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
  program kube-apiserver "$H" kube-apiserver --etcd-servers=http://127.0.0.1:2379 --advertise-address="$IP" --secure-port=6443 --allow-privileged=true \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction "${more[@]}" --client-ca-file="$P/ca.crt" --tls-cert-file="$P/apiserver.crt" --tls-private-key-file="$P/apiserver.key" \
    --kubelet-client-certificate="$P/apiserver-kubelet-client.crt" --kubelet-client-key="$P/apiserver-kubelet-client.key" --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local --service-account-key-file="$P/sa.pub" --service-account-signing-key-file="$P/sa.key" --service-cluster-ip-range="$SERVICES" \
    --requestheader-client-ca-file="$P/front-proxy-ca.crt" --requestheader-allowed-names=front-proxy-client --requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group --requestheader-username-headers=X-Remote-User \
    --proxy-client-cert-file="$P/front-proxy-client.crt" --proxy-client-key-file="$P/front-proxy-client.key"
  export KUBECONFIG=$D/kc/super-admin.conf
  wait_for 120 "$H" kubectl get --raw /readyz
  wait_for 20 "$H" kubectl create clusterrolebinding kubeadm:cluster-admins --clusterrole=cluster-admin --group=kubeadm:cluster-admins
}

container_runtime() {
  need containerd runc iptables iproute2 containernetworking-plugins python3
  mkdir -p "$D/cni"
  for c in "${CGROUPS[@]}"; do mkdir -p "/sys/fs/cgroup/$c/$NS"; done
  for f in cpuset.cpus cpuset.mems; do cat "/sys/fs/cgroup/cpuset/$f" > "/sys/fs/cgroup/cpuset/$NS/$f"; done
  cat > "$D/containerd.toml" <<Y
version = 2
root = "$D/ctd"
state = "$D/ctd-run"
[grpc]
address = "$D/ctd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
restrict_oom_score_adj = true
tolerate_missing_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$D/cni"
Y
  cat > "$D/cni/10-ptp.conflist" <<Y
{"cniVersion":"0.4.0","name":"bare","plugins":[{"type":"ptp","ipMasq":false,"ipam":{"type":"host-local","dataDir":"$D/ipam","routes":[{"dst":"0.0.0.0/0"}],"ranges":[[{"subnet":"$NODE_PODS"}]]}},{"type":"portmap","capabilities":{"portMappings":true}}]}
Y
  program containerd containerd -c "$D/containerd.toml"
  wait_for 20 ctr -a "$D/ctd.sock" version
  python3 "$HERE/mkimage.py" "$D/pause.tar" localhost/pause:1 --entrypoint '["/pause"]' --user 65535:65535 "$(dirname "$H")/pause:/pause:755"
  load "$D/pause.tar"
}

node() {
  local P=$D/pki K=$D/kc c
  conf() { echo "--kubeconfig=$K/$1.conf" "--authentication-kubeconfig=$K/$1.conf" "--authorization-kubeconfig=$K/$1.conf"; }
  program kube-controller-manager "$H" kube-controller-manager $(conf controller-manager) --allocate-node-cidrs --cluster-cidr=$PODS --service-cluster-ip-range=$SERVICES \
    --root-ca-file="$P/ca.crt" --cluster-signing-cert-file="$P/ca.crt" --cluster-signing-key-file="$P/ca.key" --service-account-private-key-file="$P/sa.key" --use-service-account-credentials --leader-elect=false --controllers=*,bootstrapsigner,tokencleaner
  program kube-scheduler "$H" kube-scheduler $(conf scheduler) --leader-elect=false
  cat > "$D/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
cgroupRoot: /$NS
failSwapOn: false
failCgroupV1: false
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $P/ca.crt}}
authorization: {mode: Webhook}
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://$D/ctd.sock
imageGCHighThresholdPercent: 100
evictionHard: {nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
oomScoreAdj: 0
podLogsDir: $D/podlogs
shutdownGracePeriod: 0s
Y
  program kubelet "$H" kubelet --config="$D/kubelet.yaml" --kubeconfig="$K/kubelet.conf" --hostname-override=bare --node-ip="$IP" --root-dir="$D/kubelet" --cert-dir="$D/kubelet/pki"
  program kube-proxy "$H" kube-proxy --kubeconfig="$K/admin.conf" --cluster-cidr=$PODS --hostname-override=bare --proxy-mode=iptables --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0s --conntrack-tcp-timeout-close-wait=0s
  wait_for 120 "$H" kubectl wait --for=condition=Ready node/bare --timeout=1s
  in_ns iptables -w -t nat -A POSTROUTING -s $NODE_PODS ! -d $PODS -j MASQUERADE
}

up() {
  local what=${1:-node}
  [ ! -e "$D" ] || { say "$NAME exists: bare.sh down $NAME"; return 1; }
  H=$("$HERE/build.sh")/hyper
  mkdir -p "$D"/{pki,kc,kubelet}
  ln -s "$(dirname "$H")/kubectl" "$D/kubectl"
  trap 'say "$NAME did not come up"; tail -n 5 "$D"/*.log >&2; down' ERR
  network
  certificates
  [ "$what" = api ] || container_runtime
  api_server "$what"
  [ "$what" = api ] || node
  echo "$D/kc/super-admin.conf"
}

load() { local t; for t; do ctr -a "$D/ctd.sock" -n k8s.io images import "$t" >/dev/null; done; }

# Processes of this cluster that containerd left: found by our own folder in their command line.
shims() {
  local p; for p in /proc/[0-9]*; do
    tr '\0' ' ' < "$p/cmdline" 2>/dev/null | grep -q -- "containerd-shim-runc-v2 .*-address $D/ctd.sock" && echo "${p#/proc/}"
  done
}

down() {
  set +eE; trap - ERR
  local n t p m c
  for n in kubelet kube-proxy kube-scheduler kube-controller-manager kube-apiserver etcd; do stop $n; done
  if [ -S "$D/ctd.sock" ]; then
    c="ctr -a $D/ctd.sock -n k8s.io"
    for t in $($c tasks ls -q); do $c tasks kill -s KILL "$t"; done 2>/dev/null; sleep 0.5
    for t in $($c tasks ls -q); do $c tasks rm -f "$t"; done >/dev/null 2>&1
    for p in $(shims); do kill -9 "$p"; done 2>/dev/null
    stop containerd
  fi
  # Pods' namespaces: those whose cable ends in ours.
  for n in $(in_ns ip -o link show 2>/dev/null | grep -o 'link-netns [^ ]*' | cut -d' ' -f2); do
    case $n in cni-*) ip netns del "$n";; esac
  done
  for m in $(awk -v d="$D/" 'index($2,d)==1{print $2}' /proc/mounts | sort -r); do umount -l "$m"; done
  iptables -w -D FORWARD -i "$LINK" -j REJECT 2>/dev/null
  ip link del "$LINK" 2>/dev/null; ip netns del "$NS" 2>/dev/null
  for c in "${CGROUPS[@]}" unified; do find "/sys/fs/cgroup/$c/$NS" -depth -type d -exec rmdir {} + 2>/dev/null; done
  rm -rf "$D"; [ ! -e "$D" ]
}

case $1 in
  up) up "${3:-node}";;
  load) shift 2; load "$@";;
  # Another cluster had this address before: what kubectl knows of it is its own.
  kubectl) shift 2; exec "$D/kubectl" --cache-dir="$D/kubectl-cache" --kubeconfig "$D/kc/super-admin.conf" "$@";;
  stop|start) "$1" "${3:?program}";;
  down) down;;
  *) sed -n '2,13p' "$0" >&2; exit 2;;
esac
