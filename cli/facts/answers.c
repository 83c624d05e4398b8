// SPDX-License-Identifier: GPL-2.0-only
/*
 * Answers from system calls, programs and libkmod, and extracts of files that
 * are too long or too private to be recorded whole: kernel log, kernel
 * configuration, ACPI tables, key lists. Each answer is a short text with a
 * name, so that a recorded tree can have it. All checks call answer().
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <libkmod.h>
#include <limits.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "facts/answers.h"
#include "facts/images.h"
#include "facts/libvirt.h"
#include "facts/record.h"
#include "system/host.h"
#include "system/program.h"
#include "system/spawn.h"

/* Headers before Linux 6.17 lack it. */
#ifndef KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED
#define KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED 243
#endif

#define ACPI_TABLES "/sys/firmware/acpi/tables"
#define EFI_VARIABLES "/sys/firmware/efi/efivars"
#define MOK_VARIABLES "/sys/firmware/efi/mok-variables"

/*
 * Limits for a program that prints its version or unpacks a small file, and for
 * one that lists what it has: QEMU first makes all its types, which takes longer
 * than 10 s on an emulated host.
 */
#define PROGRAM_MS 10000
#define LIST_MS 60000

struct answers {
	struct host *h;
	struct recorder *recorder;
	struct {
		bool asked;
		char *text;
	} of[];	/* one for each of questions[] */
};

/* The text, or NULL if it is empty; frees t. */
static char *text_or_null(GString *t)
{
	return g_string_free(t, !t->len);
}

/* ---- the machine ---------------------------------------------------------------------------- */

static char *ask_euid(struct answers *a)
{
	return g_strdup_printf("%u", (unsigned int)geteuid());
}

static char *ask_machine(struct answers *a)
{
	struct utsname uts;

	/* Its only error is a bad address. */
	uname(&uts);
	return g_strdup(uts.machine);
}

static char *ask_release(struct answers *a)
{
	struct utsname uts;

	/* See above. */
	uname(&uts);
	return g_strdup(uts.release);
}

static char *ask_page_size(struct answers *a)
{
	return g_strdup_printf("%llu", (unsigned long long)a->h->page_size);
}

static char *ask_memlock(struct answers *a)
{
	struct rlimit limit;

	/* Fails only for a bad address and an unknown limit. */
	getrlimit(RLIMIT_MEMLOCK, &limit);
	if (limit.rlim_cur == RLIM_INFINITY)
		return g_strdup("unlimited");
	return g_strdup_printf("%llu", (unsigned long long)limit.rlim_cur);
}

static bool is_arm(struct answers *a)
{
	const char *machine = answer(a, "machine");

	return machine && !strcmp(machine, "aarch64");
}

/* CTR_EL0.DIC: of KVM's two conditions, the one that user space can read. */
static char *ask_cpu_dic(struct answers *a)
{
#ifdef __aarch64__
	uint64_t ctr;

	asm("mrs %0, ctr_el0" : "=r" (ctr));
	return g_strdup(ctr & 1ULL << 29 ? "1" : "0");
#else
	return NULL;
#endif
}

/* ---- programs ------------------------------------------------------------------------------- */

static char *run(const char *path, char *const argv[])
{
	return program_output(PROGRAM_MS, path, argv);
}

/* "PATH: first line of output" for each program that exists. */
static char *ask_versions(const char *const *paths)
{
	GString *t = g_string_new(NULL);

	for (; *paths; paths++) {
		char *const argv[] = { (char *)*paths, (char *)"--version", NULL };
		g_autofree char *out = run(*paths, argv);

		if (out)
			g_string_append_printf(t, "%s: %.*s\n", *paths,
					       (int)strcspn(out, "\n"), out);
	}
	return text_or_null(t);
}

/*
 * The package of the running kernel: "dpkg NAME" or "rpm NAME VERSION-RELEASE".
 * Distributions put the kernel into different places.
 */
