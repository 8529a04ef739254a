"""OCI runtimes that are older than the fixes of 2026 (security.md C31): said, not refused.

Distributions put fixes into older versions, so a number alone does not prove that one is missing.
What those holes need, a hostile /dev or /proc in an image, the init layer below every container
takes away; it is the first lock, the runtime the second.
"""

from __future__ import annotations

import re
from typing import Final

# Each series has its own floor, ascending; what is newer than all of them is fine.
_FLOORS: Final = {
    "crun": (((1, 28),), "CVE-2026-47766"),
    "runc": (((1, 3, 6), (1, 4, 3), (1, 5, 0)), "CVE-2026-41579, CVE-2025-31133, CVE-2025-52565"),
}


def warning(name: str, version: str) -> str:
    """A line for /info and the log, "" when there is nothing to say.  `version`: "1.8.1"."""
    numbers = tuple(int(word) for word in re.findall(r"[0-9]+", version)[:3])
    if not numbers or name not in _FLOORS:
        return ""
    floors, holes = _FLOORS[name]
    known = any(numbers[:2] == floor[:2] and numbers >= floor for floor in floors)
    if known or numbers >= floors[-1]:
        return ""
    wanted = ".".join(str(number) for number in floors[0])
    return (
        f"WARNING: {name} {version} is older than {wanted} ({holes}: a hostile image can lead it out"
        " of its container) unless the distribution has added the fixes; this engine's own layer"
        f" below every container keeps images from it, but upgrade {name} when there is a newer one"
    )
