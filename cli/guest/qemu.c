// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest as a command line of QEMU: a script for sh, with the reasons above it.
 */
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "guest/formats.h"

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

	add(c, "-machine virt,accel=kvm,gic-version=3%s%s%s", p->ras ? ",ras=on" : "",
	    p->window_set ? ",highmem-mmio-size=" : "", p->window_set ? window : "");
	add(c, "-cpu host");
	if (p->sockets > 1)
		add(c, "-smp %u,sockets=%u,cores=%u", p->cpus, p->sockets, p->cpus / p->sockets);
	else
		add(c, "-smp %u", p->cpus);
	add(c, "-m %s", memory);
}

static void add_memory(GPtrArray *c, const struct guest_plan *p)
{
	g_autofree char *page = guest_size(p->hugepages);
	const struct guest_node *n;
	size_t i;

	for (i = 0; i < p->cpu_nodes; i++) {
		g_autofree char *size = guest_size(p->node[i].memory), *host = NULL;

		n = &p->node[i];
		host = n->host < 0 ? g_strdup("") : g_strdup_printf(",host-nodes=%d,policy=%s", n->host, p->pin ? "bind" : "preferred");
		if (p->hugepages)
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
		add(c, "-numa node,nodeid=%zu,cpus=%u-%u,memdev=m%zu", a,
		    p->node[a].first_cpu, p->node[a].first_cpu + p->node[a].cpus - 1, a);
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
			add(c, "-device arm-smmuv3,id=smmuv3.%zu,primary-bus=pcie.%zu,accel=on,ats=on,ril=off,ssidsize=20,oas=48",
			    i + 1, i + 1);
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

static void add_seed(GPtrArray *c, const struct guest_plan *p)
{
	g_autofree char *path = NULL, *word = NULL;

	if (!p->seed)
		return;
	path = replaced(p->seed, ",", ",,");
	word = quoted("driver=%s,node-name=seed0,read-only=on,%s=%s",
		      p->seed_folder ? "vvfat,label=CIDATA" : "raw,file.driver=file",
		      p->seed_folder ? "dir" : "file.filename", path);
	add(c, "-blockdev %s", word);
	add(c, "-device virtio-blk-pci,bus=pcie.0,drive=seed0");
}

/* A flash image: UEFI's program, then its variables. */
static void add_flash(GPtrArray *c, const char *file, const char *format, bool writable)
{
	g_autofree char *path = replaced(file, ",", ",,"), *word = NULL;

	word = quoted("if=pflash,format=%s,readonly=%s,file.driver=file,file.filename=%s",
		      format, writable ? "off" : "on", path);
	add(c, "-drive %s", word);
}

static void add_tpm(GPtrArray *c, const struct guest_plan *p)
{
	g_autofree char *name = replaced(p->name, ",", ",,");
	g_autofree char *word = quoted("socket,id=tpm0,path=./%s-tpm/socket", name);

	if (!p->tpm)
		return;
	add(c, "-chardev %s", word);
	add(c, "-tpmdev emulator,id=tpm0,chardev=tpm0");
	add(c, "-device tpm-tis-device,tpmdev=tpm0");
}

/* A relative path stays one if its name begins with a hyphen. To be freed. */
static char *path_word(const char *path)
{
	return quoted("%s%s", *path == '-' ? "./" : "", path);
}

static void print_vars(const struct guest_output *o)
{
	const struct guest_plan *p = o->plan;
	g_autofree char *vars = NULL, *from = NULL;

	if (!p->vars)
		return;
	vars = path_word(p->vars);
	from = path_word(p->vars_template);
	fprintf(o->out, "\n[ -e %s ] || cp %s %s || exit 1\n", vars, from, vars);
}

static void print_swtpm(const struct guest_output *o)
{
	const char *name = o->plan->name;
	g_autofree char *folder = quoted("./%s-tpm", name), *state = quoted("dir=./%s-tpm", name);
	g_autofree char *control = quoted("type=unixio,path=./%s-tpm/socket", name);

	if (!o->plan->tpm)
		return;
	/* The shell becomes QEMU, whose end is then that of swtpm's parent. */
	fprintf(o->out, "\nmkdir -m 700 -p %s && rm -f %s/socket || exit 1\n", folder, folder);
	fprintf(o->out, "setpriv --pdeathsig TERM swtpm socket --tpm2 --tpmstate %s --ctrl %s &\n", state, control);
	fprintf(o->out, "until [ -S %s/socket ]; do kill -0 $! && sleep 0.1 || exit 1; done\n", folder);
}

static void add_rest(GPtrArray *c, const struct guest_plan *p)
{
	g_autofree char *disk = replaced(p->disk, ",", ",,"), *word = NULL;
	const char *driver = p->disk_device ? "host_device" : "file";

	add_flash(c, p->firmware, p->firmware_format, false);
	if (p->vars)
		add_flash(c, p->vars, p->vars_format, true);
	add_tpm(c, p);
	word = quoted("driver=%s,node-name=disk0,file.driver=%s,file.filename=%s",
		      p->disk_format, driver, disk);
	add(c, "-blockdev %s", word);
	add(c, "-device virtio-blk-pci,bus=pcie.0,drive=disk0");
	add_seed(c, p);
	if (p->ssh_port)
		add(c, "-netdev user,id=net0,hostfwd=tcp:127.0.0.1:%u-:22", p->ssh_port);
	else
		add(c, "-netdev user,id=net0");
	add(c, "-device virtio-net-pci,bus=pcie.0,netdev=net0,romfile=");
	add(c, "-nodefaults");
	add(c, "-display none");
	add(c, "-serial mon:stdio");
}

static void print_reasons(const struct guest_output *o)
{
	enum why why;

	for (why = 0; why < WHYS; why++) {
		g_autofree char *text = NULL;

		if (!o->plan->why[why])
			continue;
		text = g_strdup_printf("%s: %s", guest_why_name(why), o->plan->why[why]);
		guest_comment(o->out, "# ", text);
	}
}

void guest_print_qemu(const struct guest_output *o)
{
	const struct guest_plan *p = o->plan;
	g_autoptr(GPtrArray) c = g_ptr_array_new_with_free_func(g_free);
	g_autofree char *name = replaced(p->name, ",", ",,"), *word = quoted("guest=%s", name);
	g_autofree char *program = quoted("%s", p->qemu->path);
	size_t i;

	add_machine(c, p);
	add_memory(c, p);
	add_nodes(c, p);
	add_devices(c, p);
	add_rest(c, p);

	fprintf(o->out, "#!/bin/sh\n# Made by \"" PROGRAM " guest\", version " VERSION ".\n#\n");
	guest_head(o, "# ", guest_comment);
	if (o->warnings || p->notes)
		fputs("#\n", o->out);
	print_reasons(o);
	print_vars(o);
	print_swtpm(o);
	fprintf(o->out, "\nexec %s%s%s%s \\\n    -name %s", p->pin ? "taskset -c " : "",
		p->pin ? p->host_cpus : "", p->pin ? " " : "", program, word);
	for (i = 0; i < c->len; i++)
		fprintf(o->out, " \\\n    %s", (char *)c->pdata[i]);
	fputc('\n', o->out);
}
