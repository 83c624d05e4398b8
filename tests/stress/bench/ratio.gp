# SPDX-License-Identifier: GPL-2.0-only
# Plots how many times as good as the baseline this driver is, with the goals.
# bench.py sets data, out and kernel.
set terminal svg size 900,560 background rgb "white" font "sans-serif,12"
set output out
set datafile separator "\t"
set title sprintf("Linux %s, emulated: this driver against the other module (1: the same)", kernel) offset -18,0
set logscale x
set xlabel "times as good"
set grid x
set key bottom right
# From above the first group, whose line has no point.
set yrange [-1:*] reverse
set ytics out nomirror left offset -37,0
set lmargin 42
plot data using 2:0:ytic(1) with points pointtype 7 pointsize 1.2 title "measured", \
     data using 3:0 with points pointtype 2 pointsize 1.2 title "goal: at least"
