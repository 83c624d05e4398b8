// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu guest": prints the whole configuration of a guest for GPUs of
 * this host. steps.c computes it, and a file for each format prints it. main.c
 * calls it.
 */
#include <ctype.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "doctor/doctor.h"
#include "facts/selection.h"
#include "guest/formats.h"
#include "system/options.h"
#include "system/output.h"

static const char doc[] =
	"Print the configuration of a guest for GPUs that are bound to " DRIVER_NAME ": NUMA nodes "
	"with their generic initiators, PCIe buses, SMMUs, the window for the BARs, memory, and what "
	"else a guest needs. Everything is derived from this host and printed with its reason. "
	"Nothing is started or changed.\v"
	"An ADDRESS may be short (01:00.0) if only one GPU matches it. Without --format, the "
	"format is libvirt if it is installed, else qemu.\n"
	"\n"
	"Exit status: 0 printed; 1 FILE can't be written; 2 usage error; 3 no such GPU; 4 such a "
	"guest is not possible, and the message says why and what would help.";

enum { KEY_MEMORY = 256, KEY_CPUS, KEY_DISK, KEY_ACCEL, KEY_IOMMUFD, KEY_HUGEPAGES, KEY_NAME,
       KEY_FRAGMENT, KEY_DEVICE, KEY_PIN, KEY_SEED, KEY_SSH, KEY_VARS, KEY_SECURE, KEY_TPM };

static const struct argp_option options[] = {
	{ "all", 'a', NULL, 0, "All GPUs that are bound to " DRIVER_NAME, 0 },
	{ "device", KEY_DEVICE, "DEVICE", 0,
	  "Another device beside the GPUs, such as a NIC; may be given several times", 0 },
	{ "format", 'f', "qemu|libvirt|kubevirt|json", 0, "\"qemu\" (a script), \"libvirt\" (a domain), \"kubevirt\" or \"json\"", 0 },
	{ "fragment", KEY_FRAGMENT, NULL, 0,
	  "With the format libvirt: only the elements that a domain needs for the GPUs", 0 },
	{ "output", 'o', "FILE", 0,
	  "Replace FILE as a whole, instead of writing to standard output", 0 },
	{ "name", KEY_NAME, "NAME", 0, "The guest's name (default gh200)", 0 },
	{ "memory", KEY_MEMORY, "SIZE", 0, "Memory, such as 64G (default: 64G for each GPU, or half of the host's)", 0 },
	{ "cpus", KEY_CPUS, "NUMBER", 0, "Processors (default: 16 for each GPU, or the host's)", 0 },
	{ "disk", KEY_DISK, "FILE", 0, "The disk: qcow2 if its name ends in .qcow2, else raw; for kubevirt, a claim", 0 },
	{ "cloud-init", KEY_SEED, "PATH", 0,
	  "A folder with user-data and meta-data for cloud-init, or an image of a file system with the label CIDATA", 0 },
	{ "ssh-port", KEY_SSH, "PORT", 0, "Reach the guest's port 22 by this port of the host's 127.0.0.1", 0 },
	{ "uefi-vars", KEY_VARS, "FILE", 0,
	  "Keep UEFI's variables in FILE, which is made from the firmware's template if it does not exist", 0 },
	{ "secure-boot", KEY_SECURE, NULL, 0, "Firmware with secure boot and its keys", 0 },
	{ "tpm", KEY_TPM, NULL, 0, "A TPM 2.0, by swtpm", 0 },
	{ "hugepages", KEY_HUGEPAGES, "SIZE", 0, "Memory of huge pages of this size, such as 512M", 0 },
	{ "pin", KEY_PIN, NULL, 0,
	  "Run on the processors of the NUMA nodes near the GPUs, with memory only from there", 0 },
	{ "accel-smmu", KEY_ACCEL, "auto|on|off", 0,
	  "SMMUs that use the host's in hardware: \"auto\" (default: if all have it), \"on\" or \"off\"", 0 },
	{ "iommufd", KEY_IOMMUFD, "auto|on|off", 0,
	  "DMA through iommufd instead of type1: \"auto\" (default: if it is needed), \"on\" or \"off\"", 0 },
	{ }
};

struct arguments {
	struct selection selected;
	struct guest_wish wish;
	const char **device;	/* points into argv */
	size_t devices;
	const char *output;
	bool fragment;
};

