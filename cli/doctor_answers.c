// SPDX-License-Identifier: GPL-2.0-only
/*
 * What doctor learns from elsewhere than the files of a tree: system calls, programs, libkmod, and
 * files that are too long or too private to be recorded whole (kernel log, kernel configuration,
 * ACPI tables, key lists), of which only what matters is kept. Each answer is a short text with a
 * name, so that a recorded tree can hold it. Called by all checks through answer().
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <libkmod.h>
#include <limits.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "commands.h"
#include "doctor.h"

/* Headers before Linux 6.17 don't know it. */
#ifndef KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED
#define KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED 243
#endif

#define ACPI_TABLES "/sys/firmware/acpi/tables"
#define EFI_VARIABLES "/sys/firmware/efi/efivars"
#define MOK_VARIABLES "/sys/firmware/efi/mok-variables"

/* A program that only has to print its version. */
#define PROGRAM_MS 10000
#define PROGRAM_OUTPUT_MAX ((size_t)1 << 20)

/* ---- text ----------------------------------------------------------------------------------- */

struct text {
	char *s;	/* NULL while empty */
	size_t len;
};

static void host_printf(2, 3) append(struct text *t, const char *fmt, ...)
{
	va_list args;
	char *more;
	size_t n;

	va_start(args, fmt);
	more = xvasprintf(fmt, args);
	va_end(args);
	n = strlen(more);
	t->s = xrealloc(t->s, t->len + n + 1);
	memcpy(t->s + t->len, more, n + 1);
	t->len += n;
	free(more);
}

char *next_line(const char **text)
{
	const char *start = *text, *end;

	if (!start || !*start)
		return NULL;
	end = strchrnul(start, '\n');
	*text = *end ? end + 1 : end;
	return xasprintf("%.*s", (int)(end - start), start);
}

char *answer_value(const char *text, const char *key)
{
	size_t len = strlen(key);
	char *line, *value;

	while ((line = next_line(&text))) {
		if (!strncmp(line, key, len) && line[len] == ':') {
			value = xstrdup(line + len + 1 + strspn(line + len + 1, " "));
			free(line);
			return value;
		}
		free(line);
	}
	return NULL;
}

/* ---- the machine ---------------------------------------------------------------------------- */

static char *ask_euid(struct doctor *d)
{
	return xasprintf("%u", (unsigned int)geteuid());
}

static char *ask_machine(struct doctor *d)
{
	struct utsname uts;

	return uname(&uts) ? NULL : xstrdup(uts.machine);
}

static char *ask_release(struct doctor *d)
{
	struct utsname uts;

	return uname(&uts) ? NULL : xstrdup(uts.release);
}

static char *ask_page_size(struct doctor *d)
{
	return xasprintf("%llu", (unsigned long long)d->h->page_size);
}

static char *ask_memlock(struct doctor *d)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit))
		return NULL;
	if (limit.rlim_cur == RLIM_INFINITY)
		return xstrdup("unlimited");
	return xasprintf("%llu", (unsigned long long)limit.rlim_cur);
}

/* CTR_EL0.DIC: the one of KVM's two conditions that user space may read. */
static char *ask_cpu_dic(struct doctor *d)
{
#ifdef __aarch64__
	uint64_t ctr;

	asm("mrs %0, ctr_el0" : "=r" (ctr));
	return xstrdup(ctr & 1ULL << 29 ? "1" : "0");
#else
	return NULL;
#endif
}

/* ---- programs ------------------------------------------------------------------------------- */

/*
 * What a program prints, NULL if it isn't there or fails. Only called with absolute paths; the
 * environment is empty, so that nothing of the caller's reaches it.
 */
