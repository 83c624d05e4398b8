/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The GPUs that the driver binds: NVIDIA's PCI device ids, and the names of the
 * products. The driver and nvgrace-gpu(8) include this.
 * tests/sources/test_style.py compares the udev rule and the documentation
 * with it.
 *
 * The driver in Linux has all of them but 0x2343, which NVIDIA's gpu-admin-tools
 * lists as a GH200 with C2C (devid_names.py and devid_properties.py).
 */
#ifndef NVGRACE_GPU_IDS_H
#define NVGRACE_GPU_IDS_H

#define NVGRACE_GPU_IDS(GPU) \
	GPU(0x2342, "GH200 120GB") \
	GPU(0x2343, "GH200") \
	GPU(0x2345, "GH200 480GB") \
	GPU(0x2348, "GH200") \
	GPU(0x2941, "GB200") \
	GPU(0x31c2, "GB300")

#endif
