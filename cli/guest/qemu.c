// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest as a command line of QEMU: a script for sh.
 */
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "guest/formats.h"

enum { COLUMNS = 80 };

static void G_GNUC_PRINTF(2, 3) add(GPtrArray *c, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	g_ptr_array_add(c, g_strdup_vprintf(fmt, args));
	va_end(args);
}

/* A word for sh, in quotes if it needs any. To be freed. */
static char *G_GNUC_PRINTF(1, 2) quoted(const char *fmt, ...)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,._/:=@%+-";
	g_autofree char *text = NULL;
	va_list args;

	va_start(args, fmt);
	text = g_strdup_vprintf(fmt, args);
	va_end(args);
	return *text && !text[strspn(text, plain)] ? g_steal_pointer(&text) : g_shell_quote(text);
}

static void add_machine(GPtrArray *c, const struct guest_plan *p)
{
	g_autofree char *memory = guest_size(p->memory), *window = guest_size(p->window);
	g_autofree char *machine = quoted("%s,accel=kvm,gic-version=3%s%s%s",
					  p->qemu->machine ? p->qemu->machine : "virt",
					  p->ras ? ",ras=on" : "",
					  p->window_set ? ",highmem-mmio-size=" : "",
					  p->window_set ? window : "");
	unsigned int sockets;

	add(c, "-machine %s", machine);
	add(c, "-cpu host");
	/* Nodes may differ by one processor, which has no other divisor. */
	sockets = p->cpus % p->cpu_nodes ? p->cpus : p->cpu_nodes;
	if (sockets > 1)
		add(c, "-smp %u,sockets=%u,cores=%u", p->cpus, sockets, p->cpus / sockets);
	else
		add(c, "-smp %u", p->cpus);
	add(c, "-m %s", memory);
}

static void add_memory(GPtrArray *c, const struct guest_plan *p)
{
	const struct guest_node *n;
	size_t i;

	for (i = 0; i < p->cpu_nodes; i++) {
		g_autofree char *size = guest_size(p->node[i].memory), *host = NULL;
		g_autofree char *page = guest_size(p->node[i].hugepages);

		n = &p->node[i];
		host = p->placed ? g_strdup_printf(",host-nodes=%d,policy=%s", n->host,
						   p->pin ? "bind" : "preferred") : g_strdup("");
		if (n->hugepages)
			add(c, "-object memory-backend-memfd,id=m%zu,size=%s,hugetlb=on,hugetlbsize=%s%s",
			    i, size, page, host);
		else
			add(c, "-object memory-backend-ram,id=m%zu,size=%s%s", i, size, host);
	}
}

static void add_nodes(GPtrArray *c, const struct guest_plan *p)
{
	size_t a, b;

	for (a = 0; a < p->cpu_nodes; a++)
		add(c, "-numa node,nodeid=%zu,cpus=%s,memdev=m%zu", a, p->node[a].cpus, a);
	for (; a < p->nodes; a++)
		add(c, "-numa node,nodeid=%zu", a);
	/* One line for each node: the distances to those after it. */
	for (a = 0; p->distance && a + 1 < p->nodes; a++) {
		g_autoptr(GString) text = g_string_new(NULL);

		for (b = a + 1; b < p->nodes; b++)
			g_string_append_printf(text, "%s-numa dist,src=%zu,dst=%zu,val=%u",
					       text->len ? " " : "", a, b, p->distance[a * p->nodes + b]);
		add(c, "%s", text->str);
	}
}

/* What an accelerated SMMU must be told, if QEMU does not take it from the host. */
static const char *smmu_properties(const struct guest_plan *p)
{
	if (vmm_has(p->qemu, QEMU_SMMU_DERIVES))
		return "";
	if (vmm_has(p->qemu, QEMU_SMMU_PASID) && !vmm_has(p->qemu, QEMU_SMMU_SSIDSIZE))
		return ",ats=on,ril=off,pasid=on,oas=48";
	return ",ats=on,ril=off,ssidsize=20,oas=48";
}

static void add_devices(GPtrArray *c, const struct guest_plan *p)
{
	const struct guest_device *g;
	char speed[24];
	size_t i, n;

	if (p->iommufd)
		add(c, "-object iommufd,id=iommufd0");
	for (i = 0; i < p->buses; i++) {
		add(c, "-device pxb-pcie,id=pcie.%zu,bus=pcie.0,bus_nr=%u,numa_node=%zu",
		    i + 1, p->bus[i].number, p->bus[i].node);
		if (p->bus[i].smmu)
			add(c, "-device arm-smmuv3,id=smmuv3.%zu,primary-bus=pcie.%zu,accel=on%s",
			    i + 1, i + 1, smmu_properties(p));
	}
	for (i = 0; i < p->devices; i++) {
		g_autofree char *bus = NULL;

		g = &p->device[i];
		*speed = 0;
		if (g->port_speed)
			snprintf(speed, sizeof(speed), ",x-speed=%u", g->port_speed);
		bus = p->buses ? g_strdup_printf("pcie.%zu", g->bus + 1) : g_strdup("pcie.0");
		add(c, "-device pcie-root-port,id=port%zu,bus=%s,chassis=%zu,io-reserve=0%s",
		    i, bus, i + 1, speed);
		add(c, "-device vfio-pci,id=%s,host=%s,bus=port%zu,rombar=0%s%s", g->id,
		    g->pci->address, i, p->hide_ats && i < p->gpus ? ",ats=off" : "",
		    p->iommufd ? ",iommufd=iommufd0" : "");
		for (n = 0; i < p->gpus && n < NODES_OF_GPU; n++)
			add(c, "-object acpi-generic-initiator,id=gi%zu,pci-dev=%s,node=%zu",
			    i * NODES_OF_GPU + n, g->id, g->first_node + n);
	}
}