static char *run(const char *path, char *const argv[], size_t *len)
{
	char *const env[] = { (char *)"LC_ALL=C", (char *)"PATH=/usr/bin:/bin", NULL };
	long long end = now_ms() + PROGRAM_MS, left;
	posix_spawn_file_actions_t actions;
	size_t room = 4096, used = 0;
	struct pollfd p = { .events = POLLIN };
	int fds[2], status, error;
	bool complete = false;
	char *out;
	ssize_t n;
	pid_t pid;

	if (access(path, X_OK) || pipe2(fds, O_CLOEXEC))
		return NULL;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	error = posix_spawn(&pid, path, &actions, NULL, argv, env);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	if (error) {
		close(fds[0]);
		return NULL;
	}

	out = xcalloc(1, room + 1);
	p.fd = fds[0];
	while ((left = end - now_ms()) > 0 && poll(&p, 1, left) > 0 && used < PROGRAM_OUTPUT_MAX) {
		if (used == room)
			out = xrealloc(out, (room *= 2) + 1);
		n = read(fds[0], out + used, room - used);
		if (n <= 0) {
			complete = !n;
			break;
		}
		used += n;
	}
	out[used] = 0;
	close(fds[0]);
	if (!complete)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!complete || !WIFEXITED(status) || WEXITSTATUS(status)) {
		free(out);
		return NULL;
	}
	if (len)
		*len = used;
	return out;
}

/* "PATH: first line" of each that is there. */
static char *ask_versions(const char *const *paths)
{
	struct text t = { };
	const char *rest;
	char *out, *line;

	for (; *paths; paths++) {
		char *const argv[] = { (char *)*paths, (char *)"--version", NULL };

		out = run(*paths, argv, NULL);
		if (!out)
			continue;
		rest = out;
		line = next_line(&rest);
		append(&t, "%s: %s\n", *paths, line ? line : "");
		free(line);
		free(out);
	}
	return t.s;
}

static char *ask_qemu(struct doctor *d)
{
	static const char *const arm[] = {
		"/usr/bin/qemu-system-aarch64", "/usr/libexec/qemu-kvm",
		"/usr/local/bin/qemu-system-aarch64", NULL
	};
	static const char *const x86[] = {
		"/usr/bin/qemu-system-x86_64", "/usr/local/bin/qemu-system-x86_64", NULL
	};

	return ask_versions(d->arm ? arm : x86);
}

static char *ask_libvirt(struct doctor *d)
{
	static const char *const paths[] = {
		"/usr/sbin/virtqemud", "/usr/sbin/libvirtd", NULL
	};

	return ask_versions(paths);
}

/* ---- KVM ------------------------------------------------------------------------------------ */

static char *ask_kvm(struct doctor *d)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, bits = 0;
	struct text t = { };

	if (kvm < 0) {
		append(&t, "state: %s\n", errno == EACCES || errno == EPERM ? "denied" :
		       host_absent() ? "absent" : strerror(errno));
		return t.s;
	}
#ifdef KVM_CAP_ARM_VM_IPA_SIZE
	if (d->arm)
		bits = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_ARM_VM_IPA_SIZE);
#endif
	/* On Arm the type is the width of guest-physical addresses; 0 means 40. */
	vm = ioctl(kvm, KVM_CREATE_VM, d->arm && bits > 0 ? (unsigned long)bits : 0);
	if (vm < 0) {
		append(&t, "state: no VM: %s\n", strerror(errno));
		close(kvm);
		return t.s;
	}
	append(&t, "state: open\n");
	if (bits > 0)
		append(&t, "address-bits: %d\n", bits);
	/* Of the VM, not of /dev/kvm: the latter always answers 0. */
	append(&t, "cap-243: %d\n",
	       ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED));
	close(vm);
	close(kvm);
	return t.s;
}

/* ---- the kernel ----------------------------------------------------------------------------- */

/* Keeps one record of the log, "LEVEL text", if it tells doctor anything. */
static void keep_record(struct text *t, char *record, bool first)
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
	/* From the very first record on: what isn't there wasn't said. */
	if (first && !sequence)
		append(t, "6 log complete\n");
	for (i = 0; i < ARRAY_SIZE(what); i++) {
		if (strstr(text, what[i])) {
			append(t, "%u %s\n", priority & 7, text);
			return;
		}
	}
}

static char *ask_kernel_log(struct doctor *d)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct text t = { };
	char record[8192];
	bool first = true;
	ssize_t n;

	if (fd < 0)
		return NULL;
	for (;;) {
		n = read(fd, record, sizeof(record) - 1);
		if (n < 0 && (errno == EPIPE || errno == EINTR))
			continue;	/* overwritten meanwhile: the next one is read */
		if (n <= 0)
			break;
		record[n] = 0;
		keep_record(&t, record, first);
		first = false;
	}
	n = errno;
	close(fd);
	if (n != EAGAIN) {
		free(t.s);
		return NULL;
	}
	return t.s ? t.s : xstrdup("");
}