/* "64G"; false: no size. */
static bool parse_size(const char *text, uint64_t *size)
{
	static const char units[] = "KMGT";
	g_autofree char *digits = g_strdup(text);
	size_t n = strlen(digits);
	const char *unit = n > 1 ? strchr(units, toupper((unsigned char)digits[n - 1])) : NULL;
	uint64_t number = 0;
	int shift;
	bool good;

	if (n)
		digits[n - 1] = 0;
	good = unit && isdigit((unsigned char)*digits) && parse_u64(digits, &number) && number;
	if (!good)
		return false;
	shift = 10 * (unit - units + 1);
	*size = number << shift;
	return *size >> shift == number && *size <= 1ULL << 60;
}

/*
 * Whether all of a text is UTF-8 without control characters and without those
 * that XML forbids, which no file that is printed here could have.
 */
static bool is_clean(const char *text)
{
	gunichar c;

	if (!g_utf8_validate(text, -1, NULL))
		return false;
	for (; *text; text = g_utf8_next_char(text)) {
		c = g_utf8_get_char(text);
		if (c < ' ' || c == 0x7f || c == 0xfffe || c == 0xffff)
			return false;
	}
	return true;
}

/* A path that does not exist here, as with a recorded host, is what its name says. */
static bool is_device(const char *path)
{
	struct stat st;

	if (!stat(path, &st))
		return S_ISBLK(st.st_mode);
	return g_str_has_prefix(path, "/dev/") && !g_str_has_prefix(path, "/dev/shm/");
}

static const char *parse_text(const char *option, const char *arg, struct argp_state *state)
{
	if (!*arg || !is_clean(arg))
		argp_error(state, "--%s: empty, or with a control character or bytes that are not UTF-8",
			   option);
	return arg;
}

static enum choice parse_choice(const char *option, const char *arg, struct argp_state *state)
{
	if (!strcmp(arg, "on"))
		return CHOICE_ON;
	if (!strcmp(arg, "off"))
		return CHOICE_OFF;
	if (strcmp(arg, "auto"))
		argp_error(state, "--%s=%s: use \"auto\", \"on\" or \"off\"", option, arg);
	return CHOICE_AUTO;
}

static enum format parse_format(const char *arg, struct argp_state *state)
{
	static const char *const formats[] = {
		[FORMAT_QEMU] = "qemu", [FORMAT_LIBVIRT] = "libvirt",
		[FORMAT_KUBEVIRT] = "kubevirt", [FORMAT_JSON] = "json",
	};
	enum format f;

	for (f = FORMAT_QEMU; f <= FORMAT_JSON; f++)
		if (!strcmp(arg, formats[f]))
			return f;
	argp_error(state, "--format=%s: use \"qemu\", \"libvirt\", \"kubevirt\" or \"json\"", arg);
	return FORMAT_AUTO;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;
	uint64_t number;

	switch (key) {
	case 'f':
		a->wish.format = parse_format(arg, state);
		return 0;
	case 'o':
		a->output = arg;
		return 0;
	case KEY_DEVICE:
		a->device = g_renew(const char *, a->device, a->devices + 1);
		a->device[a->devices++] = arg;
		return 0;
	case KEY_PIN:
		a->wish.pin = true;
		return 0;
	case KEY_FRAGMENT:
		a->fragment = true;
		return 0;
	case KEY_NAME:
		a->wish.name = parse_text("name", arg, state);
		return 0;
	case KEY_DISK:
		a->wish.disk = parse_text("disk", arg, state);
		a->wish.disk_device = is_device(arg);
		return 0;
	case KEY_SEED:
		a->wish.seed = parse_text("cloud-init", arg, state);
		a->wish.seed_folder = g_file_test(arg, G_FILE_TEST_IS_DIR);
		return 0;
	case KEY_VARS:
		a->wish.vars = parse_text("uefi-vars", arg, state);
		return 0;
	case KEY_SECURE:
		a->wish.secure_boot = true;
		return 0;
	case KEY_TPM:
		a->wish.tpm = true;
		return 0;
	case KEY_SSH:
		if (arg[strspn(arg, "0123456789")] || !parse_u64(arg, &number) || !number ||
		    number > UINT16_MAX)
			argp_error(state, "--ssh-port=%s: not a port from 1 to 65535", arg);
		else
			a->wish.ssh_port = number;
		return 0;
	case KEY_MEMORY:
	case KEY_HUGEPAGES:
		if (!parse_size(arg, key == KEY_MEMORY ? &a->wish.memory : &a->wish.hugepages))
			argp_error(state, "--%s=%s: not a size such as 64G",
				   key == KEY_MEMORY ? "memory" : "hugepages", arg);
		return 0;
	case KEY_CPUS:
		if (arg[strspn(arg, "0123456789")] || !parse_u64(arg, &number) || !number ||
		    number > 1U << 20)
			argp_error(state, "--cpus=%s: not a number of processors", arg);
		else
			a->wish.cpus = number;
		return 0;
	case KEY_ACCEL:
		a->wish.accel = parse_choice("accel-smmu", arg, state);
		return 0;
	case KEY_IOMMUFD:
		a->wish.iommufd = parse_choice("iommufd", arg, state);
		return 0;
	}
	return selection_parse(&a->selected, key, state);
}

