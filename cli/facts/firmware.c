// SPDX-License-Identifier: GPL-2.0-only
/*
 * Descriptors of firmware: see firmware.h. Their format is that of QEMU's
 * docs/interop/firmware.json.
 */
#include <fnmatch.h>
#include <glib.h>
#include <json-c/json.h>
#include <string.h>

#include "facts/firmware.h"
#include "system/host.h"

/* Names that machines of QEMU's type virt can have in a descriptor. */
static const char *const machines[] = { "virt", "virt-10.0" };

/* The member of an object by names that are separated by dots; NULL: none. */
static struct json_object *member(struct json_object *o, const char *path)
{
	g_auto(GStrv) names = g_strsplit(path, ".", -1);
	size_t i;

	for (i = 0; names[i] && o; i++)
		if (!json_object_is_type(o, json_type_object) ||
		    !json_object_object_get_ex(o, names[i], &o))
			return NULL;
	return o;
}

static const char *text_of(struct json_object *o, const char *path)
{
	struct json_object *text = member(o, path);

	return json_object_is_type(text, json_type_string) ? json_object_get_string(text) : NULL;
}

/* Of an array; NULL: there are no more. */
static struct json_object *element(struct json_object *o, const char *path, size_t i)
{
	struct json_object *list = member(o, path);

	return json_object_is_type(list, json_type_array) && i < json_object_array_length(list) ?
	       json_object_array_get_idx(list, i) : NULL;
}

static bool has_string(struct json_object *o, const char *path, const char *text)
{
	struct json_object *each;
	size_t i;

	for (i = 0; (each = element(o, path, i)); i++)
		if (json_object_is_type(each, json_type_string) &&
		    !strcmp(json_object_get_string(each), text))
			return true;
	return false;
}

static bool is_for_machine(struct json_object *target)
{
	struct json_object *glob;
	size_t i, k;

	for (i = 0; (glob = element(target, "machines", i)); i++)
		for (k = 0; k < G_N_ELEMENTS(machines); k++)
			if (json_object_is_type(glob, json_type_string) &&
			    !fnmatch(json_object_get_string(glob), machines[k], 0))
				return true;
	return false;
}

/* Whether QEMU's arm64 machines can have it, as two flash images. */
static bool is_usable(struct json_object *descriptor)
{
	const char *device = text_of(descriptor, "mapping.device");
	const char *mode = text_of(descriptor, "mapping.mode");
	struct json_object *target;
	const char *arch;
	size_t i;

	if (!device || strcmp(device, "flash") || (mode && strcmp(mode, "split")) ||
	    !has_string(descriptor, "interface-types", "uefi"))
		return false;
	for (i = 0; (target = element(descriptor, "targets", i)); i++) {
		arch = text_of(target, "architecture");
		if (arch && !strcmp(arch, "aarch64") && is_for_machine(target))
			return true;
	}
	return false;
}

/* A file and its format, from one member of the mapping. */
static void read_file(struct json_object *descriptor, const char *which, char **path, char **format)
{
	struct json_object *mapping = member(descriptor, "mapping"), *file = member(mapping, which);
	const char *name = text_of(file, "filename"), *kind = text_of(file, "format");

	if (!name || *name != '/' || !g_utf8_validate(name, -1, NULL) || !kind ||
	    (strcmp(kind, "raw") && strcmp(kind, "qcow2")))
		return;
	*path = g_strdup(name);
	*format = g_strdup(kind);
}

void firmware_free(struct firmware *f)
{
	g_free(f->code);
	g_free(f->code_format);
	memset(f, 0, sizeof(*f));
}

/* Without secure boot, for which a guest's modules would need signatures. */
static void read_descriptor(struct json_object *descriptor, struct firmware *found)
{
	if (!found->code && !has_string(descriptor, "features", "secure-boot") &&
	    is_usable(descriptor))
		read_file(descriptor, "executable", &found->code, &found->code_format);
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