static char *ask_kernel_package(struct answers *a)
{
	static const struct {
		const char *before, *after;	/* the release */
	} places[] = {
		{ "/boot/vmlinuz-", "" }, { "/boot/Image-", "" },
		{ "/lib/modules/", "/vmlinuz" }, { "/lib/modules/", "/Image" },
	};
	const char *release = answer(a, "kernel-release");
	size_t i;

	for (i = 0; release && i < ARRAY_SIZE(places); i++) {
		g_autofree char *file = g_strconcat(places[i].before, release, places[i].after, NULL);
		char *const dpkg[] = { (char *)"dpkg-query", (char *)"-S", file, NULL };
		char *const rpm[] = { (char *)"rpm", (char *)"-qf", (char *)"--queryformat",
				      (char *)"rpm %{NAME} %{VERSION}-%{RELEASE}\n", file, NULL };
		g_autofree char *said = NULL;

		if (!host_exists(a->h, "%s", file))
			continue;
		/* "NAME: FILE", or "NAME, NAME: FILE". */
		said = run("/usr/bin/dpkg-query", dpkg);
		if (said)
			return g_strdup_printf("dpkg %.*s", (int)strcspn(said, ":,\n"), said);
		said = run("/usr/bin/rpm", rpm);
		if (said)
			return g_steal_pointer(&said);
	}
	return NULL;
}

static const char *const arm_qemus[] = {
	"/usr/bin/qemu-system-aarch64", "/usr/libexec/qemu-kvm",
	"/usr/local/bin/qemu-system-aarch64", NULL
};

static char *ask_qemu(struct answers *a)
{
	static const char *const x86[] = {
		"/usr/bin/qemu-system-x86_64", "/usr/local/bin/qemu-system-x86_64", NULL
	};

	return ask_versions(is_arm(a) ? arm_qemus : x86);
}

/* "  ras=<bool>  - text" or "  iommufd" in a list of QEMU; NULL: another line. */
static const char *listed(char *line)
{
	char *name = line + strspn(line, " ");
	size_t n = strcspn(name, "=, ");

	if (name == line || !n)
		return NULL;
	name[n] = 0;
	return name;
}

/*
 * "PATH: machine.ras object.iommufd arm-smmuv3.accel ...": what each QEMU says
 * that it has, of all that the configuration of a guest with GPUs can use.
 */
static char *ask_qemu_options(struct answers *a)
{
	static const struct {
		const char *option, *value, *prefix, *names;
	} lists[] = {
		{ "-machine", "virt,help", "machine", "ras highmem-mmio-size" },
		{ "-object", "help", "object", "acpi-generic-initiator iommufd" },
		{ "-device", "vfio-pci,help", "vfio-pci", "host iommufd ats" },
		{ "-device", "pxb-pcie,help", "pxb-pcie", "bus_nr numa_node" },
		{ "-device", "arm-smmuv3,help", "arm-smmuv3", "primary-bus accel" },
	};
	const char *const *path;
	GString *t = g_string_new(NULL);
	const char *name;
	size_t i, n;

	for (path = arm_qemus; is_arm(a) && *path; path++) {
		for (i = 0; i < ARRAY_SIZE(lists); i++) {
			char *const argv[] = { (char *)*path, (char *)lists[i].option,
					       (char *)lists[i].value, NULL };
			g_autofree char *out = program_output(LIST_MS, *path, argv);
			g_auto(GStrv) lines = NULL;

			/* Every QEMU has the first list: this one can't be asked. */
			if (!out && !i)
				break;
			if (!i)
				g_string_append_printf(t, "%s:", *path);
			lines = g_strsplit(out ? out : "", "\n", -1);
			for (n = 0; lines[n]; n++) {
				name = listed(lines[n]);
				if (name && has_word(lists[i].names, name))
					g_string_append_printf(t, " %s.%s", lists[i].prefix, name);
			}
		}
		if (i)
			g_string_append(t, "\n");
	}
	return text_or_null(t);
}

static char *ask_libvirt(struct answers *a)
{
	static const char *const paths[] = {
		"/usr/sbin/virtqemud", "/usr/sbin/libvirtd", NULL
	};

	return ask_versions(paths);
}

/* Elements for guests with GPUs that libvirt's schema of domains has. */
static char *ask_libvirt_elements(struct answers *a)
{
	return libvirt_schema_words(a->h);
}

/* What libvirt says of its QEMU. Only if its daemon can be reached. */
static char *ask_libvirt_capabilities(struct answers *a)
{
	static char *const argv[] = {
		(char *)"virsh", (char *)"-r", (char *)"-c", (char *)"qemu:///system",
		(char *)"domcapabilities", (char *)"--arch", (char *)"aarch64",
		(char *)"--machine", (char *)"virt", (char *)"--virttype", (char *)"kvm", NULL
	};
	g_autofree char *out = is_arm(a) ? run("/usr/bin/virsh", argv) : NULL;

	return out ? libvirt_capability_lines(out) : NULL;
}

