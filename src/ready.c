// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads whether the GPU's memory is trained, and logs why it is late. Before
 * the memory is trained, any access to it raises RAS errors on the host.
 *
 * Legacy GPUs have two 32-bit registers in BAR0, which both read 0xff when the
 * C2C link and the HBM are trained. Newer ones have a CXL Device DVSEC (CXL
 * 3.0, 8.1.3.8), and this file does not read their BAR0.
 *
 * The registers are read under the locks of gate.c, which ensure that the GPU
 * is awake, decodes memory and is not in reset.
 */
#include <linux/bitfield.h>
#include <linux/io.h>
#include <linux/pci.h>

#include "arith.h"
#include "nvgrace_gpu.h"

/*
 * Legacy GPUs: offsets in BAR0, the value of both registers when trained, and
 * the longest wait in milliseconds, all as in the driver of this name in Linux.
 */
#define C2C_LINK_STATUS		0x1498
#define HBM_TRAINING_STATUS	0x200bc
#define REGISTERS_END		(HBM_TRAINING_STATUS + sizeof(u32))
#define TRAINED			0xff
#define TRAINING_MS		30000

/*
 * CXL 3.0, 8.1.3.8: offset in the DVSEC and bits of Range 1 Size Low, and the
 * milliseconds within which Memory_Info_Valid must be set.
 */
#define CXL_VENDOR_ID		0x1e98
#define CXL_DEVICE_DVSEC	0
#define CXL_RANGE1_SIZE_LOW	0x1c
#define CXL_MEMORY_INFO_VALID	BIT(0)
#define CXL_MEMORY_ACTIVE	BIT(1)
#define CXL_ACTIVE_TIMEOUT	GENMASK(15, 13)
#define CXL_VALID_MS		1000

static int look_cxl(struct nvgrace_gpu *gpu,
		    struct nvgrace_gpu_training *training)
{
	unsigned int code;

	training->limit_ms = CXL_VALID_MS;
	if (pci_read_config_dword(gpu->core.pdev,
				  gpu->cxl_dvsec + CXL_RANGE1_SIZE_LOW,
				  &training->range) ||
	    training->range == U32_MAX)
		return -ENODEV;
	if (!(training->range & CXL_MEMORY_INFO_VALID))
		return -EAGAIN;

	/* Now the GPU states how long it takes. */
	code = FIELD_GET(CXL_ACTIVE_TIMEOUT, training->range);
	training->limit_ms = nvgrace_gpu_cxl_timeout_ms(code);
	return training->range & CXL_MEMORY_ACTIVE ? 0 : -EAGAIN;
}

static int look_legacy(struct nvgrace_gpu *gpu,
		       struct nvgrace_gpu_training *training)
{
	u32 last;

	training->limit_ms = TRAINING_MS;
	training->c2c = ioread32(gpu->bar0 + C2C_LINK_STATUS);
	last = training->c2c;
	/* As in Linux: before the link is up, nothing is read of the HBM. */
	if (training->c2c == TRAINED) {
		training->hbm = ioread32(gpu->bar0 + HBM_TRAINING_STATUS);
		last = training->hbm;
	}
	if (last == U32_MAX && !pci_device_is_present(gpu->core.pdev))
		return -ENODEV;
	return last == TRAINED ? 0 : -EAGAIN;
}

int nvgrace_gpu_ready_look(struct nvgrace_gpu *gpu,
			   struct nvgrace_gpu_training *training)
{
	return gpu->cxl_dvsec ? look_cxl(gpu, training) :
				look_legacy(gpu, training);
}

void nvgrace_gpu_ready_report(struct nvgrace_gpu *gpu,
			      const struct nvgrace_gpu_training *training,
			      s64 ms, int err)
{
	struct pci_dev *pdev = gpu->core.pdev;

	if (err == -ENODEV)
		pci_err(pdev, "can't wait for GPU memory: the device reads as all ones and may be gone; power-cycle the host\n");
	else if (gpu->cxl_dvsec)
		pci_err(pdev, "GPU memory is not ready after %lld ms: CXL Range 1 Size Low %#x, without %s; reset the device or power-cycle the host\n",
			ms, training->range,
			training->range & CXL_MEMORY_INFO_VALID ?
			"Memory_Active" : "Memory_Info_Valid");
	else if (training->c2c != TRAINED)
		pci_err(pdev, "GPU memory is not ready after %lld ms: C2C link status %#x, expected %#x; reset the device or power-cycle the host\n",
			ms, training->c2c, TRAINED);
	else
		pci_err(pdev, "GPU memory is not ready after %lld ms: C2C link status %#x, HBM training status %#x, expected %#x; reset the device or power-cycle the host\n",
			ms, training->c2c, training->hbm, TRAINED);
}

int nvgrace_gpu_ready_init(struct nvgrace_gpu *gpu)
{
	struct pci_dev *pdev = gpu->core.pdev;

	gpu->cxl_dvsec = pci_find_dvsec_capability(pdev, CXL_VENDOR_ID,
						   CXL_DEVICE_DVSEC);
	if (gpu->cxl_dvsec)
		return 0;
	if (pci_resource_len(pdev, 0) < REGISTERS_END) {
		pci_err(pdev, "BAR0 has %#llx bytes, too few to hold the readiness registers; this GPU is not supported\n",
			(u64)pci_resource_len(pdev, 0));
		return -ENODEV;
	}
	/* Not claimed: vfio-pci-core claims it for the user. */
	gpu->bar0 = pci_iomap(pdev, 0, REGISTERS_END);
	return gpu->bar0 ? 0 : -ENOMEM;
}

void nvgrace_gpu_ready_exit(struct nvgrace_gpu *gpu)
{
	if (gpu->bar0)
		pci_iounmap(gpu->core.pdev, gpu->bar0);
	gpu->bar0 = NULL;
}
