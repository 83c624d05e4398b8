/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The programs that can make a host's initramfs. The first line whose two files
 * exist applies. initramfs.c includes this, scripts/renew-initramfs reads it,
 * and debian/rules puts it into a script that runs when the package's files are
 * gone.
 *
 * A line has a file that only this program's package has, and the command that
 * updates the initramfs of all kernels. The first file decides on systems whose
 * dracut package also has an update-initramfs (Ubuntu 26.04). mkinitramfs
 * alone, which is in a package of its own, makes no initramfs. The last line is
 * for an update-initramfs of another origin.
 */
INITRAMFS_TOOL("/usr/sbin/mkinitramfs", "/usr/sbin/update-initramfs", "-u", "-k", "all")
INITRAMFS_TOOL("/usr/bin/dracut", "/usr/bin/dracut", "--regenerate-all", "--force")
INITRAMFS_TOOL("/usr/sbin/update-initramfs", "/usr/sbin/update-initramfs", "-u", "-k", "all")
