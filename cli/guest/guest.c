// SPDX-License-Identifier: GPL-2.0-only
/*
 * "nvgrace-gpu guest": what a guest needs for GPUs of this host, added to a domain of
 * libvirt, or as a script that starts QEMU. plan/ computes it, and a file for each format
 * prints it. main.c calls it.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "commands.h"
#include "facts/answers.h"
#include "facts/selection.h"
#include "guest/domain.h"
#include "guest/formats.h"
#include "plan/steps.h"
#include "system/options.h"
#include "system/output.h"

static const char doc[] =
	"Give a guest GPUs that are bound to " DRIVER_NAME ": NUMA nodes with their generic "
	"initiators, PCIe buses, SMMUs and the window for the BARs, all derived from this host. With "
	"--domain, libvirt's XML of an existing guest is printed with them, and all else in it stays "
	"as it is; without, a script that starts QEMU. Nothing is started or changed.\v"
	"An ADDRESS may be short (01:00.0) if only one GPU matches it.\n"
	"\n"
	"  virsh dumpxml --inactive --security-info NAME | nvgrace-gpu guest --domain=- --all | virsh define /dev/stdin\n"
	"\n"
	"Exit status: 0 printed; 1 a file can't be read or written; 2 usage error; 3 no such GPU; 4 "
	"such a guest is not possible, and the message says why and what would help.";

enum format { FORMAT_AUTO, FORMAT_QEMU, FORMAT_LIBVIRT, FORMAT_JSON };

enum { KEY_MEMORY = 256, KEY_CPUS, KEY_DISK, KEY_ACCEL, KEY_HUGEPAGES, KEY_DEVICE,
       KEY_PIN, KEY_DOMAIN, KEY_REMOVE };

static const struct argp_option options[] = {
	{ "all", 'a', NULL, 0, "All GPUs that are bound to " DRIVER_NAME, 0 },
	{ "device", KEY_DEVICE, "DEVICE", 0,
	  "Another device beside the GPUs, such as a NIC; may be given several times", 0 },
	{ "domain", KEY_DOMAIN, "FILE", 0,
	  "The guest's domain, as \"virsh dumpxml --inactive\" prints it; \"-\" is standard input", 0 },
	{ "remove", KEY_REMOVE, NULL, 0, "Take out of the domain what this command has added", 0 },
	{ "format", 'f', "qemu|libvirt|json", 0, "\"qemu\" (a script), \"libvirt\" (the domain; the default with --domain) or \"json\" (the plan)", 0 },
	{ "output", 'o', "FILE", 0,
	  "Replace FILE as a whole, instead of writing to standard output", 0 },
	{ "memory", KEY_MEMORY, "SIZE", 0, "QEMU: memory, such as 64G (default: 64G for each GPU)", 0 },
	{ "cpus", KEY_CPUS, "NUMBER", 0, "QEMU: processors (default: 16 for each GPU)", 0 },
	{ "disk", KEY_DISK, "FILE", 0, "QEMU: a disk, raw or qcow2", 0 },
	{ "hugepages", KEY_HUGEPAGES, "SIZE", 0, "QEMU: memory of huge pages of this size, such as 512M", 0 },
	{ "pin", KEY_PIN, NULL, 0,
	  "Run on the processors of the NUMA nodes near the GPUs, with memory only from there", 0 },
	{ "accel-smmu", KEY_ACCEL, "auto|on|off", 0,
	  "SMMUs that use the host's in hardware: \"auto\" (default: if ATS can't be hidden otherwise), \"on\" or \"off\"", 0 },
	{ }
};

struct arguments {
	struct selection selected;
	struct guest_wish wish;
	enum format format;
	const char **device;	/* points into argv */
	size_t devices;
	const char *output, *domain, *disk;
	bool remove, for_qemu;	/* for_qemu: an option that a domain has no use for */
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

/* Whether all of a text is UTF-8 without control characters. */
static bool is_clean(const char *text)
{
	const char *at = text;

	while ((unsigned char)*at >= ' ' && *at != 0x7f)
		at++;
	return !*at && g_utf8_validate(text, -1, NULL);
}

static const char *const choices[] = { "auto", "on", "off", NULL };
static const char *const formats[] = { "qemu", "libvirt", "json", NULL };

/* The number of one of these words. */
static int parse_word(const char *option, const char *const *words, const char *arg,
		      struct argp_state *state)
{
	g_autofree char *all = g_strjoinv("\", \"", (char **)words);
	int i;

