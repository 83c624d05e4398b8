# SPDX-License-Identifier: GPL-2.0-only
# Plots the times that grow with the size of the memory. bench.py sets data, out
# and kernel.
set terminal svg size 900,480 background rgb "white" font "sans-serif,12"
set output out
set datafile separator "\t"
set title sprintf("Linux %s, emulated: what grows with usemem", kernel)
set logscale xy
set xlabel "usemem, GiB"
set ylabel "seconds"
set grid
set key outside right
plot data using 1:2 with linespoints title "open", \
     data using 1:3 with linespoints title "pread, 8 bytes", \
     data using 1:4 with linespoints title "first touch"
