#!/bin/bash
# Stop our own daemon (by its pid file) and take away what it left.
D=${D:?state folder}; export DOCKER_HOST=unix://$D/docker.sock
ids=$(docker ps -aq 2>/dev/null); [ -z "$ids" ] || docker rm -fv $ids >/dev/null
for n in $(docker network ls -q --filter type=custom); do docker network rm $n >/dev/null; done
p=$(cat $D/dockerd.pid 2>/dev/null) && kill $p && for i in $(seq 100); do kill -0 $p 2>/dev/null || break; sleep 0.1; done
for dev in $(ip -o route show default | awk '{for(i=1;i<NF;i++)if($i=="dev")print $(i+1)}' | sort -u); do
  iptables -w -D DOCKER-USER -o $dev -j REJECT 2>/dev/null; ip6tables -w -D FORWARD -o $dev -j REJECT 2>/dev/null; done
# dockerd leaves its chains and its bridge behind
{
  ip link del docker0 2>/dev/null
  for t in nat filter; do
    iptables -w -t $t -S | grep -E '^-A .*(DOCKER|docker0)' | sed 's/^-A/-D/' | while read -r r; do eval iptables -w -t $t $r; done
    for c in $(iptables -w -t $t -S | awk '/^-N DOCKER/{print $2}'); do iptables -w -t $t -F $c; done
    for c in $(iptables -w -t $t -S | awk '/^-N DOCKER/{print $2}'); do iptables -w -t $t -X $c; done
  done; iptables -w -P FORWARD ACCEPT
}
rm -rf $D/run $D/docker.sock $D/dockerd.pid
