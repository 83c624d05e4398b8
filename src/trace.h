/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints of the system nvgrace_gpu. docs/tracing.md is their reference.
 * Names, fields and units are stable, because scripts use them. Each costs one
 * untaken branch while it is off.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM nvgrace_gpu

#if !defined(NVGRACE_GPU_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define NVGRACE_GPU_TRACE_H

#include <linux/ktime.h>
#include <linux/mm_types.h>
#include <linux/pci.h>
#include <linux/tracepoint.h>

/* Values of "when" of nvgrace_gpu_wait. */
#define NVGRACE_GPU_TRACE_BIND	0
#define NVGRACE_GPU_TRACE_USE	1

/* Values of "cause" of nvgrace_gpu_reset. */
#define NVGRACE_GPU_RESET_OPEN	0
#define NVGRACE_GPU_RESET_DONE	1
#define NVGRACE_GPU_RESET_ERROR	2

/*
 * The device as numbers, which filters can compare and which cost less than a
 * name.
 */
#define DEVICE_FIELDS							\
	__field(u32, domain)						\
	__field(u8, bus)						\
	__field(u8, devfn)

#define DEVICE_ASSIGN(pdev)						\
	do {								\
		__entry->domain = pci_domain_nr((pdev)->bus);		\
		__entry->bus = (pdev)->bus->number;			\
		__entry->devfn = (pdev)->devfn;				\
	} while (0)

#define DEVICE_FORMAT	"%04x:%02x:%02x.%u "
#define DEVICE_ARGS							\
	__entry->domain, __entry->bus, PCI_SLOT(__entry->devfn),	\
	PCI_FUNC(__entry->devfn)