/* The kernel's configuration, from where distributions put it. */
static char *read_config(struct doctor *d)
{
	static char *const gzip[] = {
		(char *)"gzip", (char *)"-dc", (char *)"/proc/config.gz", NULL
	};
	const char *release = answer(d, "kernel-release");
	char *text;

	if (!release)
		return NULL;
	text = host_read(d->h, NULL, "/boot/config-%s", release);
	if (!text)
		text = host_read(d->h, NULL, "/lib/modules/%s/config", release);
	if (!text && !d->h->recorded)
		text = run("/usr/bin/gzip", gzip, NULL);
	if (!text)
		text = host_read(d->h, NULL, "/lib/modules/%s/build/.config", release);
	return text;
}

static char *ask_kernel_config(struct doctor *d)
{
	static const char *const options[] = {
		"VFIO_PCI_CORE", "VFIO_IOMMU_TYPE1", "VFIO_CONTAINER", "IOMMUFD",
		"IOMMUFD_VFIO_CONTAINER", "VFIO_DEVICE_CDEV", "ARCH_SUPPORTS_PMD_PFNMAP",
		"ARCH_SUPPORTS_PUD_PFNMAP", "VFIO_PCI_DMABUF", "MEMORY_FAILURE",
		"NVGRACE_GPU_VFIO_PCI", "NVGRACE_EGM", "MODULE_SIG", "MODULE_SIG_FORCE", "KVM",
	};
	char *config = read_config(d), *line, *equals;
	const char *rest = config;
	struct text t = { };
	size_t i;

	if (!config)
		return NULL;
	while ((line = next_line(&rest))) {
		equals = strchr(line, '=');
		if (equals && !strncmp(line, "CONFIG_", 7)) {
			*equals = 0;
			for (i = 0; i < ARRAY_SIZE(options); i++)
				if (!strcmp(line + 7, options[i]))
					append(&t, "%s=%s\n", line, equals + 1);
		}
		free(line);
	}
	free(config);
	return t.s ? t.s : xstrdup("");
}

/* Only words that may matter: others hold names of disks and worse. */
static char *ask_command_line(struct doctor *d)
{
	static const char *const prefixes[] = {
		"iommu", "arm-smmu", "intel_iommu", "amd_iommu", "kvm-arm.", "kvm.", "arm64.",
		"module.sig_enforce", "lockdown", "vfio", "nvgrace", "acpi=", "pci=", "nouveau.",
		"modprobe.blacklist", "rd.driver",
	};
	char *line = host_line(d->h, "/proc/cmdline"), *word, *rest = NULL;
	struct text t = { };
	size_t i;

	if (!line)
		return NULL;
	for (word = strtok_r(line, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
		for (i = 0; i < ARRAY_SIZE(prefixes); i++)
			if (!strncmp(word, prefixes[i], strlen(prefixes[i]))) {
				append(&t, "%s\n", word);
				break;
			}
	free(line);
	return t.s ? t.s : xstrdup("");
}

/* Which of the tables that hold devices name the properties: a line each, "SSDT5: name name". */
static char *ask_acpi_tables(struct doctor *d)
{
	static const char *const names[] = { "nvidia,gpu-mem-base-pa", "nvidia,gpu-mem-size" };
	char **tables = host_list(d->h, ACPI_TABLES), *data;
	struct text t = { };
	size_t i, n, len;
	bool named;

	if (!tables)
		return NULL;
	for (i = 0; tables[i]; i++) {
		if (strncmp(tables[i], "DSDT", 4) && strncmp(tables[i], "SSDT", 4))
			continue;
		data = host_read(d->h, &len, ACPI_TABLES "/%s", tables[i]);
		if (!data && (errno == EACCES || errno == EPERM)) {
			free(t.s);
			host_free_list(tables);
			return xstrdup("denied: only root reads them\n");
		}
		if (!data)
			continue;
		named = false;
		for (n = 0; n < ARRAY_SIZE(names); n++) {
			if (!memmem(data, len, names[n], strlen(names[n])))
				continue;
			if (named)
				append(&t, " %s", names[n]);
			else
				append(&t, "%s: %s", tables[i], names[n]);
			named = true;
		}
		if (named)
			append(&t, "\n");
		free(data);
	}
	host_free_list(tables);
	return t.s ? t.s : xstrdup("");
}

/* ---- the module ----------------------------------------------------------------------------- */

static void module_info(struct text *t, struct kmod_module *mod)
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
				append(t, "%s: %s\n", key, kmod_module_info_get_value(item));
	}
	kmod_module_info_free_list(info);
}