/* ---- KVM ------------------------------------------------------------------------------------ */

static char *ask_kvm(struct answers *a)
{
	bool arm = is_arm(a);
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, bits = 0;
	GString *t = g_string_new(NULL);

	if (kvm < 0) {
		g_string_append_printf(t, "state: %s\n",
				       errno == EACCES || errno == EPERM ? "denied" :
				       host_absent() ? "absent" : strerror(errno));
		return g_string_free(t, FALSE);
	}
#ifdef KVM_CAP_ARM_VM_IPA_SIZE
	if (arm)
		bits = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_ARM_VM_IPA_SIZE);
#endif
	/*
	 * On Arm the type is the width of guest-physical addresses; 0 means 40.
	 */
	vm = ioctl(kvm, KVM_CREATE_VM, arm && bits > 0 ? (unsigned long)bits : 0);
	if (vm < 0) {
		g_string_append_printf(t, "state: no VM: %s\n", strerror(errno));
		close(kvm);
		return g_string_free(t, FALSE);
	}
	g_string_append(t, "state: open\n");
	if (bits > 0)
		g_string_append_printf(t, "address-bits: %d\n", bits);
	/* Ask the VM, because /dev/kvm always answers 0. */
	g_string_append_printf(t, "cap-243: %d\n",
			       ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED));
	close(vm);
	close(kvm);
	return g_string_free(t, FALSE);
}

/* ---- the kernel ----------------------------------------------------------------------------- */

/* Appends one record of the log, "LEVEL text", if a check needs it. */
static void keep_record(GString *t, char *record, bool first)
{
	static const char *const what[] = {
		"nvgrace", "CPU features: detected: Stage-2 Force Write-Back",
		"CPU features: detected: Instruction cache invalidation not required",
		"unavailable key is rejected", "unsigned module", "module verification failed",
	};
	unsigned int priority;
	unsigned long long sequence;
	char *text = strchr(record, ';');
	size_t i;

	if (!text || sscanf(record, "%u,%llu,", &priority, &sequence) != 2)
		return;
	*strchrnul(++text, '\n') = 0;
	/* The log has all records since boot: a missing line was not logged. */
	if (first && !sequence)
		g_string_append(t, "6 log complete\n");
	for (i = 0; i < ARRAY_SIZE(what); i++) {
		if (strstr(text, what[i])) {
			g_string_append_printf(t, "%u %s\n", priority & 7, text);
			return;
		}
	}
}

static char *ask_kernel_log(struct answers *a)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	char record[8192];
	bool first = true;
	GString *t;
	ssize_t n;

	if (fd < 0)
		return NULL;
	t = g_string_new(NULL);
	for (;;) {
		n = read(fd, record, sizeof(record) - 1);
		if (n < 0 && (errno == EPIPE || errno == EINTR))
			continue;	/* EPIPE: overwritten meanwhile; read the next one */
		if (n <= 0)
			break;
		record[n] = 0;
		keep_record(t, record, first);
		first = false;
	}
	n = errno;
	close(fd);
	/* Any other error: the log is not known. */
	return g_string_free(t, n != EAGAIN);
}

/* The kernel's configuration, from the places of the distributions. */
static char *read_config(struct answers *a)
{
	static char *const gzip[] = {
		(char *)"gzip", (char *)"-dc", (char *)"/proc/config.gz", NULL
	};
	const char *release = answer(a, "kernel-release");
	char *text;

	if (!release)
		return NULL;
	text = host_read(a->h, NULL, "/boot/config-%s", release);
	if (!text)
		text = host_read(a->h, NULL, "/lib/modules/%s/config", release);
	if (!text && !a->h->recorded)
		text = run("/usr/bin/gzip", gzip);
	if (!text)
		text = host_read(a->h, NULL, "/lib/modules/%s/build/.config", release);
	return text;
}

