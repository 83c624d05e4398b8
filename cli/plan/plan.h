/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The computed guest for GPUs of a host: its NUMA nodes, PCIe buses, SMMUs,
 * windows and devices. A file for each format prints it, and the doctor uses it
 * to say what a guest with all bound GPUs needs.
 */
#ifndef NVGRACE_GPU_PLAN_PLAN_H
#define NVGRACE_GPU_PLAN_PLAN_H

#include <glib.h>

#include "facts/firmware.h"
#include "facts/gpu.h"
#include "facts/location.h"
#include "facts/vmm.h"
#include "system/program.h"

struct answers;

/* NVIDIA's driver wants so many nodes for each GPU: MIG has up to 7 instances. */
#define NODES_OF_GPU 8
/* QEMU has at most 128 nodes, and as many buses as numbers of one byte. */
#define GUEST_GPUS_MAX 15
#define GUEST_NODES_MAX (GUEST_GPUS_MAX * (NODES_OF_GPU + 1))
#define GUEST_DEVICES_MAX 31
/*
 * The first numbers of their buses. pcie.0 has room before for those of its own ports,
 * of which libvirt adds some. Each device has two numbers at most.
 */
enum { BUS_OF_QEMU = 16, BUS_OF_DOMAIN = 64, BUS_OF_DOMAIN_MAX = 63 + 2 * GUEST_DEVICES_MAX };

/* Of huge pages whose size only the host knows. No page is as small. */
#define HUGEPAGES_DEFAULT 1

enum choice { CHOICE_AUTO, CHOICE_ON, CHOICE_OFF };

/* A NUMA node of processors that a domain of libvirt has. */
struct guest_cell {
	const char *cpus;	/* "0-7" */
	unsigned int count;
	uint64_t memory, hugepages;
	int host;		/* the node that its memory comes from; -1: any */
};

/* What the guest has already, if it is a domain of libvirt. */
struct guest_domain {
	const char *emulator;	/* NULL: libvirt's */
	struct guest_cell cell[GUEST_GPUS_MAX];
	size_t cells;		/* 0: no NUMA nodes */
	bool numatune;		/* it says itself where its memory comes from */
	uint64_t window;	/* its pcihole64; 0: none */
};

/* What the command line asks for; 0 and NULL: derived. */
struct guest_wish {
	const struct guest_domain *domain;	/* NULL: a guest of QEMU */
	uint64_t memory;
	unsigned int cpus;
	uint64_t hugepages;	/* bytes of each, or HUGEPAGES_DEFAULT; 0: none */
	enum choice accel;
	bool pin;
};

/* All facts of the host that a plan is made of. */
struct guest_facts {
	const struct gpus *gpus;	/* all of the host */
	struct place {
		uint64_t bars[BARS];
		char *iommu;		/* NULL: not known */
		char **group;
		int node;		/* of processors, nearest to it; -1: not known */
		bool vfio;		/* its driver is one of vfio's */
		unsigned int link_speed;	/* that its PCIe link can have, in GT/s; 0: not known */
	} *place;			/* for each GPU */
	struct gpus others;		/* devices that guest_facts_add() has read */
	struct place *other_place;	/* for each of these */
	struct numa numa;
	struct vmms qemu, libvirt;
	struct hugepages {
		uint64_t size;		/* bytes of each */
		uint64_t *free;		/* how many are free, for each of the NUMA nodes */
	} *hugepages;
	size_t hugepage_sizes;
	unsigned int node_limit;	/* how many NUMA nodes the kernel can have; 0: not known */
	struct firmware uefi;
	bool config_known;		/* the kernel's options are known */
	bool type1, iommufd, nesting;	/* what the kernel has */
	bool dmabuf;			/* vfio exports GPU memory, or it is not known */
	bool libvirt_iommufd;		/* unless libvirt says that its QEMU lacks it */
	unsigned int address_bits;	/* of a guest; 0: not known */
};

/* A NUMA node of the guest. Those of the processors come first. */
struct guest_node {
	int host;		/* the host's node; -1: not known */
	const struct guest_device *gpu;	/* whose it is; NULL: processors and memory */
	char *cpus;		/* the guest's, "0-15"; NULL: none */
	unsigned int count;
	char *host_cpus;	/* "0-71", if the guest is pinned; else NULL */
	uint64_t memory, hugepages;	/* hugepages: as in the wish */
};

/* A PCIe root complex of its own, pxb-pcie. */
struct guest_bus {
	unsigned int number;	/* its first bus */
	size_t node;		/* of the guest: the nearest with processors */
	const char *smmu;	/* the host's behind the guest's; NULL: no SMMU */
};

/* A GPU, or a device beside it, which has no nodes. */
struct guest_device {
	char id[24];		/* in QEMU: "gpu0", "dev0" */
	const struct gpu *pci;
	const struct place *place;
	size_t bus;		/* in plan.bus; of no meaning if there are none: pcie.0 */
	size_t first_node;
	unsigned int port_speed;	/* of its root port, in GT/s; 0: QEMU's */
	uint64_t bars;		/* their sum */
	uint64_t largest;	/* of its BARs */
	uint64_t span;		/* that its root port takes of the window */
};

struct guest_plan {
	const struct vmm *qemu, *libvirt;	/* libvirt: NULL: not needed */
	char *disk;		/* NULL: none; the caller sets both */
	const char *disk_format;
	const char *firmware, *firmware_format;
	unsigned int cpus;
	uint64_t memory;
	bool ras, iommufd, accel;
	bool placed;			/* its nodes' memory has a place in the host */
	bool pin;			/* to its processors, and strictly to its memory */
	GPtrArray *cpu_pins;		/* if so, the host's processors for each of its */
	char *host_cpus;		/* and for all else of the VMM */
	bool hide_ats;			/* from the guest */
	bool flat;			/* all devices on pcie.0, whatever their nodes */

	uint64_t window_min;	/* the least that has room for the BARs */
	uint64_t window;
	bool window_set;	/* QEMU must be told */
	unsigned int address_bits;	/* that the guest needs at least */

	struct guest_node node[GUEST_NODES_MAX];
	size_t nodes, cpu_nodes;
	unsigned char *distance;	/* nodes * nodes; NULL: QEMU's */
	struct guest_bus bus[GUEST_DEVICES_MAX];
	size_t buses;
	struct guest_device device[GUEST_DEVICES_MAX];	/* the GPUs come first */
	size_t devices, gpus;

	GPtrArray *notes;	/* about what is left out or short */
	char *refused;		/* why there is no such guest; NULL: there is */
	const char *about;	/* the GPU that it is about; NULL: all */
};

void guest_facts_read(struct host *h, struct answers *a, const struct gpus *gpus,
		      struct guest_facts *facts);
/*
 * Asks libvirt's daemon, too, which systemd may start for that: not for the
 * doctor and for metrics, which run often.
 */
void guest_facts_ask(struct answers *a, struct guest_facts *facts);
/* Reads a device that is no GPU, for the plans that follow; once if it comes again. */
void guest_facts_add(struct host *h, struct guest_facts *facts, const char *address);
void guest_facts_free(struct guest_facts *facts);

/*
 * The whole guest, with these GPUs and facts->others. EXIT_OK; or an exit status, and plan->refused. The wish, the
 * facts and the GPUs must live as long as the plan.
 */
enum exit_status guest_plan(const struct guest_facts *facts, const struct guest_wish *wish,
			    const struct gpu **gpu, size_t count, struct guest_plan *plan);
void guest_plan_free(struct guest_plan *plan);

/* "1T", "94512M": as QEMU takes it; to be freed. */
char *guest_size(uint64_t bytes);

#endif
