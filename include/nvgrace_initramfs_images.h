/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where a kernel's initramfs can be: the places of dracut(8), kernel-install(8) and
 * initramfs-tools. The first that exists counts. One that ends in .efi is a unified
 * kernel image. images.c includes this, and scripts/renew-initramfs reads it.
 *
 * KERNEL is the kernel's release. TOKEN is the word of /etc/kernel/entry-token,
 * which kernel-install(8) has, or else of /etc/machine-id; without both, a line
 * with it doesn't apply.
 */
INITRAMFS_IMAGE("/efi/EFI/Linux/TOKEN-KERNEL.efi")
INITRAMFS_IMAGE("/boot/EFI/Linux/TOKEN-KERNEL.efi")
INITRAMFS_IMAGE("/boot/efi/EFI/Linux/TOKEN-KERNEL.efi")
INITRAMFS_IMAGE("/efi/EFI/Linux/linux-KERNEL-TOKEN.efi")
INITRAMFS_IMAGE("/boot/EFI/Linux/linux-KERNEL-TOKEN.efi")
INITRAMFS_IMAGE("/boot/efi/EFI/Linux/linux-KERNEL-TOKEN.efi")
INITRAMFS_IMAGE("/efi/TOKEN/KERNEL/initrd")
INITRAMFS_IMAGE("/boot/TOKEN/KERNEL/initrd")
INITRAMFS_IMAGE("/boot/efi/TOKEN/KERNEL/initrd")
INITRAMFS_IMAGE("/lib/modules/KERNEL/initrd")
INITRAMFS_IMAGE("/lib/modules/KERNEL/initramfs.img")
INITRAMFS_IMAGE("/boot/initramfs-KERNEL.img")
INITRAMFS_IMAGE("/boot/initrd-KERNEL")
INITRAMFS_IMAGE("/boot/initrd.img-KERNEL")
