# SPDX-License-Identifier: GPL-2.0-only
"""Hosts on which a GPU may, or may not, be unbound from its driver.
cli/test_trees.py checks nvgrace-gpu(8) against this table."""

import dataclasses
import os
import pathlib
import stat

GPU, OTHER = "0009:01:00.0", "0019:01:00.0"
OURS = "nvgrace_gpu_vfio_pci"
ANONYMOUS = "anon_inode:[vfio-device]"
DMABUF = "/dmabuf:"
NVIDIA = f"/proc/driver/nvidia/gpus/{GPU}"
DEVICE = f"/sys/bus/pci/devices/{GPU}"


@dataclasses.dataclass
class Case:
    """name: a description. verdict: "taken", "in use" or "online". names: words
    of the message. bound: the driver. opened: the files that process 77 has
    open. nodes: {path: (major, minor)}. files: {path: text}. others: the
    addresses of more GPUs."""

    name: str
    verdict: str = "taken"
    names: str = ""
    bound: "str | None" = None
    opened: tuple = ()
    fdinfo: str = "pos:\t0"
    nodes: dict = dataclasses.field(default_factory=dict)
    files: dict = dataclasses.field(default_factory=dict)
    others: tuple = ()

    def build(self, root):
        """Makes the tree in root."""
        def path(name):
            found = pathlib.Path(root, name.lstrip("/"))
            found.parent.mkdir(parents=True, exist_ok=True)
            return found

        for n, address in enumerate((GPU, *self.others)):
            for name, text in (("vendor", "0x10de"), ("device", "0x2342"), ("driver_override", "(null)")):
                path(f"/sys/bus/pci/devices/{address}/{name}").write_text(text + "\n")
            path(f"/sys/kernel/iommu_groups/{12 + n}/x")
            path(f"/sys/bus/pci/devices/{address}/iommu_group").symlink_to(f"../../../../kernel/iommu_groups/{12 + n}")
        if self.bound:
            path(f"/sys/bus/pci/drivers/{self.bound}/unbind").write_text("")
            path(f"{DEVICE}/driver").symlink_to(f"../../drivers/{self.bound}")
        if self.bound == "vfio-pci":
            path(f"{DEVICE}/vfio-dev/vfio3/dev").write_text("511:3\n")
            path("/sys/class/vfio/12/dev").write_text("511:12\n")
        for name, (major, minor) in self.nodes.items():
            os.mknod(path(name), 0o600 | stat.S_IFCHR, os.makedev(major, minor))
        for name, text in self.files.items():
            path(name).write_text(text + "\n")
        path("/proc/77/comm").write_text("client\n")
        path("/proc/77/fd/x")
        for fd, target in enumerate(self.opened, 3):
            path(f"/proc/77/fd/{fd}").symlink_to(target)
            path(f"/proc/77/fdinfo/{fd}").write_text(self.fdinfo + "\n")


def drm(minor=129):
    return {f"{DEVICE}/drm/renderD{minor}/dev": f"226:{minor}"}


def nvidia(major="195 nvidia-frontend"):
    return {f"{NVIDIA}/information": "Model: \t\t NVIDIA GH200\nDevice Minor: \t 1",
            "/proc/devices": f"Character devices:\n  1 mem\n{major}\n226 drm\n\nBlock devices:\n  8 sd"}


RAM = {"/proc/iomem": "80000000-ffffffff : System RAM\n4000000000-57ffffffff : System RAM (NVIDIA)"}

