"""The registry's images, all made from Debian packages, under the names of Docker Hub's."""

import os
import platform
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.lab.cache import key_of
from tests.lab.debian import MINIMAL_KEY, Debian
from tests.lab.elf import hello
from tests.lab.oci import Blobs, Built, Config, Layer, Reference, fill_store, load, write_tar
from tests.lab.process import run

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
_VERSION = 2  # of everything below that the keys cannot see

_HTTPD = r"""
mkdir -p /usr/local/apache2; ln -s /var/www/html /usr/local/apache2/htdocs
echo '<html><body><h1>It works!</h1></body></html>' >/var/www/html/index.html
cat >/usr/local/bin/httpd-foreground <<'X'
#!/bin/sh
set -e
rm -f /var/run/apache2/apache2.pid
. /etc/apache2/envvars
mkdir -p /run/lock /run/apache2 /run/lock/apache2
exec apache2 -DFOREGROUND "$@"
X
chmod +x /usr/local/bin/httpd-foreground
ln -sf /proc/self/fd/1 /var/log/apache2/access.log; ln -sf /proc/self/fd/2 /var/log/apache2/error.log
echo ServerName localhost >>/etc/apache2/apache2.conf
"""
_NGINX = r"""
mkdir -p /usr/share/nginx/html
sed -i s,/var/www/html,/usr/share/nginx/html, /etc/nginx/sites-available/default
echo '<html><head><title>Welcome to nginx!</title></head></html>' >/usr/share/nginx/html/index.html
ln -sf /dev/stdout /var/log/nginx/access.log; ln -sf /dev/stderr /var/log/nginx/error.log
"""
_POSTGRES = r"""
rm -rf /var/lib/postgresql/15
cat >/usr/local/bin/docker-entrypoint.sh <<'X'
#!/bin/sh
set -e
case "${1:-postgres}" in postgres) [ $# = 0 ] || shift ;; -*) ;; *) exec "$@" ;; esac
export PGDATA=${PGDATA:-/var/lib/postgresql/data}
B=/usr/lib/postgresql/15/bin
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  mkdir -p "$PGDATA"; chown -R postgres:postgres "$PGDATA"; chmod 700 "$PGDATA"
  su postgres -c "$B/initdb -D $PGDATA -A trust >/dev/null"
  echo 'host all all all trust' >>"$PGDATA/pg_hba.conf"
fi
install -d -o postgres -g postgres /run/postgresql
exec setpriv --reuid=postgres --regid=postgres --init-groups $B/postgres -D "$PGDATA" -c 'listen_addresses=*' "$@"
X
chmod +x /usr/local/bin/docker-entrypoint.sh
"""


@dataclass(frozen=True)
class Derived:
    """An image that is `debian` and one layer."""

    packages: str
    after: str
    config: Config
    tags: tuple[str, ...] = field(default=())


DERIVED: Mapping[str, Derived] = {
    "httpd": Derived(
        "apache2", _HTTPD,
        Config(["httpd-foreground"], ports=["80/tcp"], directory="/usr/local/apache2",
               stop_signal="SIGWINCH"), ("2.4",),
    ),
    "nginx": Derived(
        "nginx-light", _NGINX,
        Config(["nginx", "-g", "daemon off;"], ports=["80/tcp"], stop_signal="SIGQUIT"), ("1.22",),
    ),
    "redis": Derived(
        "redis-server", "mkdir -p /data; chown redis:redis /data",
        Config(["redis-server", "--protected-mode", "no"], ports=["6379/tcp"], volumes=["/data"],
               directory="/data"), ("7",),
    ),
    "postgres": Derived(
        "postgresql-15", _POSTGRES,
        Config(["postgres"], ["docker-entrypoint.sh"], ports=["5432/tcp"],
               volumes=["/var/lib/postgresql/data"], stop_signal="SIGINT"), ("15",),
    ),
    "python": Derived(
        "python3", "ln -sf python3 /usr/bin/python",
        Config(["python3"], environment=["PYTHON_VERSION=3.11"]), ("3", "3.11"),
    ),
}  # fmt: skip

_USERS = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
_GROUPS = "root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nnobody:x:65534:\n"
_HELLO = "\nHello from Docker!\nThis message shows that your installation appears to be working correctly.\n\n"


def _names(name: str, *tags: str) -> list[str]:
    return [f"library/{name}:{t}" for t in ("latest", *tags)]