static char *ask_kernel_config(struct answers *a)
{
	static const char *const options[] = {
		"VFIO_PCI_CORE", "VFIO_IOMMU_TYPE1", "VFIO_CONTAINER", "IOMMUFD",
		"IOMMUFD_VFIO_CONTAINER", "VFIO_DEVICE_CDEV", "ARCH_SUPPORTS_PMD_PFNMAP",
		"ARCH_SUPPORTS_PUD_PFNMAP", "VFIO_PCI_DMABUF", "MEMORY_FAILURE",
		"NVGRACE_GPU_VFIO_PCI", "NVGRACE_EGM", "MODULE_SIG", "MODULE_SIG_FORCE", "KVM",
		"ARM_SMMU_V3_IOMMUFD", "TEGRA241_CMDQV", "PCI_P2PDMA",
		"MEMORY_HOTPLUG", "ARM_SMMU_V3_SVA", "DEVICE_PRIVATE", "DEVICE_MIGRATION",
	};
	g_autofree char *config = read_config(a);
	g_auto(GStrv) lines = NULL;
	char *line, *equals;
	size_t i, n;
	GString *t;

	if (!config)
		return NULL;
	t = g_string_new(NULL);
	lines = g_strsplit(config, "\n", -1);
	for (n = 0; (line = lines[n]); n++) {
		equals = strchr(line, '=');
		if (equals && !strncmp(line, "CONFIG_", 7)) {
			*equals = 0;
			for (i = 0; i < ARRAY_SIZE(options); i++)
				if (!strcmp(line + 7, options[i]))
					g_string_append_printf(t, "%s=%s\n", line, equals + 1);
		}
	}
	return g_string_free(t, FALSE);
}

/*
 * Only parameters that a check needs: others are private, such as names of
 * disks.
 */
