// SPDX-License-Identifier: GPL-2.0-only
/* Where DKMS has its folder and its certificate. See checks.h. */
#include <glib.h>
#include <string.h>

#include "doctor/checks.h"

#define DKMS_TREE "/var/lib/dkms"

/*
 * A setting of DKMS's own configuration, which is shell: the last plain assignment
 * of it, or the default; to be freed.
 */
static char *dkms_setting(struct doctor *d, const char *name, const char *by_default)
{
	g_auto(GStrv) more = host_list(d->h, "/etc/dkms/framework.conf.d");
	char *value = g_strdup(by_default);
	size_t i, j;

	for (i = 0; !i || (more && more[i - 1]); i++) {
		g_autofree char *text = NULL;
		g_auto(GStrv) lines = NULL;

		if (!i)
			text = host_read(d->h, NULL, "/etc/dkms/framework.conf");
		else if (g_str_has_suffix(more[i - 1], ".conf"))
			text = host_read(d->h, NULL, "/etc/dkms/framework.conf.d/%s", more[i - 1]);
		lines = text_lines(text);
		for (j = 0; lines[j]; j++) {
			g_auto(GStrv) words = NULL;
			char *line = g_strstrip(lines[j]);

			if (!g_str_has_prefix(line, name) || line[strlen(name)] != '=' ||
			    !g_shell_parse_argv(line + strlen(name) + 1, NULL, &words, NULL) || strchr(line, '$'))
				continue;
			g_free(value);
			value = g_strdup(words[0]);
		}
	}
	return value;
}

char *dkms_tree(struct doctor *d)
{
	return dkms_setting(d, "dkms_tree", DKMS_TREE);
}

char *dkms_certificate(struct doctor *d)
{
	g_autofree char *tree = dkms_tree(d);
	g_autofree char *mok = g_strdup_printf("%s/mok.pub", tree);

	return dkms_setting(d, "mok_certificate", mok);
}
