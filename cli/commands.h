/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The commands that are part of this program: main.c has their table.
 */
#ifndef NVGRACE_GPU_COMMANDS_H
#define NVGRACE_GPU_COMMANDS_H

struct host;

/*
 * Each parses its own options: argv[0] is "nvgrace-gpu COMMAND". Returns an
 * exit status.
 */
int cmd_list(struct host *h, int argc, char **argv);
int cmd_bind(struct host *h, int argc, char **argv);
int cmd_unbind(struct host *h, int argc, char **argv);
int cmd_status(struct host *h, int argc, char **argv);
int cmd_doctor(struct host *h, int argc, char **argv);
int cmd_metrics(struct host *h, int argc, char **argv);
int cmd_wait(struct host *h, int argc, char **argv);
int cmd_scrub(struct host *h, int argc, char **argv);
int cmd_guest(struct host *h, int argc, char **argv);

#endif