static char *ask_command_line(struct answers *a)
{
	static const char *const prefixes[] = {
		"iommu", "arm-smmu", "intel_iommu", "amd_iommu", "kvm-arm.", "kvm.", "arm64.",
		"module.sig_enforce", "lockdown", "vfio", "nvgrace", "acpi=", "pci=", "nouveau.",
		"modprobe.blacklist", "rd.driver",
	};
	g_autofree char *line = host_line(a->h, "/proc/cmdline");
	char *word, *rest = NULL;
	GString *t;
	size_t i;

	if (!line)
		return NULL;
	t = g_string_new(NULL);
	for (word = strtok_r(line, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
		for (i = 0; i < ARRAY_SIZE(prefixes); i++)
			if (!strncmp(word, prefixes[i], strlen(prefixes[i]))) {
				g_string_append_printf(t, "%s\n", word);
				break;
			}
	return g_string_free(t, FALSE);
}

/*
 * Reads a constant of AML at a place: 0, 1, or a byte, word, dword or qword after
 * its prefix. Whether it is one.
 */
static bool aml_integer(const char *at, const char *end, uint64_t *value)
{
	static const char prefixes[] = { 0x0a, 0x0b, 0x0c, 0x0e };
	size_t i, n;

	*value = 0;
	if (at < end && (*at == 0 || *at == 1)) {
		*value = (unsigned char)*at;
		return true;
	}
	for (i = 0; at < end && i < sizeof(prefixes); i++) {
		if (*at != prefixes[i] || end - at <= 1 << i)
			continue;
		for (n = 0; n < (size_t)1 << i; n++)
			*value |= (uint64_t)(unsigned char)at[1 + n] << (8 * n);
		return true;
	}
	return false;
}

#define EGM_SIZE "nvidia,egm-size"

/* The largest extended GPU memory that the table states; false: it states none. */
static bool find_egm(const char *data, size_t len, uint64_t *size)
{
	const char *at = data, *end = data + len;
	uint64_t value;
	bool found = false;

	*size = 0;
	/* With the NUL of the string. */
	while ((at = memmem(at, end - at, EGM_SIZE, sizeof(EGM_SIZE)))) {
		at += sizeof(EGM_SIZE);
		if (!aml_integer(at, end, &value))
			continue;
		found = true;
		if (value > *size)
			*size = value;
	}
	return found;
}

/*
 * Lines "SSDT5: name name" for the tables that have the properties, and
 * "nvidia,egm-size=BYTES" for the extended GPU memory.
 */
static char *ask_acpi_tables(struct answers *a)
{
	static const char *const names[] = { "nvidia,gpu-mem-base-pa", "nvidia,gpu-mem-size" };
	g_auto(GStrv) tables = host_list(a->h, ACPI_TABLES);
	g_autoptr(GString) t = g_string_new(NULL);
	size_t i, n, len;
	uint64_t egm;
	bool named;

	if (!tables)
		return NULL;
	for (i = 0; tables[i]; i++) {
		g_autofree char *data = NULL;

		if (strncmp(tables[i], "DSDT", 4) && strncmp(tables[i], "SSDT", 4))
			continue;
		data = host_read(a->h, &len, ACPI_TABLES "/%s", tables[i]);
		if (!data && (errno == EACCES || errno == EPERM))
			return g_strdup("denied: only root can read them\n");
		if (!data)
			continue;
		named = false;
		for (n = 0; n < ARRAY_SIZE(names); n++) {
			if (!memmem(data, len, names[n], strlen(names[n])))
				continue;
			if (named)
				g_string_append_printf(t, " %s", names[n]);
			else
				g_string_append_printf(t, "%s: %s", tables[i], names[n]);
			named = true;
		}
		if (named && find_egm(data, len, &egm))
			g_string_append_printf(t, " " EGM_SIZE "=%llu", (unsigned long long)egm);
		if (named)
			g_string_append(t, "\n");
	}
	return g_string_free(g_steal_pointer(&t), FALSE);
}

/* ---- the module ----------------------------------------------------------------------------- */

static void module_info(GString *t, struct kmod_module *mod)
{
	static const char *const keys[] = {
		"version", "srcversion", "vermagic", "sig_id", "signer", "sig_key",
	};
	struct kmod_list *info = NULL, *item;
	const char *key;
	size_t i;

	if (kmod_module_get_info(mod, &info) < 0)
		return;
	kmod_list_foreach(item, info) {
		key = kmod_module_info_get_key(item);
		for (i = 0; i < ARRAY_SIZE(keys); i++)
			if (!strcmp(key, keys[i]))
				g_string_append_printf(t, "%s: %s\n", key,
						       kmod_module_info_get_value(item));
	}
	kmod_module_info_free_list(info);
}

/*
 * Whether modules.alias has the module for the alias by which libvirt and other
 * tools find a variant driver. Each id of the driver has one; this is the
 * first.
 */
static bool has_alias(struct kmod_ctx *ctx)
{
	static const char alias[] = "vfio_pci:v000010DEd00002342sv000010DEsd000016EBbc03sc02i00";
	struct kmod_list *list = NULL, *item;
	struct kmod_module *mod;
	bool found = false;

	if (kmod_module_new_from_lookup(ctx, alias, &list) < 0)
		return false;
	kmod_list_foreach(item, list) {
		mod = kmod_module_get_module(item);
		found |= !strcmp(kmod_module_get_name(mod), DRIVER_NAME);
		kmod_module_unref(mod);
	}
	kmod_module_unref_list(list);
	return found;
}

static char *ask_module(struct answers *a)
{
	const char *release = answer(a, "kernel-release"), *s;
	struct kmod_list *list = NULL;
	struct kmod_module *mod;
	struct kmod_ctx *ctx;
	GString *t;

	/* Without the index, libkmod finds nothing and reports no error. */
	if (!release || !host_exists(a->h, "/lib/modules/%s/modules.dep.bin", release))
		return NULL;
	ctx = kmod_new(NULL, NULL);
	if (!ctx)
		return NULL;
	kmod_set_log_priority(ctx, 0);
	if (kmod_module_new_from_lookup(ctx, MODULE_NAME, &list) < 0) {
		kmod_unref(ctx);
		return NULL;
	}
	t = g_string_new(NULL);
	if (!list) {
		g_string_append(t, "path: none\n");
	} else {
		mod = kmod_module_get_module(list);
		s = kmod_module_get_path(mod);
		if (s) {
			g_string_append_printf(t, "path: %s\n", s);
			module_info(t, mod);
		} else {
			g_string_append_printf(t, "path: %s\n",
					       kmod_module_get_initstate(mod) ==
					       KMOD_MODULE_BUILTIN ? "builtin" : "none");
		}
		s = kmod_module_get_install_commands(mod);
		if (s)
			g_string_append_printf(t, "install: %s\n", s);
		/*
		 * From modprobe.d and the kernel's command line. An empty line
		 * means none.
		 */
		s = kmod_module_get_options(mod);
		g_string_append_printf(t, "options: %s\n", s ? s : "");
		g_string_append_printf(t, "alias: %s\n", has_alias(ctx) ? "yes" : "no");
		kmod_module_unref(mod);
		kmod_module_unref_list(list);
	}
	kmod_unref(ctx);
	return g_string_free(t, FALSE);
}

static char *ask_secure_boot(struct answers *a)
{
	size_t len;
	g_autofree char *data = host_read(a->h, &len, EFI_VARIABLES
					  "/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c");

	/* The value follows four bytes of attributes. */
	if (!data || len < 5)
		return NULL;
	return g_strdup(data[4] ? "enabled" : "disabled");
}

static char *ask_keyrings(struct answers *a)
{
	g_autofree char *keys = host_read(a->h, NULL, "/proc/keys");
	g_auto(GStrv) lines = NULL;
	const char *description;
	GString *t;
	size_t i;

	if (!keys)
		return NULL;
	t = g_string_new(NULL);
	lines = g_strsplit(keys, "\n", -1);
	for (i = 0; lines[i]; i++) {
		description = strstr(lines[i], " asymmetri ");
		if (description)
			g_string_append_printf(t, "%s\n", description + strlen(" asymmetri "));
		/* How many keys the system's keyrings have: ".machine: 1". */
		description = strstr(lines[i], " keyring   .");
		if (description)
			g_string_append_printf(t, "%s\n", description + strlen(" keyring   "));
	}
	return g_string_free(t, FALSE);
}

/* Parses "AA:BB:..."; returns the number of bytes, 0 if malformed. */
static size_t parse_serial(const char *hex, unsigned char *bytes, size_t room)
{
	size_t n = 0;
	unsigned int byte;

	while (n < room && sscanf(hex, "%2x", &byte) == 1 && isxdigit((unsigned char)hex[1])) {
		bytes[n++] = byte;
		hex += 2;
		if (!*hex)
			return n;
		if (*hex++ != ':')
			return 0;
	}
	return 0;
}

/*
 * Whether the certificate that signed the module is enrolled as a machine
 * owner's key: "enrolled" or "missing". The signature has the certificate's
 * serial number, which is a DER integer in the certificate. DKMS's keys have 20
 * random bytes, which are unique.
 */
static char *ask_mok(struct answers *a)
{
	static const char *const dirs[] = { MOK_VARIABLES, EFI_VARIABLES };
	const char *module = answer(a, "module");
	g_autofree char *key = module ? field_value(module, "sig_key") : NULL;
	bool there = false, found = false;
	unsigned char serial[64], integer[sizeof(serial) + 3] = { 2 };
	size_t n, sign, i, j, len;

	n = key ? parse_serial(key, serial, sizeof(serial)) : 0;
	/* Shorter numbers could match by chance. */
	if (n < 4)
		return NULL;
	/* In DER, a first bit that is set would mean a negative number. */
	sign = serial[0] >> 7;
	integer[1] = n + sign;
	memcpy(integer + 2 + sign, serial, n);
	for (i = 0; i < ARRAY_SIZE(dirs); i++) {
		g_auto(GStrv) names = host_list(a->h, "%s", dirs[i]);

		for (j = 0; names && names[j]; j++) {
			g_autofree char *data = NULL;

			if (strncmp(names[j], "MokListRT", 9))
				continue;
			data = host_read(a->h, &len, "%s/%s", dirs[i], names[j]);
			if (!data)
				continue;
			there = true;
			found |= !!memmem(data, len, integer, 2 + sign + n);
		}
	}
	return there ? g_strdup(found ? "enrolled" : "missing") : NULL;
}

/* ---- processes ------------------------------------------------------------------------------ */

/*
 * "PID NAME" of NVIDIA's services that run. The kernel keeps 15 characters of a
 * name.
 */
static char *ask_processes(struct answers *a)
{
	static const char *const services[] = {
		"nvidia-persistenced", "nv-fabricmanager", "nv-hostengine", "nvidia-imex", "nvsm_core",
	};
	g_auto(GStrv) pids = host_list(a->h, "/proc");
	GString *t = g_string_new(NULL);
	size_t i, s;

	for (i = 0; pids && pids[i]; i++) {
		g_autofree char *name = NULL;

		if (!isdigit((unsigned char)pids[i][0]))
			continue;
		name = host_line(a->h, "/proc/%s/comm", pids[i]);
		if (!name)
			continue;
		for (s = 0; s < ARRAY_SIZE(services); s++)
			if (!strncmp(name, services[s], 15))
				g_string_append_printf(t, "%s %s\n", pids[i], services[s]);
	}
	return g_string_free(t, FALSE);
}

/* ---- the initramfs -------------------------------------------------------------------------- */

static char *ask_initramfs(struct answers *a)
{
	return images_read(a->h);
}

/* ---- all answers ---------------------------------------------------------------------------- */

/*
 * A tree that was made by hand or from a sosreport has no answers. Those that
 * are extracts of files (from_files) are then made from its files.
 */
static const struct {
	const char *name;
	char *(*ask)(struct answers *a);
	bool from_files;
} questions[] = {
	{ "euid", ask_euid, false },
	{ "machine", ask_machine, false },
	{ "kernel-release", ask_release, false },
	{ "page-size", ask_page_size, false },
	{ "memlock", ask_memlock, false },
	{ "cpu-dic", ask_cpu_dic, false },
	{ "kernel-log", ask_kernel_log, false },
	{ "kernel-config", ask_kernel_config, true },
	{ "command-line", ask_command_line, true },
	{ "acpi-tables", ask_acpi_tables, true },
	{ "kvm", ask_kvm, false },
	{ "kernel-package", ask_kernel_package, false },
	{ "module", ask_module, false },
	{ "secure-boot", ask_secure_boot, true },
	{ "keyrings", ask_keyrings, true },
	{ "mok", ask_mok, true },
	{ "processes", ask_processes, true },
	{ "qemu", ask_qemu, false },
	{ "libvirt", ask_libvirt, false },
	{ "qemu-options", ask_qemu_options, false },
	{ "libvirt-elements", ask_libvirt_elements, true },
	{ "libvirt-capabilities", ask_libvirt_capabilities, false },
	{ "initramfs", ask_initramfs, false },
};

#define QUESTIONS (ARRAY_SIZE(questions))

/*
 * A tree's answers are not trusted: no control characters may reach a terminal.
 */
static char *clean(char *text, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (!isprint((unsigned char)text[i]) && text[i] != '\n')
			text[i] = text[i] == '\t' ? ' ' : '?';
	/* A single line loses its newline; several lines keep theirs. */
	if (len && text[len - 1] == '\n' && memchr(text, '\n', len) == text + len - 1)
		text[len - 1] = 0;
	return text;
}

char config_option(const char *config, const char *name)
{
	g_auto(GStrv) lines = g_strsplit(config ? config : "", "\n", -1);
	size_t len = strlen(name), i;
	char value = 'n';

	for (i = 0; lines[i]; i++)
		if (!strncmp(lines[i], "CONFIG_", 7) && !strncmp(lines[i] + 7, name, len) &&
		    lines[i][7 + len] == '=')
			value = lines[i][8 + len];
	return value;
}

struct answers *answers_begin(struct host *h, struct recorder *recorder)
{
	struct answers *a = g_malloc0(sizeof(*a) + QUESTIONS * sizeof(a->of[0]));

	a->h = h;
	a->recorder = recorder;
	return a;
}

const char *answer(struct answers *a, const char *name)
{
	void (*seen)(struct host *h, enum host_kind kind, const char *path, const void *data,
		     size_t len, int error) = a->h->seen;
	size_t i, len;
	char *text;

	for (i = 0; strcmp(questions[i].name, name); i++)
		if (i + 1 == QUESTIONS)
			abort();	/* LCOV_EXCL_LINE: a mistake in this program */
	if (!a->of[i].asked) {
		a->of[i].asked = true;
		/* Record the answer, not the files read for it. */
		a->h->seen = NULL;
		text = a->h->recorded ? host_read(a->h, NULL, "/answers/%s", name) : NULL;
		if (!text && (!a->h->recorded || questions[i].from_files))
			text = questions[i].ask(a);
		len = text ? strlen(text) : 0;
		a->of[i].text = text ? clean(text, len) : NULL;
		a->h->seen = seen;
		if (text)
			record_answer(a->recorder, name, text);
	}
	return a->of[i].text;
}

void answers_free(struct answers *a)
{
	size_t i;

	for (i = 0; a && i < QUESTIONS; i++)
		g_free(a->of[i].text);
	g_free(a);
}

bool answer_egm(struct answers *a, uint64_t *size)
{
	const char *at = answer(a, "acpi-tables");
	char *end;
	unsigned long long value;
	bool found = false;

	*size = 0;
	while (at && (at = strstr(at, EGM_SIZE "="))) {
		at += strlen(EGM_SIZE "=");
		value = strtoull(at, &end, 10);
		if (end == at)
			continue;
		found = true;
		if (value > *size)
			*size = value;
	}
	return found;
}