/*
 * Whether the alias by which libvirt and others look for the most specific driver leads to our
 * module. All ids of the driver's table have one; this is the first.
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

static char *ask_module(struct doctor *d)
{
	const char *release = answer(d, "kernel-release"), *s;
	struct kmod_list *list = NULL;
	struct kmod_module *mod;
	struct kmod_ctx *ctx;
	struct text t = { };

	/* Without the index libkmod finds nothing, and does not say why. */
	if (!release || !host_exists(d->h, "/lib/modules/%s/modules.dep.bin", release))
		return NULL;
	ctx = kmod_new(NULL, NULL);
	if (!ctx)
		return NULL;
	kmod_set_log_priority(ctx, 0);
	if (kmod_module_new_from_lookup(ctx, MODULE_NAME, &list) < 0) {
		kmod_unref(ctx);
		return NULL;
	}
	if (!list) {
		append(&t, "path: none\n");
	} else {
		mod = kmod_module_get_module(list);
		s = kmod_module_get_path(mod);
		if (s) {
			append(&t, "path: %s\n", s);
			module_info(&t, mod);
		} else {
			append(&t, "path: %s\n",
			       kmod_module_get_initstate(mod) == KMOD_MODULE_BUILTIN ?
			       "builtin" : "none");
		}
		s = kmod_module_get_install_commands(mod);
		if (s)
			append(&t, "install: %s\n", s);
		/* Of modprobe.d and of the kernel's command line; they stand there if there is none, too. */
		s = kmod_module_get_options(mod);
		append(&t, "options: %s\n", s ? s : "");
		append(&t, "alias: %s\n", has_alias(ctx) ? "yes" : "no");
		kmod_module_unref(mod);
		kmod_module_unref_list(list);
	}
	kmod_unref(ctx);
	return t.s;
}

static char *ask_secure_boot(struct doctor *d)
{
	size_t len;
	char *data = host_read(d->h, &len, EFI_VARIABLES
			       "/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"), *text;

	if (!data)
		return NULL;
	/* Four bytes of attributes stand in front. */
	text = len < 5 ? NULL : xstrdup(data[4] ? "enabled" : "disabled");
	free(data);
	return text;
}

static char *ask_keyrings(struct doctor *d)
{
	char *keys = host_read(d->h, NULL, "/proc/keys"), *line;
	const char *rest = keys, *description;
	struct text t = { };

	if (!keys)
		return NULL;
	while ((line = next_line(&rest))) {
		description = strstr(line, " asymmetri ");
		if (description)
			append(&t, "%s\n", description + strlen(" asymmetri "));
		free(line);
	}
	free(keys);
	return t.s ? t.s : xstrdup("");
}

/* Bytes of "AA:BB:...", 0 if it is none. */
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
 * Whether the certificate that signed the module is among the machine owner's: "enrolled" or
 * "missing". The signature names its certificate by serial number, and a certificate begins with
 * that as a DER integer; DKMS's keys have 20 random bytes, which nothing else will equal.
 */