/* ---- names ---------------------------------------------------------------------------------- */

/* A name of Kubernetes: small letters, digits and hyphens. */
static bool is_label(const char *text)
{
	size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-");

	return n && n <= 63 && !text[n] && text[0] != '-' && text[n - 1] != '-';
}

/* libvirt's daemon has another working directory. */
static enum exit_status check_paths(const struct guest_wish *wish)
{
	const struct {
		const char *option, *path;
	} paths[] = {
		{ "disk", wish->disk }, { "cloud-init", wish->seed }, { "uefi-vars", wish->vars },
	};
	size_t i;

	if (wish->seed_folder) {
		complain(NULL, "--cloud-init=%s: a folder, and libvirt gives the guest only images; make one with \"xorrisofs -J -r -V CIDATA -o seed.iso DIR\"",
			 wish->seed);
		return EXIT_USAGE_ERROR;
	}
	for (i = 0; i < G_N_ELEMENTS(paths); i++) {
		if (paths[i].path && *paths[i].path != '/') {
			complain(NULL, "--%s=%s: libvirt needs an absolute path", paths[i].option,
				 paths[i].path);
			return EXIT_USAGE_ERROR;
		}
	}
	return EXIT_OK;
}

static enum exit_status check_names(const struct arguments *a, enum format format)
{
	const char *name = a->wish.name ? a->wish.name : "", *disk = a->wish.disk ? a->wish.disk : "";

	if (a->fragment && format != FORMAT_LIBVIRT) {
		complain(NULL, "--fragment is for --format=libvirt");
		return EXIT_USAGE_ERROR;
	}
	if (format == FORMAT_KUBEVIRT && ((*name && !is_label(name)) || (*disk && !is_label(disk)))) {
		complain(NULL, "--name and --disk for KubeVirt: only lower-case letters, digits and hyphens, at most 63");
		return EXIT_USAGE_ERROR;
	}
	if (format == FORMAT_LIBVIRT && (strchr(name, '/') || (*name && !name[strspn(name, " ")]))) {
		complain(NULL, "--name=%s: libvirt's names have no slash and are not only spaces", name);
		return EXIT_USAGE_ERROR;
	}
	/* swtpm has no way to write a comma in a path, and a socket's path is short. */
	if (format == FORMAT_QEMU && a->wish.tpm && (strpbrk(name, "/,") || strlen(name) > 80)) {
		complain(NULL, "--tpm with --name=%s: swtpm's folder has this name; use at most 80 bytes, without comma and slash", name);
		return EXIT_USAGE_ERROR;
	}
	if (format == FORMAT_KUBEVIRT && (a->wish.seed || a->wish.ssh_port)) {
		complain(NULL, "--cloud-init and --ssh-port are not for KubeVirt, which has volumes cloudInitNoCloud and \"virtctl ssh\"");
		return EXIT_USAGE_ERROR;
	}
	return format == FORMAT_LIBVIRT ? check_paths(&a->wish) : EXIT_OK;
}

/* ---- the doctor's findings ------------------------------------------------------------------ */

/*
 * What a finding that is not good means for the guest; NULL: nothing. One that
 * is bad always means that it fails.
 */
static const char *const effects[FINDING_IDS] = {
	[ID_VFIO] = "fails", [ID_DMA_BACKEND] = "slow", [ID_HUGE_MAPPINGS] = "slow",
	[ID_RESETS] = "fails", [ID_IOMMU] = "fails", [ID_KVM] = "fails",
	[ID_KVM_USEMEM] = "slow", [ID_KVM_RESMEM] = "slow", [ID_MEMLOCK] = "fails",
	[ID_QEMU] = "slow", [ID_DEVICE] = "fails", [ID_FIRMWARE] = "fails",
	[ID_IOMMU_GROUP] = "fails", [ID_READINESS] = "fails", [ID_MEMORY_CLAIM] = "fails",
	[ID_ALIGNMENT] = "slow", [ID_PEER_TO_PEER] = "slow",
};

/*
 * libvirt and KubeVirt raise the limit of locked memory, and KubeVirt has a QEMU
 * of its own.
 */
static bool matters(const struct guest_plan *plan, const struct finding *f)
{
	if (f->accel_only && !plan->accel)
		return false;
	/* type1 maps GPU memory without. */
	if (f->id == ID_PEER_TO_PEER)
		return plan->devices > plan->gpus && plan->iommufd;
	if (f->id == ID_MEMLOCK)
		return plan->format != FORMAT_LIBVIRT && plan->format != FORMAT_KUBEVIRT;
	return f->id != ID_QEMU || plan->format != FORMAT_KUBEVIRT;
}

