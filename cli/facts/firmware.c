// SPDX-License-Identifier: GPL-2.0-only
/*
 * Descriptors of firmware: see firmware.h. Their format is that of QEMU's
 * docs/interop/firmware.json.
 */
#include <fnmatch.h>
#include <glib.h>
#include <json-c/json.h>
#include <json-c/json_pointer.h>
#include <string.h>

#include "facts/firmware.h"
#include "system/host.h"

/* Names that machines of QEMU's type virt can have in a descriptor. */
static const char *const machines[] = { "virt", "virt-10.0" };

/* A member, by its JSON pointer; NULL: none. */
static struct json_object *member(struct json_object *o, const char *pointer)
{
	struct json_object *found = NULL;

	return json_pointer_get(o, pointer, &found) ? NULL : found;
}

static const char *text_of(struct json_object *o, const char *pointer)
{
	struct json_object *text = member(o, pointer);

	return json_object_is_type(text, json_type_string) ? json_object_get_string(text) : NULL;
}

/* An element of an array; NULL: there are no more. */
static struct json_object *element(struct json_object *list, size_t i)
{
	return json_object_is_type(list, json_type_array) && i < json_object_array_length(list) ?
	       json_object_array_get_idx(list, i) : NULL;
}

/* Whether an array has a pattern of shells that fits this text. */
static bool has_pattern(struct json_object *list, const char *text)
{
	struct json_object *each;
	size_t i;

	for (i = 0; (each = element(list, i)); i++)
		if (json_object_is_type(each, json_type_string) &&
		    !fnmatch(json_object_get_string(each), text, 0))
			return true;
	return false;
}

/* Whether QEMU's arm64 machines can have it, as two flash images, without secure boot. */
static bool is_usable(struct json_object *descriptor)
{
	const char *device = text_of(descriptor, "/mapping/device");
	const char *mode = text_of(descriptor, "/mapping/mode");
	struct json_object *targets = member(descriptor, "/targets"), *target, *names;
	size_t i;

	/* With secure boot, a guest's modules would need signatures. */
	if (!device || strcmp(device, "flash") || (mode && strcmp(mode, "split")) ||
	    !has_pattern(member(descriptor, "/interface-types"), "uefi") ||
	    has_pattern(member(descriptor, "/features"), "secure-boot"))
		return false;
	for (i = 0; (target = element(targets, i)); i++) {
		names = member(target, "/machines");
		if (!g_strcmp0(text_of(target, "/architecture"), "aarch64") &&
		    (has_pattern(names, machines[0]) || has_pattern(names, machines[1])))
			return true;
	}
	return false;
}

static void read_descriptor(struct json_object *descriptor, struct firmware *found)
{
	const char *name = text_of(descriptor, "/mapping/executable/filename");
	const char *format = text_of(descriptor, "/mapping/executable/format");

	if (found->code || !is_usable(descriptor) || !name || *name != '/' ||
	    !g_utf8_validate(name, -1, NULL) || (g_strcmp0(format, "raw") && g_strcmp0(format, "qcow2")))
		return;
	found->code = g_strdup(name);
	found->code_format = g_strdup(format);
}

void firmware_free(struct firmware *f)
{
	g_free(f->code);
	g_free(f->code_format);
	memset(f, 0, sizeof(*f));
}

static int compare(gconstpointer a, gconstpointer b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void firmware_read(struct host *h, struct firmware *found)
{
	/* A file of the administrator's replaces the one of this name. */
	static const char *const folders[] = { "/etc/qemu/firmware", "/usr/share/qemu/firmware" };
	g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
	struct json_object *descriptor;
	const char *name;
	char *text;
	size_t i, k;

	memset(found, 0, sizeof(*found));
	for (i = 0; i < G_N_ELEMENTS(folders); i++) {
		g_auto(GStrv) list = host_list(h, "%s", folders[i]);

		for (k = 0; list && list[k]; k++)
			if (g_str_has_suffix(list[k], ".json") &&
			    !g_ptr_array_find_with_equal_func(names, list[k], g_str_equal, NULL))
				g_ptr_array_add(names, g_strdup(list[k]));
	}
	g_ptr_array_sort(names, compare);
	for (i = 0; i < names->len; i++) {
		name = g_ptr_array_index(names, i);
		text = NULL;
		for (k = 0; k < G_N_ELEMENTS(folders) && !text; k++)
			text = host_read(h, NULL, "%s/%s", folders[k], name);
		descriptor = text ? json_tokener_parse(text) : NULL;
		if (descriptor)
			read_descriptor(descriptor, found);
		json_object_put(descriptor);
		g_free(text);
	}
}