CASES = [
    Case("no driver has it"),
    Case("nouveau has it, and no process has it open", bound="nouveau", files=drm()),
    Case("nvidia has it, and no process has it open", bound="nvidia", files=nvidia()),
    Case("vfio-pci took it at boot, by vfio-pci.ids=", bound="vfio-pci"),

    Case("its group's file is open", "in use", "/dev/vfio/12", bound="vfio-pci", opened=("/dev/vfio/vfio", "/dev/vfio/12"),
         nodes={"/dev/vfio/12": (511, 12)}),
    Case("its group's file is open, though no driver has it", "in use", "/dev/vfio/12", opened=("/dev/vfio/12",),
         nodes={"/dev/vfio/12": (511, 12)}, files={"/sys/class/vfio/12/dev": "511:12"}),
    Case("another group's file is open", bound="vfio-pci", opened=("/dev/vfio/vfio", "/dev/vfio/13", "/dev/vfio/1"),
         nodes={"/dev/vfio/12": (511, 12), "/dev/vfio/13": (511, 13), "/dev/vfio/1": (511, 1)}),
    Case("the container alone is open", bound="vfio-pci", opened=("/dev/vfio/vfio",), nodes={"/dev/vfio/vfio": (10, 196)}),
    Case("its own file is open", "in use", "/dev/vfio/devices/vfio3", bound="vfio-pci",
         opened=("/dev/vfio/devices/vfio3", "/dev/iommu"), nodes={"/dev/vfio/devices/vfio3": (511, 3)}),
    Case("another's own file is open", bound="vfio-pci", opened=("/dev/vfio/devices/vfio30",),
         nodes={"/dev/vfio/devices/vfio3": (511, 3), "/dev/vfio/devices/vfio30": (511, 30)}),
    Case("an anonymous file says that it is its own", "in use", bound="vfio-pci", opened=(ANONYMOUS,),
         fdinfo=f"pos:\t0\nvfio-device-syspath: /sys/devices/pci0009:00/{GPU}"),
    Case("an anonymous file says that it is another's", bound="vfio-pci", opened=(ANONYMOUS,),
         fdinfo=f"pos:\t0\nvfio-device-syspath: /sys/devices/pci0019:00/{OTHER}"),
    Case("an anonymous file doesn't say whose it is", "in use", bound="vfio-pci", opened=(ANONYMOUS, "/dev/vfio/vfio"),
         nodes={"/dev/vfio/vfio": (10, 196)}),
    Case("its process has another group open", bound="vfio-pci", opened=(ANONYMOUS, "/dev/vfio/7"),
         nodes={"/dev/vfio/7": (511, 7)}),
    Case("an anonymous file, but no driver of vfio's has it", bound="nouveau", opened=(ANONYMOUS,)),

    Case("a DRM file of it is open", "in use", "/dev/dri/renderD129", bound="nouveau", files=drm(),
         opened=("/dev/dri/renderD129",), nodes={"/dev/dri/renderD129": (226, 129)}),
    Case("a DRM file of nvidia's is open", "in use", "/dev/dri/renderD129", bound="nvidia", files={**drm(), **nvidia()},
         opened=("/dev/dri/renderD129",), nodes={"/dev/dri/renderD129": (226, 129)}),
    Case("another's DRM file is open", bound="nouveau", files=drm(), opened=("/dev/dri/renderD128",),
         nodes={"/dev/dri/renderD128": (226, 128), "/dev/dri/renderD129": (226, 129)}),
    Case("a container has a file of its own for it", "in use", bound="nouveau", files=drm(),
         opened=("/dev/my-gpu",), nodes={"/dev/my-gpu": (226, 129), "/dev/dri/renderD129": (226, 129)}),
    Case("a container calls another's file so", bound="nouveau", files=drm(), opened=("/containers/dev/dri/renderD129",),
         nodes={"/containers/dev/dri/renderD129": (226, 128)}),
    Case("a file with its minor number is of another kind", bound="nouveau", files=drm(), opened=("/dev/other",),
         nodes={"/dev/other": (227, 129)}),

    Case("nvidia's file is open", "in use", "/dev/nvidia1", bound="nvidia", files=nvidia(),
         opened=("/dev/nvidiactl", "/dev/nvidia1"), nodes={"/dev/nvidiactl": (195, 255), "/dev/nvidia1": (195, 1)}),
    Case("another's file of nvidia's is open", bound="nvidia", files=nvidia(), opened=("/dev/nvidia0", "/dev/nvidiactl"),
         nodes={"/dev/nvidia0": (195, 0), "/dev/nvidia1": (195, 1), "/dev/nvidiactl": (195, 255)}),
    Case("a container has one of its own", "in use", bound="nvidia", files=nvidia("195 nvidia"),
         opened=("/dev/gpu",), nodes={"/dev/gpu": (195, 1)}),

    Case("the file of all its GPUs is open, and no GPU's own", "in use", "/dev/nvidiactl", bound="nvidia", files=nvidia(),
         opened=("/dev/nvidiactl",), nodes={"/dev/nvidiactl": (195, 255), "/dev/nvidia1": (195, 1)}),
    Case("a file of nvidia-uvm is open, and no GPU's own", "in use", "/dev/nvidia-uvm", bound="nvidia", files=nvidia(),
         opened=("/dev/nvidia-uvm",), nodes={"/dev/nvidia-uvm": (511, 0), "/dev/nvidia1": (195, 1)}),
    Case("the file of all GPUs of nvidia's is open, but nouveau has it", bound="nouveau",
         opened=("/dev/nvidiactl",), nodes={"/dev/nvidiactl": (195, 255)}),
    Case("a dma-buf of nvidia's is open", "in use", bound="nvidia", files=nvidia(), opened=(DMABUF,),
         fdinfo="size:\t4096\nexp_name:\tnvidia"),
    Case("a dma-buf of another driver is open", bound="nvidia", files=nvidia(), opened=(DMABUF,),
         fdinfo="size:\t4096\nexp_name:\tudmabuf"),

    Case("nvidia has its memory online", "online", bound="nvidia",
         files={**nvidia(), f"{NVIDIA}/numa_status": "Node:   2\nStatus:   online"}),
    Case("nvidia will have it online", "online", bound="nvidia",
         files={f"{NVIDIA}/numa_status": "Node:   2\nStatus:   online_in_progress"}),
    Case("nvidia has it offline", bound="nvidia", files={f"{NVIDIA}/numa_status": "Node:   -1\nStatus:   offline"}),
    Case("it is left online", "online", files=RAM),
    Case("some GPU's memory is online, of two", files=RAM, others=(OTHER,)),
    Case("other memory is online", files={"/proc/iomem": "80000000-ffffffff : System RAM\n0-0 : System RAM (kmem)"}),
]
