"""What Windows and macOS lack is not needed: every module can be imported without it."""

import subprocess
import sys

UNIX = ("fcntl", "resource", "pwd", "grp", "termios", "syslog", "posix_ipc")
WITHOUT = f"""
import sys, os, signal, pkgutil, importlib
import torch, monai, torchio, tensorboard, lightning_fabric, SimpleITK, filelock, psutil, rich, matplotlib.pyplot
import multiprocessing.synchronize, sklearn.ensemble, skimage.segmentation, torch.utils.tensorboard, monai.networks.nets
import filelock._unix, isal.igzip, pydicom, subprocess, socket, tyro, monai.losses, monai.inferers
for name in {UNIX}:
    sys.modules[name] = None
for name in ("sched_getaffinity", "O_DIRECTORY", "O_NOFOLLOW", "getuid", "geteuid", "mkfifo", "statvfs", "fork"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGALRM", "SIGCHLD", "SIGKILL", "SIGHUP", "setitimer", "ITIMER_REAL", "alarm"):
    if hasattr(signal, name):
        delattr(signal, name)
import segmed
count = 0
for module in pkgutil.walk_packages(segmed.__path__, "segmed."):
    importlib.import_module(module.name)
    count += 1
from segmed.machine import cores, free_ram_bytes
from segmed.data.expressions import first_match
import segmed.volumes.room
assert cores() >= 1
assert first_match(r"\\d+", "case_12", key="subject")[0] == "12"
print(count)
"""


def test_every_module_is_imported_without_what_only_unix_has():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 150
