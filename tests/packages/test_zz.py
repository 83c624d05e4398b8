import os, subprocess, time, pathlib
import pytest
from lab import programs
from packages.test_life import GPUS, packages_disk, System
pytestmark = pytest.mark.needs("image base", "kernel newest", "root qemu")

def test_zz(tmp_path):
    disk = tmp_path / 'disk'
    disk.write_bytes(bytes(64 << 20))
    for i in range(int(os.environ.get("ROUNDS", "10"))):
        with System(GPUS, packages=disk, log=programs.log_file(f"zz-{i}")) as m:
            t = time.monotonic()
            try:
                m.start()
                m._wait(lambda: m._booted or any("Linux version" in l or "Booting" in l or "GRUB" in l for l in m.console), 200, "kernel")
            except Exception as e:
                pid = m.qemu.pid
                out = subprocess.run(["sh", "-c", f"for t in /proc/{pid}/task/*; do echo $t $(cat $t/comm) $(cat $t/wchan) $(cut -d' ' -f3,14,15 $t/stat); cat $t/stack; cat $t/syscall; done; sleep 3; for t in /proc/{pid}/task/*; do echo $t $(cut -d' ' -f3,14,15 $t/stat); done; which gdb"], capture_output=True, text=True).stdout
                pathlib.Path(f"/tmp/project/build/log/stuck-{i}.txt").write_text(str(e) + out)
                raise
            print(i, time.monotonic() - t, flush=True)