/* Start for NS_SINCE(): nanoseconds, or 0 while the event is off. */
#define nvgrace_gpu_trace_start(event)					\
	(trace_nvgrace_gpu_##event##_enabled() ? ktime_get_ns() : 0)

/*
 * Fault results as numbers, because tools that print events themselves don't
 * know the kernel's enums.
 */
#define RESULT_OOM		0x001
#define RESULT_SIGBUS		0x002
#define RESULT_NOPAGE		0x100
#define RESULT_RETRY		0x400
#define RESULT_FALLBACK		0x800

static_assert(RESULT_OOM == (__force u32)VM_FAULT_OOM);
static_assert(RESULT_SIGBUS == (__force u32)VM_FAULT_SIGBUS);
static_assert(RESULT_NOPAGE == (__force u32)VM_FAULT_NOPAGE);
static_assert(RESULT_RETRY == (__force u32)VM_FAULT_RETRY);
static_assert(RESULT_FALLBACK == (__force u32)VM_FAULT_FALLBACK);

/* Nanoseconds since @start; 0 if tracing was off at the start. */
#define NS_SINCE(start)	((start) ? ktime_get_ns() - (start) : 0)

TRACE_EVENT(nvgrace_gpu_wait,
	TP_PROTO(struct pci_dev *pdev, unsigned int when, int result,
		 u64 start),
	TP_ARGS(pdev, when, result, start),
	TP_STRUCT__entry(
		DEVICE_FIELDS
		__field(u8, when)
		__field(int, result)
		__field(u64, ns)
	),
	TP_fast_assign(
		DEVICE_ASSIGN(pdev);
		__entry->when = when;
		__entry->result = result;
		__entry->ns = NS_SINCE(start);
	),
	TP_printk(DEVICE_FORMAT "when=%s result=%d ns=%llu", DEVICE_ARGS,
		  __print_symbolic(__entry->when,
				   { NVGRACE_GPU_TRACE_BIND, "bind" },
				   { NVGRACE_GPU_TRACE_USE, "use" }),
		  __entry->result, __entry->ns)
);

/* Each look at the readiness registers; those that were not read are 0. */
TRACE_EVENT(nvgrace_gpu_ready,
	TP_PROTO(struct pci_dev *pdev, u32 c2c, u32 hbm, u32 range, int result,
		 ktime_t since),
	TP_ARGS(pdev, c2c, hbm, range, result, since),
	TP_STRUCT__entry(
		DEVICE_FIELDS
		__field(u32, c2c)
		__field(u32, hbm)
		__field(u32, range)
		__field(int, result)
		__field(u64, since_ns)
	),
	TP_fast_assign(
		DEVICE_ASSIGN(pdev);
		__entry->c2c = c2c;
		__entry->hbm = hbm;
		__entry->range = range;
		__entry->result = result;
		__entry->since_ns = ktime_to_ns(ktime_sub(ktime_get(), since));
	),
	TP_printk(DEVICE_FORMAT "c2c=%#x hbm=%#x range=%#x result=%d since_ns=%llu",
		  DEVICE_ARGS, __entry->c2c, __entry->hbm, __entry->range,
		  __entry->result, __entry->since_ns)
);

TRACE_EVENT(nvgrace_gpu_mmap,
	TP_PROTO(struct pci_dev *pdev, unsigned int bar, u64 offset, u64 size,
		 int result),
	TP_ARGS(pdev, bar, offset, size, result),
	TP_STRUCT__entry(
		DEVICE_FIELDS
		__field(u8, bar)
		__field(u64, offset)
		__field(u64, size)
		__field(int, result)
	),
	TP_fast_assign(
		DEVICE_ASSIGN(pdev);
		__entry->bar = bar;
		__entry->offset = offset;
		__entry->size = size;
		__entry->result = result;
	),
	TP_printk(DEVICE_FORMAT "bar=%u offset=%#llx size=%#llx result=%d",
		  DEVICE_ARGS, __entry->bar, __entry->offset, __entry->size,
		  __entry->result)
);

TRACE_EVENT(nvgrace_gpu_fault,
	TP_PROTO(struct pci_dev *pdev, unsigned long address,
		 unsigned long pfn, unsigned int order, unsigned int result,
		 u64 start),
	TP_ARGS(pdev, address, pfn, order, result, start),
	TP_STRUCT__entry(
		DEVICE_FIELDS
		__field(u64, address)
		__field(u64, pfn)
		__field(u32, order)
		__field(u32, result)
		__field(u64, ns)
	),
	TP_fast_assign(
		DEVICE_ASSIGN(pdev);
		__entry->address = address;
		__entry->pfn = pfn;
		__entry->order = order;
		__entry->result = result;
		__entry->ns = NS_SINCE(start);
	),
	TP_printk(DEVICE_FORMAT "address=%#llx pfn=%#llx order=%u result=%s ns=%llu",
		  DEVICE_ARGS, __entry->address, __entry->pfn, __entry->order,
		  __print_flags(__entry->result, "|",
				{ RESULT_OOM, "OOM" },
				{ RESULT_SIGBUS, "SIGBUS" },
				{ RESULT_NOPAGE, "NOPAGE" },
				{ RESULT_RETRY, "RETRY" },
				{ RESULT_FALLBACK, "FALLBACK" }),
		  __entry->ns)
);

TRACE_EVENT(nvgrace_gpu_reset,
	TP_PROTO(struct pci_dev *pdev, unsigned int cause),
	TP_ARGS(pdev, cause),
	TP_STRUCT__entry(
		DEVICE_FIELDS
		__field(u8, cause)
	),
	TP_fast_assign(
		DEVICE_ASSIGN(pdev);
		__entry->cause = cause;
	),
	TP_printk(DEVICE_FORMAT "cause=%s", DEVICE_ARGS,
		  __print_symbolic(__entry->cause,
				   { NVGRACE_GPU_RESET_OPEN, "open" },
				   { NVGRACE_GPU_RESET_DONE, "reset" },
				   { NVGRACE_GPU_RESET_ERROR, "error" }))
);

#endif /* NVGRACE_GPU_TRACE_H */

/* Outside the guard: this file is read again to make the tracepoints. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