static void add_rest(GPtrArray *c, const struct guest_plan *p)
{
	g_autofree char *code = replaced(p->firmware, ",", ",,"), *disk = NULL, *word = NULL;

	word = quoted("if=pflash,format=%s,readonly=on,file.driver=file,file.filename=%s",
		      p->firmware_format, code);
	add(c, "-drive %s", word);
	if (p->disk) {
		g_free(word);
		disk = replaced(p->disk, ",", ",,");
		word = quoted("if=none,id=disk0,format=%s,file=%s", p->disk_format, disk);
		add(c, "-drive %s", word);
		add(c, "-device virtio-blk-pci,bus=pcie.0,drive=disk0");
	}
	add(c, "-nodefaults");
	add(c, "-display none");
	add(c, "-serial mon:stdio");
}

/* A comment in lines of at most COLUMNS where words allow it. */
static void comment(FILE *out, const char *text)
{
	size_t column = 0, n;

	while (*text) {
		n = strcspn(text, " \n");
		if (column && column + 1 + n > COLUMNS) {
			fputc('\n', out);
			column = 0;
		}
		column += fprintf(out, "%s%.*s", column ? " " : "# ", (int)n, text);
		text += n;
		text += strspn(text, " \n");
	}
	fputc('\n', out);
}

static void print_head(FILE *out, const struct guest_output *o)
{
	const GPtrArray *notes = o->plan->notes;
	g_autoptr(GString) command = g_string_new("Made by version " VERSION ", with: " PROGRAM " guest");
	size_t i;

	for (i = 1; o->command[i]; i++) {
		g_autofree char *word = quoted("%s", o->command[i]);

		g_string_append_printf(command, " %s", word);
	}
	fputs("#!/bin/sh\n", out);
	comment(out, command->str);
	fputs("#\n"
	      "# Arguments are added to those of QEMU. The guest has no network unless they\n"
	      "# have one, such as: -nic user,model=virtio-net-pci. With user networking, the\n"
	      "# guest reaches the services of this host's 127.0.0.1, as 10.0.2.2.\n"
	      "#\n"
	      "# The guest ends with Ctrl-A X on its console, which is this terminal, or with\n"
	      "# \"quit\" on the QMP socket beside this script, or with\n"
	      "# kill \"$(cat NAME.pid)\". \"system_powerdown\" asks its system to shut down.\n"
	      "# guests.md has the reason for each option.\n"
	      "#\n", out);
	for (i = 0; i < notes->len; i++) {
		g_autofree char *text = g_strdup_printf("note: %s", (char *)notes->pdata[i]);

		comment(out, text);
	}
}

/*
 * QEMU can't place its processors. Its threads have their names, so a process beside it
 * does that when they are there, and ends with QEMU.
 */
static void print_pins(FILE *out, const struct guest_plan *p)
{
	size_t i;

	fputs("\npins='", out);
	for (i = 0; i < p->cpu_pins->len; i++)
		fprintf(out, "%s%s", !i ? "" : i % 8 ? " " : "\n      ", (char *)p->cpu_pins->pdata[i]);
	fputs("'\n"
	      "# pin PID: ties each processor of the guest to its processors of the host.\n"
	      "pin() {\n"
	      "\tcpu=0\n"
	      "\tfor place in $pins; do\n"
	      "\t\tuntil grep -qsx \"CPU $cpu/[A-Z]*\" /proc/\"$1\"/task/*/comm; do\n"
	      "\t\t\tkill -0 \"$1\" && sleep 0.1 || exit\n"
	      "\t\tdone\n"
	      "\t\tthread=$(grep -lsx \"CPU $cpu/[A-Z]*\" /proc/\"$1\"/task/*/comm)\n"
	      "\t\ttaskset -pc \"$place\" \"$(basename \"$(dirname \"$thread\")\")\" >/dev/null\n"
	      "\t\tcpu=$((cpu + 1))\n"
	      "\tdone\n"
	      "}\n"
	      "pin $$ &\n", out);
}

void guest_print_qemu(FILE *out, void *data)
{
	const struct guest_output *o = data;
	const struct guest_plan *p = o->plan;
	g_autoptr(GPtrArray) c = g_ptr_array_new_with_free_func(g_free);
	g_autofree char *program = quoted("%s", p->qemu->path);
	size_t i;

	add_machine(c, p);
	add_memory(c, p);
	add_nodes(c, p);
	add_devices(c, p);
	add_rest(c, p);

	print_head(out, o);
	fputs("\n"
	      "# The guest has this script's name; NAME.pid and NAME.qmp are in its folder.\n"
	      "name=$(basename -- \"$0\" .sh | tr -c 'A-Za-z0-9._\\n-' _)\n"
	      "CDPATH= cd -- \"$(dirname -- \"$0\")\" || exit 1\n", out);
	if (p->pin)
		print_pins(out, p);
	fprintf(out, "\nexec %s%s%s%s \\\n    -name guest=\"$name\",debug-threads=on \\\n"
		"    -pidfile \"$name.pid\" \\\n    -qmp unix:\"$name.qmp\",server=on,wait=off",
		p->pin ? "taskset -c " : "", p->pin ? p->host_cpus : "", p->pin ? " " : "", program);
	for (i = 0; i < c->len; i++)
		fprintf(out, " \\\n    %s", (char *)c->pdata[i]);
	fputs(" \\\n    \"$@\"\n", out);
}
