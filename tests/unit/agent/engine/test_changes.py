"""docker diff on plain directories (whiteouts need a device node: those are in tests/live)."""

import os

from agent.engine.changes import Change, ChangeKind, changes_of


def test_changes(tmp_path):
    upper, top, base = (tmp_path / name for name in ("upper", "top", "base"))
    for folder in (upper / "etc", upper / "new/deep", top / "etc", base / "etc", base / "usr/lib"):
        folder.mkdir(parents=True)
    (base / "etc/passwd").write_text("a")
    (base / "usr/lib/x").write_text("a")
    (upper / "etc/passwd").write_text("ab")
    (upper / "etc/link").symlink_to("passwd")
    (upper / "new/deep/f").write_text("")
    (upper / "usr/lib").mkdir(parents=True)
    for folder in ("usr", "usr/lib"):  # touched by nothing: looks the same
        info = (base / folder).stat()
        os.utime(upper / folder, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert changes_of(str(upper), [str(top), str(base)]) == [
        Change("/etc", ChangeKind.MODIFIED),
        Change("/etc/link", ChangeKind.ADDED),
        Change("/etc/passwd", ChangeKind.MODIFIED),
        Change("/new", ChangeKind.ADDED),
        Change("/new/deep", ChangeKind.ADDED),
        Change("/new/deep/f", ChangeKind.ADDED),
    ]
