# runs inside a lab host: is it a place for a container engine? one line for each thing that works
set -u
D=/var/lib/machine/nested; mkdir -p $D/lower/bin $D/upper $D/work $D/root
cd $D; apt-get -qq update; apt-get -qq download busybox-static >/dev/null && dpkg-deb -x busybox-static_*.deb bb
cp bb/bin/busybox lower/bin/
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work root && [ -x root/bin/busybox ] && echo "overlay ok"
mkdir -p prop; mount --bind prop prop; mount --make-shared prop; mkdir -p prop/x
unshare -m --propagation unchanged mount -t tmpfs t prop/x; mountpoint -q prop/x && echo "shared mount ok"; umount prop/x prop
ip netns add n1; ip link add br9 type bridge; ip link set br9 up; ip addr add 172.30.0.1/24 dev br9
ip link add v1 type veth peer name eth0 netns n1; ip link set v1 master br9 up
ip -n n1 addr add 172.30.0.2/24 dev eth0; ip -n n1 link set eth0 up; ip -n n1 route add default via 172.30.0.1
echo 1 >/proc/sys/net/ipv4/ip_forward
nft -f - <<N && echo "nat ok"
table ip t {
  map ports {
    type inet_service : ipv4_addr . inet_service
    elements = { 8080 : 172.30.0.2 . 80 }
  }
  chain pre {
    type nat hook prerouting priority -100;
    dnat ip to tcp dport map @ports
  }
  chain post {
    type nat hook postrouting priority 100;
    ip saddr 172.30.0.0/24 oifname "eth0" masquerade
  }
}
N
gateway=$(ip route show default | cut -d' ' -f3)
ip netns exec n1 ping -c1 -W2 $gateway >/dev/null && echo "ping ok"
truncate -s 16M disk; mkfs.ext4 -q disk; mkdir -p mnt; mount -o loop disk mnt && echo "loop ok"; umount mnt
mkdir -p root/proc root/sys root/dev b; ln -s ../root b/rootfs; cd b
bundle() { rm -f config.json; runc spec; python3 - "$1" <<'P'
import json, sys
c = json.load(open("config.json")); c["process"].update(terminal=False, rlimits=[], args=["/bin/busybox", "sh", "-c", sys.argv[1]])
c["root"] = {"path": "/var/lib/machine/nested/root", "readonly": False}
c["linux"]["resources"].update(memory={"limit": 64 << 20}, pids={"limit": 50}, cpu={"shares": 512, "quota": 50000, "period": 100000})
c["linux"]["cgroupsPath"] = "/nested"
json.dump(c, open("config.json", "w"))
P
}
show='busybox echo up; busybox sleep 0.3; busybox true'
see() { sleep 0.15; echo "$1 memory $(cat /sys/fs/cgroup/memory/nested/memory.limit_in_bytes) pids $(cat /sys/fs/cgroup/pids/nested/pids.max)"; }
bundle "/bin/busybox sleep 0.4"
for runtime in runc crun; do
  $runtime run c-$runtime </dev/null >/dev/null 2>log & line=$(see $runtime); wait $!; echo "$line rc $?"; cat log
done
bundle "/bin/busybox sleep 0.4; exit 7"
mkdir -p exits sockets; id=c-conmon
conmon -c $id -u $id --socket-dir-path $D/b/sockets -r /usr/bin/crun -b $D/b -p $D/b/pid --exit-dir $D/b/exits -l k8s-file:$D/b/log </dev/null >/dev/null 2>&1
for i in $(seq 50); do crun state $id 2>/dev/null | grep -q created && break; sleep 0.1; done  # conmon does not wait for it
crun start $id; line=$(see "conmon crun"); for i in $(seq 50); do [ -e exits/$id ] && break; sleep 0.1; done
echo "$line rc $(cat exits/$id)"; crun delete $id
cd /; umount $D/root; ip netns del n1; ip link del br9; nft delete table ip t; rm -rf $D
