/* SPDX-License-Identifier: GPL-2.0-only */
/* Shared by the files of the program "privilege". */
#ifndef NVGRACE_TEST_PRIVILEGE_H
#define NVGRACE_TEST_PRIVILEGE_H

#include "client.h"
#include "search.h"

#define DMESG_RESTRICT	"/proc/sys/kernel/dmesg_restrict"

/*
 * The client's GPU. Both parts fill their BARs, so an access beyond them
 * reaches other memory. Its memory begins far from the addresses of the host's
 * PCI windows and of the stand-in for GPU memory, which any user can read.
 */
extern const struct gpu *gpu;

/* A GPU that the client doesn't own. */
extern const struct gpu *other;

/* The client opens the device file, not the group. */
extern bool by_cdev;

struct part {
	unsigned int index;	/* of vfio's region */
	uint64_t length;
};

extern const struct part parts[2];

/* The device's directory, to which its link in /sys/bus/pci/devices leads. */
extern char device_folder[256];

/* The path of one of the driver's attributes. */
void device_path(char *path, size_t length, const char *file);

/* In the client: opens its GPU. Reports it, and returns false, if that fails. */
bool client_open(struct vfio *v);

/* In the client: maps the start of a part. */
char *map_part(struct vfio *v, const struct part *part, uint64_t length);

/* In the client: uses all that it may, and reports what fails. */
void use(struct vfio *v);

/* addresses.c */
void a_search_knows_an_address_in_every_form(void **state);
void no_file_has_an_address(void **state);
void an_address_in_a_file_is_found(void **state);
void the_log_of_a_good_gpu_has_no_address(void **state);
void a_warning_with_an_address_is_for_readers_of_the_log(void **state);
void traces_are_for_root(void **state);
void no_answer_has_an_address(void **state);

/* access.c */
void nothing_can_be_executed(void **state);
void other_gpus_are_refused(void **state);

#endif /* NVGRACE_TEST_PRIVILEGE_H */
