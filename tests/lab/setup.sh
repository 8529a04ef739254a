# Sourced by ./quickstart and ./test: what a fresh Debian 12 lacks. Says what it does, once.
# shellcheck shell=bash

need_root() {
  [ "$(id -u)" = 0 ] || { echo "$0: needs root (the lab makes namespaces and mounts)" >&2; exit 1; }
}

# need_packages NAME...: those that are not installed, in one transaction. No mirror is asked when all are there.
# None of them starts a service: this is the user's computer, and the tests start what they need themselves.
need_packages() {
  local missing=() name state
  for name in "$@"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) || true
    [ "$state" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} = 0 ] && return
  echo "Installing Debian packages: ${missing[*]}"
  apt-get -qq update
  local policy=/usr/sbin/policy-rc.d made= failed=
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy && made=1
  fi
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends \
    "${missing[@]}" >/dev/null || failed=1
  [ -z "$made" ] || rm -f $policy
  [ -z "$failed" ] || return 1
  [[ " ${missing[*]} " != *" openssh-server "* ]] || [ ! -d /run/systemd/system ] || systemctl -q disable ssh.service
}

# own_root ARGUMENTS: go on in a mount namespace whose root is this one. In a chroot they differ, and what enters
# a container's namespaces (an exec) would come out at the computer's root.
own_root() {
  [ -z "${OWN_ROOT:-}" ] || return 0
  .venv/bin/python -m tests.lab.ownroot --needed || return 0
  OWN_ROOT=1 exec .venv/bin/python -m tests.lab.ownroot "$0" "$@"
}

# need_venv WHAT: .venv with this project (WHAT "." or ".[test]"), again only when pyproject.toml has changed.
need_venv() {
  local what=$1 stamp now
  [ "$what" = . ] && stamp=.venv/.installed || stamp=.venv/.installed-test
  now=$(sha256sum pyproject.toml)
  [ -x .venv/bin/python ] || { echo "Making a virtual environment in .venv"; rm -rf .venv; python3 -m venv .venv; }
  [ "$(cat "$stamp" 2>/dev/null)" = "$now" ] && return
  # all that a plain install has, the test install has too
  [ "$what" = . ] && [ "$(cat .venv/.installed-test 2>/dev/null)" = "$now" ] && return
  echo "Installing Python packages into .venv"
  .venv/bin/python -m pip install -qq --disable-pip-version-check -e "$what"
  printf '%s\n' "$now" >"$stamp"
}

LAB_PACKAGES="python3 python3-venv ca-certificates curl mmdebstrap zstd openssh-client iproute2 util-linux"