def _fill_layer(seed: int, megabytes: int) -> Callable[[Path], None]:
    """Files that gzip halves, as programs and libraries: half noise, half zeros and text."""

    def fill(root: Path) -> None:
        noise = random.Random(seed)
        top = root / f"srv/layer{seed}"
        for n in range(megabytes * 8):
            folder = top / f"d{n % 16}"
            folder.mkdir(parents=True, exist_ok=True)
            text = f"layer {seed} file {n} of the lab\n".encode() * 4096
            (folder / f"f{n}").write_bytes(noise.randbytes(1 << 17) + text[: 1 << 17])

    return fill


class ImageBuilder:
    """Builds each image into the cache and all of them into a registry's store."""

    def __init__(self, debian: Debian) -> None:
        self._debian = debian
        self._cache = debian.cache

    def _image(self, name: str, key: str, make: Callable[[Path, Blobs], Built]) -> Path:
        def build(place: Path) -> None:
            make(place, Blobs(place / "blobs")).save(place)

        return self._cache.entry(f"image-{name}", key, build)

    def _tree_layer(self, blobs: Blobs, fill: Callable[[Path], None]) -> Layer:
        with tempfile.TemporaryDirectory(dir=self._cache.root, prefix=".tmp-tree-") as scratch:
            root = Path(scratch, "root")
            root.mkdir(mode=0o755)
            fill(root)
            return blobs.gzip_layer(lambda sink: write_tar(root, sink))

    def _busybox_binary(self) -> Path:
        def build(place: Path) -> None:
            (place / "debs").mkdir()
            found = self._debian.download(
                place / "debs", [self._debian.minimal()], "busybox-static"
            )
            run(["dpkg-deb", "-x", str(found[0]), str(place / "root")])

        place = self._cache.entry("busybox", key_of("busybox", 1, MINIMAL_KEY), build)
        return place / "root/bin/busybox"

    def _fill_busybox(self, root: Path) -> None:
        binary = self._busybox_binary()
        folders = "bin dev etc home proc root sys tmp usr/bin usr/sbin sbin var/spool var/www lib"
        for folder in folders.split():
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "tmp").chmod(0o1777)
        (root / "root").chmod(0o700)
        shutil.copy(binary, root / "bin/busybox")
        (root / "bin/busybox").chmod(0o755)
        for applet in run([str(binary), "--list"]).stdout.split():
            if applet != "busybox":
                os.link(root / "bin/busybox", root / "bin" / applet)
        (root / "usr/bin/env").symlink_to("/bin/env")
        (root / "etc/passwd").write_text(_USERS)
        (root / "etc/group").write_text(_GROUPS)

    def _fill_alpine(self, root: Path) -> None:
        self._fill_busybox(root)
        release = 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.19.0\nPRETTY_NAME="busybox, named Alpine"\n'
        (root / "etc/os-release").write_text(release)
        (root / "etc/alpine-release").write_text("3.19.0\n")

    def _simple(self, name: str, fill: Callable[[Path], None], config: Config, *tags: str) -> Path:
        def make(_: Path, blobs: Blobs) -> Built:
            layer = self._tree_layer(blobs, fill)
            made = blobs.manifest([layer], config, ARCHITECTURE)
            return Built((layer,), dict.fromkeys(_names(name, *tags), made.digest))

        return self._image(name, key_of(name, _VERSION, config.to_json(), tags, _USERS), make)

    def busybox(self) -> Path:
        """`busybox`, a static binary with its applets as hard links."""
        return self._simple("busybox", self._fill_busybox, Config(["sh"]), "1.35")

    def alpine(self) -> Path:
        """`alpine`: busybox under that name."""
        return self._simple("alpine", self._fill_alpine, Config(["/bin/sh"]), "3.19")

    def hello_world(self) -> Path:
        """`hello-world`, 300 bytes of program."""

        def fill(root: Path) -> None:
            (root / "hello").write_bytes(hello(ARCHITECTURE, _HELLO))
            (root / "hello").chmod(0o755)

        return self._simple("hello-world", fill, Config(["/hello"]))

    def debian(self) -> Path:
        """`debian`: the minimal system."""

        def make(_: Path, blobs: Blobs) -> Built:
            root = self._debian.minimal()
            layer = blobs.gzip_layer(lambda sink: write_tar(root, sink))
            made = blobs.manifest([layer], Config(["bash"]), ARCHITECTURE)
            names = _names("debian", "bookworm", "bookworm-slim", "12")
            return Built((layer,), dict.fromkeys(names, made.digest))

        return self._image("debian", key_of("debian", _VERSION, MINIMAL_KEY), make)

    def derived(self, name: str) -> Path:
        """`debian` and one layer."""
        recipe = DERIVED[name]

        def make(place: Path, blobs: Blobs) -> Built:
            self._debian.layer(
                place / "layer", [self._debian.minimal()], recipe.packages, recipe.after
            )
            root = place / "layer/root"
            layer = blobs.gzip_layer(lambda sink: write_tar(root, sink))
            shutil.rmtree(place / "layer")
            layers = (*load(self.debian()).layers, layer)
            made = blobs.manifest(layers, recipe.config, ARCHITECTURE)
            return Built(layers, dict.fromkeys(_names(name, *recipe.tags), made.digest))

        config = recipe.config.to_json()
        key = key_of(name, _VERSION, MINIMAL_KEY, recipe.packages, recipe.after, config)
        return self._image(name, key, make)

    def layers(self) -> Path:
        """`layers`: busybox and five layers of about 20 MB, gzip; `layers:zstd` the same in zstd."""

        def make(_: Path, blobs: Blobs) -> Built:
            bottom = self._tree_layer(blobs, self._fill_busybox)
            with ThreadPoolExecutor(4) as pool:
                five = list(
                    pool.map(lambda n: self._tree_layer(blobs, _fill_layer(n, 19)), range(1, 6))
                )
                gzip_layers = [bottom, *five]
                zstd_layers = list(pool.map(blobs.zstd_layer, gzip_layers))
            config = Config(["sh"])
            plain = blobs.manifest(gzip_layers, config, ARCHITECTURE)
            zstd = blobs.manifest(zstd_layers, config, ARCHITECTURE, "oci")
            tags = dict.fromkeys(_names("layers", "gzip"), plain.digest)
            return Built(tuple(gzip_layers), tags | {"library/layers:zstd": zstd.digest})

        return self._image("layers", key_of("layers", _VERSION), make)

    def large(self) -> Path:
        """`large`: busybox and one layer of about 100 MB, for measuring pulls."""

        def make(_: Path, blobs: Blobs) -> Built:
            bottom = self._tree_layer(blobs, self._fill_busybox)
            top = self._tree_layer(blobs, _fill_layer(9, 95))
            made = blobs.manifest([bottom, top], Config(["sh"]), ARCHITECTURE)
            return Built((bottom, top), dict.fromkeys(_names("large"), made.digest))

        return self._image("large", key_of("large", _VERSION), make)

    def multi(self) -> Path:
        """`multi`: an OCI index for amd64 and arm64; `multi:list` as a Docker manifest list.

        The images say which architecture they are for (label `lab.architecture` and output).
        """

        def one(blobs: Blobs, machine: str) -> tuple[Layer, Config]:
            def fill(root: Path) -> None:
                (root / "hello").write_bytes(hello(machine, f"hello from {machine}\n"))
                (root / "hello").chmod(0o755)

            config = Config(["/hello"], labels={"lab.architecture": machine})
            return self._tree_layer(blobs, fill), config

        def make(_: Path, blobs: Blobs) -> Built:
            parts = {m: one(blobs, m) for m in ("amd64", "arm64")}
            oci: list[Reference] = []
            docker: list[Reference] = []
            for machine, (layer, config) in parts.items():
                oci.append(blobs.manifest([layer], config, machine, "oci"))
                docker.append(blobs.manifest([layer], config, machine))
            index, listing = blobs.index(oci, "oci"), blobs.index(docker)
            tags = dict.fromkeys(_names("multi", "oci"), index.digest)
            return Built(
                tuple(layer for layer, _ in parts.values()),
                tags | {"library/multi:list": listing.digest},
                tuple(x.digest for x in [*oci, *docker]),
            )

        return self._image("multi", key_of("multi", _VERSION), make)

    def everything(self, workers: int = 4) -> list[Path]:
        """Every image's cache folder, the missing ones built at the same time."""
        self._debian.minimal()
        jobs: list[Callable[[], Path]] = [self.debian]
        jobs += [
            partial(self.derived, n) for n in ("postgres", "httpd", "python", "nginx", "redis")
        ]
        jobs += [self.layers, self.large, self.busybox, self.alpine, self.hello_world, self.multi]
        with ThreadPoolExecutor(workers) as pool:
            return [future.result() for future in [pool.submit(job) for job in jobs]]

    def store(self) -> Path:
        """A folder that docker-registry can serve, with every image in it."""
        images = self.everything()

        def build(place: Path) -> None:
            fill_store(place, images)

        return self._cache.entry("store", key_of("store", 1, sorted(p.name for p in images)), build)