static char *ask_mok(struct doctor *d)
{
	static const char *const dirs[] = { MOK_VARIABLES, EFI_VARIABLES };
	const char *module = answer(d, "module");
	char *key = module ? answer_value(module, "sig_key") : NULL, *data, **names;
	bool there = false, found = false;
	unsigned char serial[64], integer[sizeof(serial) + 3] = { 2 };
	size_t n, sign, i, j, len;

	n = key ? parse_serial(key, serial, sizeof(serial)) : 0;
	free(key);
	/* What is shorter could be found anywhere. */
	if (n < 4)
		return NULL;
	/* A first bit that is set would be a sign. */
	sign = serial[0] >> 7;
	integer[1] = n + sign;
	memcpy(integer + 2 + sign, serial, n);
	for (i = 0; i < ARRAY_SIZE(dirs); i++) {
		names = host_list(d->h, "%s", dirs[i]);
		for (j = 0; names && names[j]; j++) {
			if (strncmp(names[j], "MokListRT", 9))
				continue;
			data = host_read(d->h, &len, "%s/%s", dirs[i], names[j]);
			if (!data)
				continue;
			there = true;
			found |= !!memmem(data, len, integer, 2 + sign + n);
			free(data);
		}
		host_free_list(names);
	}
	return there ? xstrdup(found ? "enrolled" : "missing") : NULL;
}

/* ---- processes ------------------------------------------------------------------------------ */

/* "PID NAME" of NVIDIA's services. The kernel keeps 15 characters of a name. */
static char *ask_processes(struct doctor *d)
{
	static const char *const services[] = {
		"nvidia-persistenced", "nv-fabricmanager", "nv-hostengine", "nvidia-imex",
	};
	char **pids = host_list(d->h, "/proc"), *name;
	struct text t = { };
	size_t i, s;

	for (i = 0; pids && pids[i]; i++) {
		if (!isdigit((unsigned char)pids[i][0]))
			continue;
		name = host_line(d->h, "/proc/%s/comm", pids[i]);
		if (!name)
			continue;
		for (s = 0; s < ARRAY_SIZE(services); s++)
			if (!strncmp(name, services[s], 15))
				append(&t, "%s %s\n", pids[i], services[s]);
		free(name);
	}
	host_free_list(pids);
	return t.s ? t.s : xstrdup("");
}

/* ---- all of them ---------------------------------------------------------------------------- */

/*
 * A tree that nobody recorded, made by hand or from a sosreport, has no answers; those that are
 * extracts of files (from_files) are then made from its files.
 */
static const struct {
	const char *name;
	char *(*ask)(struct doctor *d);
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
	{ "module", ask_module, false },
	{ "secure-boot", ask_secure_boot, true },
	{ "keyrings", ask_keyrings, true },
	{ "mok", ask_mok, true },
	{ "processes", ask_processes, true },
	{ "qemu", ask_qemu, false },
	{ "libvirt", ask_libvirt, false },
	{ "initramfs", ask_initramfs, false },
};

#define QUESTIONS (ARRAY_SIZE(questions))

struct answers {
	bool asked[QUESTIONS];
	char *text[QUESTIONS];
};

/* A tree's answers may come from anybody: what isn't text must not reach a terminal. */
static char *clean(char *text, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (!isprint((unsigned char)text[i]) && text[i] != '\n')
			text[i] = text[i] == '\t' ? ' ' : '?';
	/* One value without its line's end; of several lines each keeps its own. */
	if (len && text[len - 1] == '\n' && memchr(text, '\n', len) == text + len - 1)
		text[len - 1] = 0;
	return text;
}

const char *answer(struct doctor *d, const char *name)
{
	void (*seen)(struct host *h, enum host_kind kind, const char *path, const void *data,
		     size_t len, int error) = d->h->seen;
	size_t i, len;
	char *text;

	if (!d->answers)
		d->answers = xcalloc(1, sizeof(*d->answers));
	for (i = 0; strcmp(questions[i].name, name); i++)
		if (i + 1 == QUESTIONS)
			abort();
	if (!d->answers->asked[i]) {
		d->answers->asked[i] = true;
		/* What is read for an answer isn't recorded: the answer is. */
		d->h->seen = NULL;
		text = d->h->recorded ? host_read(d->h, NULL, "/answers/%s", name) : NULL;
		if (!text && (!d->h->recorded || questions[i].from_files))
			text = questions[i].ask(d);
		len = text ? strlen(text) : 0;
		d->answers->text[i] = text ? clean(text, len) : NULL;
		d->h->seen = seen;
		if (text)
			record_answer(d, name, text);
	}
	return d->answers->text[i];
}

void answers_free(struct doctor *d)
{
	size_t i;

	for (i = 0; d->answers && i < QUESTIONS; i++)
		free(d->answers->text[i]);
	free(d->answers);
	d->answers = NULL;
}
