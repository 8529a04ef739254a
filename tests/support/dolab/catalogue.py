"""What an account may choose from: some regions, sizes and images, in the API's shapes."""

from typing import Any

Doc = dict[str, Any]

_PLACES = {
    "nyc1": "New York 1",
    "nyc3": "New York 3",
    "fra1": "Frankfurt 1",
    "sgp1": "Singapore 1",
}
_CLOSED = "nyc2"
_SIZES = (  # slug, MiB, CPUs, GiB, dollars a month
    ("s-1vcpu-512mb-10gb", 512, 1, 10, 4.0),
    ("s-1vcpu-1gb", 1024, 1, 25, 6.0),
    ("s-1vcpu-2gb", 2048, 1, 50, 12.0),
    ("s-2vcpu-2gb", 2048, 2, 60, 18.0),
    ("s-2vcpu-4gb", 4096, 2, 80, 24.0),
)
_IMAGES = (  # number, name, distribution, slug
    (129211873, "11 x64", "Debian", "debian-11-x64"),
    (156100001, "12 x64", "Debian", "debian-12-x64"),
    (156100002, "13 x64", "Debian", "debian-13-x64"),
    (156100003, "22.04 (LTS) x64", "Ubuntu", "ubuntu-22-04-x64"),
    (156100004, "24.04 (LTS) x64", "Ubuntu", "ubuntu-24-04-x64"),
    (156100005, "25.10 x64", "Ubuntu", "ubuntu-25-10-x64"),
    (156100006, "9 Stream x64", "CentOS", "centos-stream-9-x64"),
)


def regions() -> list[Doc]:
    """The last one takes no new droplets."""
    open_ones = [_region(slug, name, available=True) for slug, name in _PLACES.items()]
    return [*open_ones, _region(_CLOSED, "New York 2", available=False)]


def sizes() -> list[Doc]:
    return [
        {
            "slug": slug,
            "memory": memory,
            "vcpus": cpus,
            "disk": disk,
            "transfer": 1.0,
            "price_monthly": price,
            "price_hourly": price / 672,
            "regions": ["nyc3"] if slug == "s-1vcpu-512mb-10gb" else sorted(_PLACES),
            "available": True,
            "description": "Basic",
        }
        for slug, memory, cpus, disk, price in _SIZES
    ]


def images() -> list[Doc]:
    return [
        {
            "id": number,
            "name": name,
            "distribution": distribution,
            "slug": slug,
            "type": "base",
            "public": True,
            "regions": sorted(_PLACES),
            "created_at": "2026-01-15T08:00:00Z",
            "min_disk_size": 20 if slug.startswith("centos") else 7,
            "size_gigabytes": 2.36,
            "description": name,
            "tags": [],
            "status": "available",
            "error_message": "",
        }
        for number, name, distribution, slug in _IMAGES
    ]


def _region(slug: str, name: str, *, available: bool) -> Doc:
    features = ["backups", "ipv6", "metadata", "install_agent", "storage", "image_transfer"]
    return {
        "slug": slug,
        "name": name,
        "features": [] if slug == "sgp1" else features,
        "available": available,
        "sizes": [row[0] for row in _SIZES],
    }
