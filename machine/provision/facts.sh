# One round trip: what the host is and has. Changes nothing. KEY<tab>VALUE lines, parsed by facts.py.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C
say() { printf '%s\t%s\n' "$1" "$2"; }
have() { command -v "$1" 2>/dev/null | head -n 1; }
say begin 1
say uid "$(id -u)"
say clock "$(date -u +%s)"
say arch "$(uname -m)"
say kernel "$(uname -r)"
say system "$(uname -s)"
say bits "$(getconf LONG_BIT 2>/dev/null)"
say hostname "$(uname -n)"
for f in /etc/os-release /usr/lib/os-release; do
    [ -r $f ] && { while IFS= read -r l; do say os "$l"; done <$f; break; }
done
if [ -d /run/systemd/system ]; then say init systemd; else say init other; fi
for p in /usr/bin/python3 /usr/bin/python3.14 /usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11 /usr/local/bin/python3; do
    [ -x $p ] || continue
    v=$($p -I -S -c 'import sys,ssl,sqlite3,ctypes,json; print("%d.%d %d" % (sys.version_info[0], sys.version_info[1], 64 if sys.maxsize > 2**32 else 32))' 2>/dev/null) || v=broken
    say python "$p $v"
    case $v in 3.1[1-9]*) break ;; esac
done
for t in crun runc conmon nft openssl tini catatonit docker-init apt-get dnf yum zypper pacman apk sudo dockerd podman iptables setsid; do
    p=$(have $t); [ -n "$p" ] && say "tool.$t" "$p"
done
for f in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem; do
    [ -s $f ] && { say ca-bundle $f; break; }
done
for d in /usr/lib /usr/lib64 /lib /lib64 /usr/lib/*-linux-gnu* /lib/*-linux-gnu*; do
    for f in "$d"/libnftables.so.1*; do [ -e "$f" ] && { say libnftables "$f"; break 2; }; done
done
for d in /opt /etc /var/lib /usr/local; do
    while [ ! -d "$d" ] && [ "$d" != / ]; do d=${d%/*}; d=${d:-/}; done
    [ -w "$d" ] || say readonly "$d"
done
df -Pk /var/lib 2>/dev/null | { read -r _; read -r _ _ _ free _; say disk-var "$free"; }
df -Pk /opt 2>/dev/null | { read -r _; read -r _ _ _ free _; say disk-opt "$free"; }
grep -h ' 0A ' /proc/net/tcp /proc/net/tcp6 2>/dev/null | while read -r _ l _; do say listen "${l##*:}"; done
[ -S /var/run/docker.sock ] && say docker-socket /var/run/docker.sock
[ -r /etc/machine/owner.json ] && say owner "$(head -c 4096 /etc/machine/owner.json | tr -d '\n\t')"
[ -L /opt/machine/agent ] && say bundle "$(readlink /opt/machine/agent)"
[ -e /sys/fs/cgroup/cgroup.controllers ] && say cgroup v2
for k in overlay; do grep -qw $k /proc/filesystems && say filesystem $k; done
[ -n "$SUDO_USER" ] && say sudo-user "$SUDO_USER"
say end 1
