"""Where a file lies: on a disk of this machine, or on a network file system."""

from __future__ import annotations

import os
import pathlib

import psutil

NETWORK = frozenset(
    "9p afpfs afs beegfs ceph cifs davfs glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs panfs pvfs2 smb smb2 smb3 "
    "smbfs webdav fuse.ceph fuse.davfs fuse.davfs2 fuse.glusterfs fuse.rclone fuse.s3fs fuse.sshfs".split()
)
"""File systems, as the system calls them, whose locks and shared memory do not hold between machines."""


def network_file_system(file: pathlib.Path) -> str | None:
    """Return the kind of network file system that a file is on, or would be created on; None where it is on none.

    None, too, where the system does not tell what is mounted, as Linux without /proc.
    """
    there = pathlib.Path(os.path.realpath(file))  # `resolve` fails where links lead in a circle
    folders = {str(folder) for folder in (there, *there.parents)}
    try:
        above = [disk for disk in psutil.disk_partitions(all=True) if disk.mountpoint in folders]
    except OSError:
        return None
    # The innermost, and of those mounted on one another the last.
    kind = (
        max(enumerate(above), key=lambda each: (len(each[1].mountpoint), each[0]))[1].fstype
        if above
        else ""
    )
    return kind if kind.lower() in NETWORK else None
