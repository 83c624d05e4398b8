// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest as JSON: the plan itself, as the schema describes it.
 */
#include <json-c/json.h>
#include <stdlib.h>

#include "guest/formats.h"
#include "system/output.h"

static struct json_object *json_int(long long number)
{
	return number < 0 ? NULL : json_object_new_int64(number);
}

static struct json_object *json_nodes(const struct guest_plan *p)
{
	struct json_object *list = json_object_new_array(), *o, *row;
	const struct guest_node *n;
	size_t i, k;

	for (i = 0; i < p->nodes; i++) {
		n = &p->node[i];
		o = json_object_new_object();
		json_object_object_add(o, "id", json_object_new_int(i));
		json_object_object_add(o, "host_node", json_int(n->host));
		json_object_object_add(o, "gpu", json_text(n->gpu ? n->gpu->pci->address : NULL));
		json_object_object_add(o, "guest_cpus", json_text(n->cpus));
		json_object_object_add(o, "cpus", json_object_new_int(n->count));
		json_object_object_add(o, "host_cpus", json_text(n->host_cpus));
		json_object_object_add(o, "memory", json_size(n->memory));
		row = p->distance ? json_object_new_array() : NULL;
		for (k = 0; row && k < p->nodes; k++)
			json_object_array_add(row, json_object_new_int(p->distance[i * p->nodes + k]));
		json_object_object_add(o, "distances", row);
		json_object_array_add(list, o);
	}
	return list;
}

static struct json_object *json_buses(const struct guest_plan *p)
{
	struct json_object *list = json_object_new_array(), *o;
	size_t i;

	for (i = 0; i < p->buses; i++) {
		o = json_object_new_object();
		json_object_object_add(o, "number", json_object_new_int(p->bus[i].number));
		json_object_object_add(o, "node", json_object_new_int(p->bus[i].node));
		json_object_object_add(o, "host_smmu", json_text(p->bus[i].smmu));
		json_object_array_add(list, o);
	}
	return list;
}

/* The GPUs, or the devices beside them. */
static struct json_object *json_devices(const struct guest_plan *p, size_t first, size_t end)
{
	struct json_object *list = json_object_new_array(), *o;
	const struct guest_device *g;

	for (g = p->device + first; g < p->device + end; g++) {
		o = json_object_new_object();
		json_object_object_add(o, "address", json_object_new_string(g->pci->address));
		if (g->pci->product) {
			json_object_object_add(o, "product", json_object_new_string(g->pci->product));
			json_object_object_add(o, "first_node", json_object_new_int(g->first_node));
			json_object_object_add(o, "nodes", json_object_new_int(NODES_OF_GPU));
		} else {
			json_object_object_add(o, "driver", json_text(g->pci->driver));
		}
		json_object_object_add(o, "bus", p->buses ? json_int(g->bus) : NULL);
		json_object_object_add(o, "bars", json_size(g->bars));
		json_object_object_add(o, "span", json_size(g->span));
		json_object_object_add(o, "port_speed", g->port_speed ? json_int(g->port_speed) : NULL);
		json_object_array_add(list, o);
	}
	return list;
}

void guest_print_json(FILE *out, void *data)
{
	struct json_object *document = json_document("guest"), *o;
	const struct guest_plan *p = data;

	json_object_object_add(document, "qemu", json_text(p->qemu->path));
	json_object_object_add(document, "machine", json_text(p->qemu->machine));
	json_object_object_add(document, "cpus", json_object_new_int(p->cpus));
	json_object_object_add(document, "memory", json_size(p->memory));
	/* Those of the first node: a domain can have others elsewhere. */
	json_object_object_add(document, "hugepages", p->node->hugepages > HUGEPAGES_DEFAULT ?
			       json_size(p->node->hugepages) : NULL);
	json_object_object_add(document, "firmware", json_text(p->firmware));
	json_object_object_add(document, "disk", json_text(p->disk));
	json_object_object_add(document, "disk_format", json_text(p->disk_format));
	json_object_object_add(document, "pinned", json_object_new_boolean(p->pin));
	json_object_object_add(document, "ras", json_object_new_boolean(p->ras));
	json_object_object_add(document, "iommufd", json_object_new_boolean(p->iommufd));
	json_object_object_add(document, "accel_smmu", json_object_new_boolean(p->accel));
	o = json_object_new_object();
	json_object_object_add(o, "size", json_size(p->window));
	json_object_object_add(o, "minimum", json_size(p->window_min));
	json_object_object_add(o, "set", json_object_new_boolean(p->window_set));
	json_object_object_add(o, "address_bits", json_object_new_int(p->address_bits));
	json_object_object_add(document, "window", o);
	json_object_object_add(document, "nodes", json_nodes(p));
	json_object_object_add(document, "buses", json_buses(p));
	json_object_object_add(document, "gpus", json_devices(p, 0, p->gpus));
	json_object_object_add(document, "devices", json_devices(p, p->gpus, p->devices));
	json_object_object_add(document, "notes", json_texts(p->notes));
	json_write(out, document);
}
