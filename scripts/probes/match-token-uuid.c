// SPDX-License-Identifier: GPL-2.0-only
/*
 * The operation match_token_uuid.
 * Since Linux 6.17, 86624ba3b522 ("vfio/pci: Do vf_token checks for
 * VFIO_DEVICE_BIND_IOMMUFD").
 *
 * absent-if: no member named 'match_token_uuid'
 * absent-if: 'vfio_pci_core_match_token_uuid' undeclared
 * absent-if: undeclared identifier 'vfio_pci_core_match_token_uuid'
 */
#include <linux/vfio_pci_core.h>

static void __maybe_unused probe_match_token_uuid(struct vfio_device_ops *ops)
{
	ops->match_token_uuid = vfio_pci_core_match_token_uuid;
}