	for (i = 0; words[i]; i++)
		if (!strcmp(arg, words[i]))
			return i;
	argp_error(state, "--%s=%s: use one of \"%s\"", option, arg, all);
	return 0;
}

/* Options that don't go together. */
static void check(const struct arguments *a, struct argp_state *state)
{
	if (a->remove && !a->domain)
		argp_error(state, "--remove needs --domain");
	if (a->remove && (a->selected.all || a->selected.count || a->devices || a->wish.pin ||
			  a->wish.accel || a->format == FORMAT_JSON))
		argp_error(state, "--remove takes all GPUs out of the domain, and needs no more than --domain");
	if (a->format == FORMAT_LIBVIRT && !a->domain)
		argp_error(state, "--format=libvirt needs --domain: virt-install --import --print-xml makes a domain");
	if (a->domain && (a->format == FORMAT_QEMU || a->for_qemu))
		argp_error(state, "--memory, --cpus, --disk, --hugepages and --format=qemu are not for --domain, which has its own");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *a = state->input;
	uint64_t number;

	switch (key) {
	case 'f':
		a->format = FORMAT_QEMU + parse_word("format", formats, arg, state);
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
	case KEY_DOMAIN:
		a->domain = arg;
		return 0;
	case KEY_REMOVE:
		a->remove = true;
		return 0;
	case KEY_DISK:
		if (!*arg || !is_clean(arg))
			argp_error(state, "--disk: empty, or with a control character or bytes that are not UTF-8");
		a->disk = arg;
		a->for_qemu = true;
		return 0;
	case KEY_MEMORY:
	case KEY_HUGEPAGES:
		if (!parse_size(arg, key == KEY_MEMORY ? &a->wish.memory : &a->wish.hugepages))
			argp_error(state, "--%s=%s: not a size such as 64G",
				   key == KEY_MEMORY ? "memory" : "hugepages", arg);
		a->for_qemu = true;
		return 0;
	case KEY_CPUS:
		if (arg[strspn(arg, "0123456789")] || !parse_u64(arg, &number) || !number ||
		    number > 1U << 20)
			argp_error(state, "--cpus=%s: not a number of processors", arg);
		else
			a->wish.cpus = number;
		a->for_qemu = true;
		return 0;
	case KEY_ACCEL:
		a->wish.accel = parse_word("accel-smmu", choices, arg, state);
		return 0;
	case ARGP_KEY_END:
		check(a, state);
		if (a->remove)
			return 0;
	}
	return selection_parse(&a->selected, key, state);
}

/* ---- files ---------------------------------------------------------------------------------- */

