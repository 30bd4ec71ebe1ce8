#!/bin/bash
# check.sh KUBECONFIG [NS]: does this cluster do what a sidecar/mesh-like project needs? Needs images localhost/tapp:1 and $IPT (an image with iptables) on the nodes.
set -uo pipefail
. "$(dirname "$(readlink -f "$0")")/version.sh"
export KUBECONFIG=$1; NS=${2:-check}; K=${KUBECTL:-kubectl}; IPT=${IPT:-localhost/hyper:$V}
pass=0 fail=0; ok() { echo "ok   $1"; pass=$((pass+1)); }; no() { echo "FAIL $1: ${2:-}"; fail=$((fail+1)); }
has() { case "$2" in *"$3"*) ok "$1";; *) no "$1" "$(echo "$2" | tail -3)";; esac; }
t0=$(date +%s.%N)
$K create ns $NS >/dev/null; for i in $(seq 30); do $K -n $NS get sa default >/dev/null 2>&1 && break; sleep 0.5; done
W=$(mktemp -d); trap 'rm -rf $W' EXIT
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout $W/tls.key -out $W/tls.crt -subj /CN=hook.$NS.svc -addext "subjectAltName=DNS:hook.$NS.svc" 2>/dev/null
$K -n $NS create secret tls hook --cert=$W/tls.crt --key=$W/tls.key >/dev/null
cat > $W/m.yaml <<Y
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: $NS-tokenreview}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{kind: ServiceAccount, name: default, namespace: $NS}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      initContainers:
      - name: redirect
        image: $IPT
        imagePullPolicy: Never
        command: [sh, -ec]
        args:
        - |
          iptables -w -t nat -N IN_REDIRECT; iptables -w -t nat -A IN_REDIRECT -p tcp -j REDIRECT --to-ports 8080
          iptables -w -t nat -A PREROUTING -p tcp --dport 80 -j IN_REDIRECT
          iptables -w -t nat -A OUTPUT -p tcp -m owner --uid-owner 1337 -j RETURN
          iptables -w -t nat -A OUTPUT -p tcp -d 1.2.3.4/32 --dport 81 -j REDIRECT --to-ports 8080
          iptables-save -t nat
        securityContext: {runAsUser: 0, capabilities: {drop: [ALL], add: [NET_ADMIN, NET_RAW]}}
      - name: native-sidecar
        image: localhost/tapp:1
        imagePullPolicy: Never
        restartPolicy: Always
        args: [serve, ":9091"]
        securityContext: {runAsUser: 1337}
        startupProbe: {httpGet: {path: /healthz, port: 9091}, periodSeconds: 1}
      containers:
      - name: web
        image: localhost/tapp:1
        imagePullPolicy: Never
        args: [serve, ":8080"]
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
        livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 2}
        volumeMounts: [{name: tok, mountPath: /tok}]
      volumes:
      - name: tok
        projected: {sources: [{serviceAccountToken: {path: token, audience: my-aud, expirationSeconds: 600}}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 80}, {name: direct, port: 8080, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: localhost/tapp:1, imagePullPolicy: Never, args: [serve, ":8080"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: hook, labels: {app: hook}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: localhost/tapp:1, imagePullPolicy: Never, args: [webhook, /tls], volumeMounts: [{name: t, mountPath: /tls}], readinessProbe: {tcpSocket: {port: 8443}, periodSeconds: 1}}]
  volumes: [{name: t, secret: {secretName: hook}}]
---
apiVersion: v1
kind: Service
metadata: {name: hook}
spec: {selector: {app: hook}, ports: [{port: 443, targetPort: 8443}]}
Y
$K -n $NS apply -f $W/m.yaml >/dev/null || no apply
$K -n $NS rollout status deploy/web --timeout=90s >/dev/null 2>&1 && ok "deployment with NET_ADMIN init container and native sidecar is ready" || no "rollout" "$($K -n $NS get pods; $K -n $NS get events | tail -5)"
$K -n $NS wait --for=condition=Ready pod/client pod/hook --timeout=60s >/dev/null 2>&1 && ok "plain pods ready" || no "plain pods"
echo "     ready after $(awk "BEGIN{print $(date +%s.%N)-$t0}") s"
P=$($K -n $NS get pods -l app=web -o jsonpath='{.items[0].metadata.name}'); IP=$($K -n $NS get pod $P -o jsonpath='{.status.podIP}')
SVC=$($K -n $NS get svc web -o jsonpath='{.spec.clusterIP}')
has "init container's iptables rules" "$($K -n $NS logs $P -c redirect)" "to-ports 8080"
has "pod to pod" "$($K -n $NS exec client -- /tapp get http://$IP:8080/ 2>&1)" "hello from $P"
has "iptables REDIRECT inbound (port 80 -> 8080)" "$($K -n $NS exec client -- /tapp get http://$IP:80/ 2>&1)" "hello from $P"
has "iptables REDIRECT outbound (OUTPUT chain)" "$($K -n $NS exec $P -c web -- /tapp get http://1.2.3.4:81/ 2>&1)" "hello from $P"
out=$($K -n $NS exec $P -c native-sidecar -- /tapp get http://1.2.3.4:81/ 2>&1); case "$out" in *hello*) no "owner match RETURN for uid 1337" "$out";; *) ok "owner match RETURN for uid 1337";; esac
has "Service ClusterIP" "$($K -n $NS exec client -- /tapp get http://$SVC:8080/ 2>&1)" "hello from web-"
has "Service ClusterIP to redirected port" "$($K -n $NS exec client -- /tapp get http://$SVC/ 2>&1)" "hello from web-"
has "Service DNS name" "$($K -n $NS exec client -- /tapp get http://web.$NS.svc:8080/ 2>&1)" "hello from web-"
has "native sidecar counted (restartPolicy Always init)" "$($K -n $NS get pod $P -o jsonpath='{.status.initContainerStatuses[1].started}{.status.initContainerStatuses[1].state}')" 'true{"running"'
tr=$($K -n $NS exec $P -c web -- /tapp tokenreview /tok/token my-aud 2>&1); has "TokenReview of projected token with audience" "$tr" '"authenticated":true'
has "TokenReview names pod" "$tr" "authentication.kubernetes.io/pod-name"
tr=$($K -n $NS exec $P -c web -- /tapp tokenreview /tok/token other 2>&1); case "$tr" in *'"authenticated":true'*) no "TokenReview wrong audience refused" "$tr";; *) ok "TokenReview wrong audience refused";; esac
cat > $W/w.yaml <<Y
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: $NS-hook}
webhooks:
- name: hook.$NS.svc
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  clientConfig: {service: {namespace: $NS, name: hook, path: /mutate, port: 443}, caBundle: $(base64 -w0 < $W/tls.crt)}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  objectSelector: {matchLabels: {inject: "yes"}}
Y
$K apply -f $W/w.yaml >/dev/null; sleep 1
for i in 1 2 3 4 5; do out=$($K -n $NS run inj --image=localhost/tapp:1 --image-pull-policy=Never --labels=inject=yes -- serve :8080 2>&1) && break; sleep 1; done
$K -n $NS wait --for=condition=Ready pod/inj --timeout=30s >/dev/null 2>&1
has "mutating webhook injects a native sidecar" "$out$($K -n $NS get pod inj -o jsonpath='{.metadata.labels.injected} {.spec.initContainers[0].name} {.status.initContainerStatuses[0].ready}')" "yes injected true"
has "kubectl logs" "$($K -n $NS logs inj -c inj)" "serving"
$K -n $NS exec client -- /tapp get http://$($K -n $NS get pod inj -o jsonpath='{.status.podIP}'):8080/die >/dev/null 2>&1
$K -n $NS exec client -- /tapp get http://$IP:8080/die >/dev/null 2>&1
$K -n $NS port-forward pod/client 18080:8080 >$W/pf 2>&1 & PF=$!
for i in $(seq 40); do grep -q Forwarding $W/pf && break; sleep 0.1; done
has "kubectl port-forward" "$(curl -s -m 5 http://127.0.0.1:18080/)" "hello from client"; kill $PF; wait $PF 2>/dev/null
r=0; for i in $(seq 30); do r=$($K -n $NS get pod $P -o jsonpath='{.status.containerStatuses[0].restartCount}'); [ "$r" -ge 1 ] && break; sleep 1; done
[ "$r" -ge 1 ] && ok "liveness probe restarts a failed container (after ${i} s)" || no "liveness probe"
$K -n $NS exec client -- /tapp get http://$($K get nodes -o jsonpath='{.items[0].status.addresses[0].address}'):10256/healthz >/dev/null 2>&1 && ok "pod reaches node address" || no "pod reaches node address"
$K delete mutatingwebhookconfiguration $NS-hook >/dev/null; $K delete clusterrolebinding $NS-tokenreview > /dev/null
[ -n "${KEEP:-}" ] || $K delete ns $NS --wait=false >/dev/null
echo "     total $(awk "BEGIN{print $(date +%s.%N)-$t0}") s"; echo "$pass passed, $fail failed"; [ $fail = 0 ]