static bool is_named(const struct guest_plan *plan, const char *device)
{
	size_t i;

	for (i = 0; device && i < plan->gpus; i++)
		if (!strcmp(plan->device[i].pci->address, device))
			return true;
	return !device;
}

/* To be freed; it points into the doctor's findings. */
static struct guest_warning *find_warnings(const struct doctor *d, const struct guest_plan *plan,
					   size_t *count)
{
	struct guest_warning *warning = g_new0(struct guest_warning, d->count);
	const struct finding *f;
	size_t i;

	*count = 0;
	for (i = 0; i < d->count; i++) {
		f = &d->findings[i];
		if (!effects[f->id] || f->verdict < NOTE || !is_named(plan, f->device) ||
		    !matters(plan, f))
			continue;
		warning[(*count)++] = (struct guest_warning){
			.id = finding_ids[f->id], .device = f->device, .text = f->text,
			.remedy = f->remedy, .effect = f->verdict == BAD ? "fails" : effects[f->id],
		};
	}
	return warning;
}

/* ---- the command ---------------------------------------------------------------------------- */

static void print(FILE *out, void *data)
{
	static void (*const printers[])(const struct guest_output *o) = {
		[FORMAT_QEMU] = guest_print_qemu, [FORMAT_LIBVIRT] = guest_print_libvirt,
		[FORMAT_KUBEVIRT] = guest_print_kubevirt, [FORMAT_JSON] = guest_print_json,
	};
	struct guest_output *o = data;

	o->out = out;
	printers[o->plan->format](o);
}

static bool is_bound(const struct gpu *gpu, const void *data)
{
	return gpu->ours;
}

/*
 * Of a file that is replaced, the readers stay who they are. Who may read a script
 * may start it.
 */
static mode_t output_mode(const char *file, enum format format)
{
	struct stat st;
	mode_t mode = 0644;

	if (!stat(file, &st) && S_ISREG(st.st_mode))
		mode = st.st_mode & 0777;
	return format == FORMAT_QEMU ? mode | (mode & 0444) >> 2 : mode;
}

static enum exit_status read_devices(struct host *h, const struct arguments *a,
				     struct guest_facts *facts)
{
	char address[ADDRESS_MAX];
	enum exit_status status;
	size_t i;

	for (i = 0; i < a->devices; i++) {
		status = pci_resolve(h, a->device[i], address);
		if (status)
			return status;
		guest_facts_add(h, facts, address);
	}
	return EXIT_OK;
}

static enum exit_status write_plan(const struct arguments *a, const struct guest_plan *plan,
				   const struct doctor *d)
{
	struct guest_output o = { .plan = plan, .fragment = a->fragment };
	g_autofree struct guest_warning *warning = find_warnings(d, plan, &o.warnings);
	enum exit_status status = EXIT_OK;
	size_t i;

	o.warning = warning;
	for (i = 0; i < o.warnings; i++)
		if (!strcmp(warning[i].effect, "fails"))
			complain(warning[i].device, "this guest fails: %s: %s; see \"" PROGRAM " doctor\"",
				 warning[i].id, warning[i].text);
	if (!a->output)
		print(stdout, &o);
	else if (write_whole(a->output, output_mode(a->output, plan->format), print, &o))
		status = EXIT_FAILED;
	return status;
}

int cmd_guest(struct host *h, int argc, char **argv)
{
	static const struct argp argp = {
		options, parse, "ADDRESS...\n--all", doc, NULL, NULL, NULL
	};
	struct arguments a = { };
	struct guest_plan plan = { };
	enum exit_status status;
	g_autofree const struct gpu **gpu = NULL;
	struct doctor d = { .h = h };
	size_t count;

	parse_options(&argp, argc, argv, &a);
	doctor_look(&d, NULL, 0);
	guest_facts_ask(d.answers, &d.facts);
	gpu = g_new0(const struct gpu *, d.gpus.count);
	status = selection_find(&a.selected, h, &d.gpus, is_bound, NULL, gpu, &count);
	if (!status)
		status = read_devices(h, &a, &d.facts);
	if (!status) {
		status = guest_plan(&d.facts, &a.wish, gpu, count, &plan);
		if (plan.refused)
			complain(plan.about, "%s", plan.refused);
	}
	if (!status)
		status = check_names(&a, plan.format);
	if (!status)
		status = write_plan(&a, &plan, &d);
	guest_plan_free(&plan);
	g_free(a.device);
	doctor_end(&d);
	return status;
}