/* The format of a disk by its bytes, and by its name only if it can't be read. */
static void read_disk(const char *disk, struct guest_plan *plan)
{
	bool named = g_str_has_suffix(disk, ".qcow2"), is_qcow2 = named;
	int fd = open(disk, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char head[4] = "";

	if (fd >= 0 && read(fd, head, sizeof(head)) >= 0)
		is_qcow2 = !memcmp(head, "QFI\xfb", sizeof(head));
	else
		plan_note(plan, "%s can't be read here (%s): its format is that of its name", disk,
			  strerror(errno));
	if (fd >= 0)
		close(fd);
	if (is_qcow2 != named && (named || g_str_has_suffix(disk, ".raw") || g_str_has_suffix(disk, ".img")))
		plan_note(plan, "%s is %s by its first bytes, which its name does not say", disk,
			  is_qcow2 ? "qcow2" : "raw");
	plan->disk_format = is_qcow2 ? "qcow2" : "raw";
	/* The script may start anywhere. */
	plan->disk = g_canonicalize_filename(disk, NULL);
}

/* NULL after a message. */
static char *read_domain(const char *file)
{
	g_autoptr(GIOChannel) in = NULL;
	g_autoptr(GError) error = NULL;
	char *text = NULL;
	gsize length = 0;

	/* Not /dev/stdin: nobody can open a socket, which standard input is under ssh. */
	in = strcmp(file, "-") ? g_io_channel_new_file(file, "r", &error) :
				 g_io_channel_unix_new(STDIN_FILENO);
	if (in) {
		g_io_channel_set_encoding(in, NULL, NULL);
		g_io_channel_read_to_end(in, &text, &length, &error);
	}
	if (text && strlen(text) == length)
		return text;
	complain(NULL, "--domain=%s: %s", file,
		 error ? error->message : "no XML, because it has a zero byte");
	g_free(text);
	return NULL;
}

/* ---- the command ---------------------------------------------------------------------------- */

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

	if (file && !stat(file, &st) && S_ISREG(st.st_mode))
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

static void print_text(FILE *out, void *text)
{
	if (text)
		fputs(text, out);
}

static enum exit_status write_out(const struct arguments *a, void (*print)(FILE *out, void *data),
				  void *data)
{
	return write_whole(a->output ? a->output : "-", output_mode(a->output, a->format), print, data) ?
	       EXIT_FAILED : EXIT_OK;
}

/* The domain before and after, and its facts. */
struct change {
	struct domain was, bare;
	struct guest_domain facts;
};

static enum exit_status begin_change(const struct arguments *a, struct change *change)
{
	char *text = read_domain(a->domain), *error;

	if (!text)
		return EXIT_FAILED;
	error = domain_begin(&change->was, text);
	if (!error)
		error = domain_begin(&change->bare, domain_without(&change->was));
	if (!error)
		return EXIT_OK;
	/* The parser quotes what it can't read. */
	make_printable(error);
	complain(NULL, "--domain=%s: not a domain of libvirt: %s", a->domain, error);
	g_free(error);
	return EXIT_FAILED;
}

static void end_change(struct change *change)
{
	domain_end(&change->was);
	domain_end(&change->bare);
}

static enum exit_status write_plan(const struct arguments *a, struct change *change,
				   struct guest_plan *plan, char **command)
{
	struct guest_output o = { .plan = plan, .command = command };
	g_autofree char *text = NULL;
	size_t i;

	if (a->disk)
		read_disk(a->disk, plan);
	if (a->format == FORMAT_QEMU)
		return write_out(a, guest_print_qemu, &o);
	if (a->format == FORMAT_JSON)
		return write_out(a, guest_print_json, plan);
	/* libvirt keeps no comments. */
	for (i = 0; i < plan->notes->len; i++)
		complain(NULL, "note: %s", (char *)plan->notes->pdata[i]);
	text = domain_with(&change->bare, &change->was, plan);
	return write_out(a, print_text, text);
}

static enum exit_status give(struct host *h, struct arguments *a, struct change *change,
			     char **command)
{
	g_autofree char *error = change ? domain_facts(&change->bare, &a->wish, &change->facts) : NULL;
	g_autofree const struct gpu **gpu = NULL;
	enum exit_status status;
	struct answers *answers;
	struct guest_facts facts;
	struct guest_plan plan;
	struct gpus gpus;
	size_t count;

	if (error) {
		complain(NULL, "--domain=%s: this domain can't have GPUs: %s", a->domain, error);
		return EXIT_REFUSED;
	}
	answers = answers_begin(h, NULL);
	gpus_find(h, &gpus);
	guest_facts_read(h, answers, &gpus, &facts);
	guest_facts_ask(answers, &facts);
	gpu = g_new0(const struct gpu *, gpus.count);
	status = selection_find(&a->selected, h, &gpus, is_bound, NULL, gpu, &count);
	if (!status)
		status = read_devices(h, a, &facts);
	if (!status) {
		status = guest_plan(&facts, &a->wish, gpu, count, &plan);
		if (status)
			complain(plan.about, "%s", plan.refused);
		else
			status = write_plan(a, change, &plan, command);
		guest_plan_free(&plan);
	}
	guest_facts_free(&facts);
	gpus_free(&gpus);
	answers_free(answers);
	return status;
}

int cmd_guest(struct host *h, int argc, char **argv)
{
	static const struct argp argp = {
		options, parse, "ADDRESS...\n--all\n--remove", doc, NULL, NULL, NULL
	};
	struct arguments a = { };
	struct change change = { };
	enum exit_status status = EXIT_OK;
	g_auto(GStrv) command = g_strdupv(argv);

	parse_options(&argp, argc, argv, &a);
	if (a.format == FORMAT_AUTO)
		a.format = a.domain ? FORMAT_LIBVIRT : FORMAT_QEMU;
	if (a.domain)
		status = begin_change(&a, &change);
	if (!status && a.remove)
		status = write_out(&a, print_text, change.bare.text);
	else if (!status)
		status = give(h, &a, a.domain ? &change : NULL, command);
	end_change(&change);
	g_free(a.device);
	return status;
}
