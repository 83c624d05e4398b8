/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reads XML as libvirt prints it, by GLib's parser, and knows where in the text each
 * element is, so that a text can be changed and all else stays as it was.
 */
#ifndef NVGRACE_GPU_SYSTEM_XML_H
#define NVGRACE_GPU_SYSTEM_XML_H

#include <glib.h>
#include <stdbool.h>

/* What xml_without_marked() does with an element. */
enum xml_mark { XML_STAYS, XML_GOES, XML_GOES_IF_EMPTY };

/* Offsets are into the text: <name ...> from start to inner, </name> from close to end. */
struct element {
	char *name;			/* with its prefix: "qemu:arg" */
	char **names, **values;		/* of its attributes */
	GString *text;			/* directly in it, without comments */
	size_t start, inner, close, end;	/* <name/>: inner, close and end are equal */
	struct element *parent, *child, *next;	/* the first child; the next of the parent's */
	enum xml_mark mark;
};

/*
 * The root element, which xml_free() frees; NULL: no XML, and *error says why, to be
 * freed. The text must have no NUL; nesting has a limit.
 */
struct element *xml_read(const char *text, char **error);
void xml_free(struct element *e);

/* The value of an attribute; NULL: it has none, or e is NULL. */
const char *xml_get(const struct element *e, const char *attribute);
bool xml_is(const struct element *e, const char *attribute, const char *value);

/*
 * The first element on a path of names below e, such as "cpu/numa"; NULL: there is
 * none, or e is NULL.
 */
struct element *xml_find(const struct element *e, const char *path);

/* The next element of the same name and parent; NULL: none. */
struct element *xml_next(const struct element *e);

/*
 * The text without the marked elements and the white space before each; to be freed.
 * XML_GOES_IF_EMPTY: only if no more than white space is left in it. <name/> is again
 * what is left of <name>, lines and a last line with </name>, indented by two columns
 * for each parent.
 */
char *xml_without_marked(const char *text, const struct element *root);

/*
 * Whether e has all that wanted has: name, attributes, text, and an element that has
 * all of it for each of wanted's. Marks of e are changed.
 */
bool xml_covers(const struct element *wanted, struct element *e);

#endif
