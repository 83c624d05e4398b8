// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loads the module, by libkmod: see module.h.
 */
#include <errno.h>
#include <glib.h>
#include <libkmod.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bind/module.h"
#include "facts/owner.h"
#include "system/kmsg.h"
#include "system/program.h"

/* The first line says what is missing; a symbol that is has one each. */
static void take_module_line(void *data, const struct kmsg *message)
{
	GPtrArray *log = data;

	if (!log->len && (strstr(message->text, "nvgrace") || strstr(message->text, "module")))
		g_ptr_array_add(log, g_strdup(message->text));
}

static void no_log(void *data, int priority, const char *file, int line, const char *fn,
		   const char *format, va_list args)
{
}

char *module_load(struct host *h, char **next, GPtrArray *log)
{
	struct kmod_list *found = NULL, *item;
	struct kmod_ctx *ctx;
	struct utsname name;
	char *why = NULL;
	int mark, rc;

	*next = NULL;
	if (host_exists(h, "/sys/bus/pci/drivers/" DRIVER_NAME))
		return NULL;
	ctx = kmod_new(NULL, NULL);
	if (!ctx)
		return g_strdup("can't start libkmod");
	/* The message below has the error. */
	kmod_set_log_fn(ctx, no_log, NULL);
	mark = kmsg_mark();
	rc = kmod_module_new_from_lookup(ctx, MODULE_NAME, &found);
	if (rc < 0 || !found) {
		g_autofree char *lack = NULL;

		uname(&name);
		module_lack(h, name.release, &lack, next);
		why = g_strdup_printf("there is no module " MODULE_NAME ": %s", lack);
	}
	kmod_list_foreach (item, found) {
		struct kmod_module *module = kmod_module_get_module(item);

		rc = kmod_module_probe_insert_module(module, 0, NULL, NULL, NULL, NULL);
		kmod_module_unref(module);
		if (rc >= 0)
			continue;
		why = g_strdup_printf("can't load the module " MODULE_NAME ": %s", strerror(-rc));
		if (rc == -EKEYREJECTED || rc == -ENOKEY)
			*next = g_strdup(
				"the kernel does not trust its signature; \"" PROGRAM
				" doctor\" has the remedy");
		else
			*next = g_strdup("run \"" PROGRAM " doctor\"");
		kmsg_read(mark, take_module_line, log);
		break;
	}
	kmod_module_unref_list(found);
	kmod_unref(ctx);
	if (mark >= 0)
		close(mark);
	return why;
}
