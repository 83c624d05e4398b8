// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads XML: see xml.h.
 */
#include <string.h>

#include "system/xml.h"

/* libvirt's domains have about eight levels; freeing them recurses. */
enum { DEPTH_MAX = 64 };

struct reader {
	const char *text;
	size_t at;		/* bytes that the parser has */
	size_t after;		/* what the parser has reported ends here */
	struct element *root, *open;	/* open: NULL: none yet, or no more */
	unsigned int depth;
};

/*
 * Where the tag begins that the parser, which gets single bytes, reports at its last
 * one; r->at if there is none. Text before it can't have a '<'.
 */
static size_t tag_start(struct reader *r)
{
	size_t at = r->after;

	while (at < r->at && r->text[at] != '<')
		at++;
	r->after = r->at + 1;
	return at;
}

static void add_child(struct element *parent, struct element *e)
{
	struct element **at = &parent->child;

	while (*at)
		at = &(*at)->next;
	*at = e;
	e->parent = parent;
}

static void on_start(GMarkupParseContext *context, const gchar *name, const gchar **names,
		     const gchar **values, gpointer data, GError **error)
{
	struct reader *r = data;
	struct element *e;

	if (++r->depth > DEPTH_MAX || (r->root && !r->open)) {
		g_set_error(error, G_MARKUP_ERROR, G_MARKUP_ERROR_INVALID_CONTENT,
			    r->root && !r->open ? "a second root element" :
			    "too many levels of elements");
		return;
	}
	e = g_new0(struct element, 1);
	e->name = g_strdup(name);
	e->names = g_strdupv((char **)names);
	e->values = g_strdupv((char **)values);
	e->text = g_string_new(NULL);
	e->start = tag_start(r);
	e->inner = r->at + 1;
	if (r->open)
		add_child(r->open, e);
	else
		r->root = e;
	r->open = e;
}

static void on_end(GMarkupParseContext *context, const gchar *name, gpointer data, GError **error)
{
	struct reader *r = data;
	struct element *e = r->open;

	e->end = r->at + 1;
	e->close = tag_start(r);
	/* The parser reports the start of <name/> at its slash. */
	if (e->close == r->at)
		e->inner = e->close = e->end;
	r->open = e->parent;
	r->depth--;
}

static void on_text(GMarkupParseContext *context, const gchar *text, gsize len, gpointer data,
		    GError **error)
{
	struct reader *r = data;

	if (r->open)
		g_string_append_len(r->open->text, text, len);
}

/* A comment, or what else is no element and no text. */
static void on_other(GMarkupParseContext *context, const gchar *text, gsize len, gpointer data,
		     GError **error)
{
	struct reader *r = data;

	r->after = r->at + 1;
}

struct element *xml_read(const char *text, char **error)
{
	static const GMarkupParser parser = {
		.start_element = on_start, .end_element = on_end, .text = on_text,
		.passthrough = on_other,
	};
	struct reader r = { .text = text };
	GMarkupParseContext *context = g_markup_parse_context_new(&parser, 0, &r, NULL);
	GError *failure = NULL;
	bool good = true;

	for (; good && text[r.at]; r.at++)
		good = g_markup_parse_context_parse(context, text + r.at, 1, &failure);
	good = good && g_markup_parse_context_end_parse(context, &failure);
	g_markup_parse_context_free(context);
	if (good)
		return r.root;
	*error = g_strdup(failure->message);
	g_error_free(failure);
	xml_free(r.root);
	return NULL;
}

void xml_free(struct element *e)
{
	struct element *next;

	for (; e; e = next) {
		next = e->next;
		xml_free(e->child);
		g_free(e->name);
		g_strfreev(e->names);
		g_strfreev(e->values);
		g_string_free(e->text, TRUE);
		g_free(e);
	}
}

const char *xml_get(const struct element *e, const char *attribute)
{
	size_t i;

	for (i = 0; e && e->names[i]; i++)
		if (!strcmp(e->names[i], attribute))
			return e->values[i];
	return NULL;
}

bool xml_is(const struct element *e, const char *attribute, const char *value)
{
	const char *found = xml_get(e, attribute);

	return found && !strcmp(found, value);
}

static struct element *named(struct element *e, const char *name, size_t len)
{
	while (e && (strlen(e->name) != len || strncmp(e->name, name, len)))
		e = e->next;
	return e;
}

struct element *xml_find(const struct element *e, const char *path)
{
	struct element *found = (struct element *)e;
	size_t len;

	for (; found && *path; path += len + (path[len] == '/')) {
		len = strcspn(path, "/");
		found = named(found->child, path, len);
	}
	return found;
}

struct element *xml_next(const struct element *e)
{
	return named(e->next, e->name, strlen(e->name));
}

static bool is_blank(const char *text, size_t from, size_t to)
{
	while (from < to && g_ascii_isspace(text[from]))
		from++;
	return from == to;
}

static bool goes(const char *text, const struct element *e)
{
	const struct element *c = e->child;
	size_t at = e->inner;

	if (e->mark != XML_GOES_IF_EMPTY)
		return e->mark == XML_GOES;
	for (; c && goes(text, c) && is_blank(text, at, c->start); c = c->next)
		at = c->end;
	return !c && is_blank(text, at, e->close);
}

/* Appends an element without what is marked in it. */
static void append_unmarked(GString *out, const char *text, const struct element *e)
{
	size_t at = e->inner, inner = out->len + e->inner - e->start, end;
	const struct element *c, *parent;
	int indent = 0;
	bool cut = false;

	g_string_append_len(out, text + e->start, e->inner - e->start);
	for (c = e->child; c; c = c->next) {
		end = c->start;
		if (goes(text, c)) {
			cut = true;
			while (end > at && g_ascii_isspace(text[end - 1]))
				end--;
			g_string_append_len(out, text + at, end - at);
		} else {
			g_string_append_len(out, text + at, end - at);
			append_unmarked(out, text, c);
		}
		at = c->end;
	}
	g_string_append_len(out, text + at, e->close - at);
	for (parent = e->parent; parent; parent = parent->parent)
		indent += 2;
	if (cut) {
		g_autofree char *empty = g_strdup_printf("\n%*s", indent, "");

		/* <name ...> becomes <name .../>. */
		if (!strcmp(out->str + inner, empty)) {
			g_string_truncate(out, inner - 1);
			g_string_append(out, "/>");
			return;
		}
	}
	g_string_append_len(out, text + e->close, e->end - e->close);
}

char *xml_without_marked(const char *text, const struct element *root)
{
	GString *out = g_string_new_len(text, root->start);

	append_unmarked(out, text, root);
	g_string_append(out, text + root->end);
	return g_string_free(out, FALSE);
}

static bool same_text(const struct element *wanted, const struct element *e)
{
	g_autofree char *a = g_strstrip(g_strdup(wanted->text->str));
	g_autofree char *b = g_strstrip(g_strdup(e->text->str));

	return !strcmp(a, b);
}

bool xml_covers(const struct element *wanted, struct element *e)
{
	const struct element *w;
	struct element *c;
	size_t i;

	if (strcmp(wanted->name, e->name) || !same_text(wanted, e))
		return false;
	for (i = 0; wanted->names[i]; i++)
		if (!xml_is(e, wanted->names[i], wanted->values[i]))
			return false;
	for (c = e->child; c; c = c->next)
		c->mark = XML_STAYS;
	for (w = wanted->child; w; w = w->next) {
		for (c = e->child; c && (c->mark || !xml_covers(w, c)); c = c->next)
			;
		if (!c)
			return false;
		c->mark = XML_GOES;
	}
	return true;
}
