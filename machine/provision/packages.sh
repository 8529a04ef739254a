# Installs packages with the host's own manager and notes what was added, in /etc/machine/packages.new.
# Input: this script's arguments are the manager and the packages (constants of plan.py).
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l LC_ALL=C
export PATH DEBIAN_FRONTEND NEEDRESTART_MODE LC_ALL
manager=$1
shift
mkdir -p /etc/machine
before=/etc/machine/packages.before
list() {
    case $manager in
    apt-get) dpkg-query -W -f='${db:Status-Abbrev} ${Package}\n' | sed -n 's/^ii *//p' ;;
    dnf | yum | zypper) rpm -qa --qf '%{NAME}\n' ;;
    pacman) pacman -Qq ;;
    apk) apk info -q ;;
    esac | sort -u
}
apt_update() {
    # The lists' lock has no waiting option of its own, and cloud images update in the background.
    n=0
    until out=$(apt-get -q -o Acquire::Retries=3 update 2>&1); do
        case $out in *"Could not get lock"* | *"Unable to lock"*) ;; *) echo "$out" >&2; return 1 ;; esac
        n=$((n + 1))
        [ "$n" -gt 150 ] && { echo "$out" >&2; return 1; }
        sleep 2
    done
}
install() {
    case $manager in
    apt-get) apt-get -y -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 --no-install-recommends install "$@" ;;
    dnf | yum) $manager -y -q install "$@" ;;
    zypper) zypper --non-interactive --quiet install --no-recommends "$@" ;;
    pacman) pacman -Sy --noconfirm --needed "$@" ;;
    apk) apk add -q "$@" ;;
    esac
}
[ -f $before ] || list >$before
if [ "$manager" = apt-get ]; then
    # With current lists (another run, a fresh image) the update is saved.
    install "$@" >/dev/null 2>&1 || { apt_update && install "$@"; }
else
    install "$@"
fi >/dev/null
status=$?
list | comm -13 $before - >/etc/machine/packages.added
cat /etc/machine/packages.added >>/etc/machine/packages.new
rm -f $before /etc/machine/packages.added
exit $status
