// SPDX-License-Identifier: GPL-2.0-only
/*
 * libvirt's schema of domains and its capabilities, by libxml2: see libvirt.h.
 */
#include <glib.h>
#include <libxml/parser.h>
#include <libxml/xpath.h>
#include <libxml/xpathInternals.h>
#include <string.h>

#include "facts/libvirt.h"
#include "system/host.h"

#define SCHEMAS "/usr/share/libvirt/schemas"
#define RELAX_NG "http://relaxng.org/ns/structure/1.0"

/* A record can include whatever it likes; libvirt's schema has about ten files. */
enum { FILES_MAX = 64 };

/* Of the element, not of one inside it. */
#define ATTRIBUTE(element, name) \
	"//r:attribute[@name='" name "'][ancestor::r:element[1]/@name='" element "']"

static const struct {
	const char *word, *path;
} elements[] = {
	{ "nodeset", ATTRIBUTE("acpi", "nodeset") },
	{ "smmu-bus", ATTRIBUTE("driver", "pciBus") "[ancestor::r:element/@name='iommu']" },
	{ "smmu-accel", ATTRIBUTE("driver", "ssidsize") "[ancestor::r:element/@name='iommu']" },
	{ "iommufd", ATTRIBUTE("driver", "iommufd") },
	{ "ras", "//r:element[@name='ras']" },
};

G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlDoc, xmlFreeDoc)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlXPathContext, xmlXPathFreeContext)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlXPathObject, xmlXPathFreeObject)

/* NULL: it is no XML. */
static xmlDoc *parse(const char *text)
{
	return xmlReadMemory(text, strlen(text), "record", NULL,
			     XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
}

static xmlXPathObject *find(xmlDoc *doc, const char *path)
{
	g_autoptr(xmlXPathContext) context = xmlXPathNewContext(doc);

	if (xmlXPathRegisterNs(context, BAD_CAST "r", BAD_CAST RELAX_NG))
		return NULL;
	return xmlXPathEvalExpression(BAD_CAST path, context);
}

static int found(const xmlXPathObject *object)
{
	return object && object->nodesetval ? object->nodesetval->nodeNr : 0;
}

/* The name of a file in the same folder that a node of the schema names. */
static void add_include(GPtrArray *files, xmlNode *node)
{
	xmlChar *name = xmlGetProp(node, BAD_CAST "href");

	if (name && *name && !strchr((char *)name, '/') && files->len < FILES_MAX &&
	    !g_ptr_array_find_with_equal_func(files, name, g_str_equal, NULL))
		g_ptr_array_add(files, g_strdup((char *)name));
	xmlFree(name);
}

static void read_schema(const char *text, GPtrArray *files, bool has[])
{
	g_autoptr(xmlDoc) doc = parse(text);
	g_autoptr(xmlXPathObject) includes = doc ? find(doc, "//r:include") : NULL;
	size_t i;
	int k;

	for (k = 0; k < found(includes); k++)
		add_include(files, includes->nodesetval->nodeTab[k]);
	for (i = 0; doc && i < G_N_ELEMENTS(elements); i++) {
		g_autoptr(xmlXPathObject) there = find(doc, elements[i].path);

		has[i] |= found(there) > 0;
	}
}

char *libvirt_schema_words(struct host *h)
{
	g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(g_free);
	bool has[G_N_ELEMENTS(elements)] = { };
	GString *words = NULL;
	size_t i;

	g_ptr_array_add(files, g_strdup("domaincommon.rng"));
	for (i = 0; i < files->len; i++) {
		g_autofree char *text = host_read(h, NULL, SCHEMAS "/%s", (char *)files->pdata[i]);

		if (text && !words)
			words = g_string_new("schema");
		if (text)
			read_schema(text, files, has);
	}
	for (i = 0; words && i < G_N_ELEMENTS(elements); i++)
		if (has[i])
			g_string_append_printf(words, " %s", elements[i].word);
	return words ? g_string_free(words, FALSE) : NULL;
}

static void append_values(GString *lines, xmlDoc *doc, const char *name, const char *path)
{
	g_autoptr(xmlXPathObject) values = find(doc, path);
	xmlChar *value;
	int i;

	for (i = 0; i < found(values); i++) {
		value = xmlNodeGetContent(values->nodesetval->nodeTab[i]);
		g_string_append_printf(lines, "%s: %s\n", name, (char *)value);
		xmlFree(value);
	}
}

char *libvirt_capability_lines(const char *xml)
{
	g_autoptr(xmlDoc) doc = parse(xml);
	GString *lines;

	if (!doc)
		return NULL;
	lines = g_string_new("");
	append_values(lines, doc, "iommu", "/domainCapabilities/devices/iommu/enum[@name='model']/value");
	append_values(lines, doc, "iommufd", "/domainCapabilities/devices/hostdev/enum[@name='iommufd']/value");
	return g_string_free(lines, lines->len == 0);
}
