#!/bin/sh
# What the agent stands on, installed while the rest of the first boot goes on. What is there is left alone;
# a failure is told in cloud-init's log, and provisioning installs what is missing then.
have() { command -v "$1" >/dev/null 2>&1; }
nft() { for l in /usr/lib/*/libnftables.so.1 /usr/lib64/libnftables.so.1 /usr/lib/libnftables.so.1; do [ -e "$l" ] && return; done; false; }
tiny() { have tini || have catatonit; }
{ have crun || have runc; } && have conmon && nft && tiny && exit 0
if have apt-get; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 update
  exec apt-get -y -q -o DPkg::Lock::Timeout=300 --no-install-recommends install python3 crun conmon nftables ca-certificates tini
elif have dnf; then
  exec dnf -y -q install python3.11 crun conmon nftables ca-certificates
elif have zypper; then
  exec zypper --non-interactive --quiet install --no-recommends python311 crun conmon nftables ca-certificates catatonit
elif have apk; then
  exec apk add -q python3 crun conmon nftables ca-certificates tini
fi
