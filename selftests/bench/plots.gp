# SPDX-License-Identifier: GPL-2.0-or-later
#
# Plots of what `report` has put in the directory `data`, as SVG in the directory `out`.

set terminal svg size 900,600 font "sans-serif,12" background "white"
set style fill solid 0.7
set grid ytics
set key noenhanced
set style line 1 lw 3 lc rgb "#c02020" pt 7
set style line 2 lw 3 lc rgb "#e08020" pt 5
set style line 3 lw 2 lc rgb "#2040a0" pt 9
set style line 4 lw 2 lc rgb "#60a0e0" pt 11
set style line 5 lw 2 lc rgb "#208040" pt 13
set style line 6 lw 2 lc rgb "#808080" pt 4
set style line 7 lw 2 lc rgb "#b0b0b0" pt 6
set style line 8 lw 2 lc rgb "#a060a0" pt 8

# ---- a bar for each kind, on a scale of powers of ten

set boxwidth 0.7
set xtics rotate by -35 noenhanced
unset key
set logscale y
bars(name) = data . "/" . name
spaced(s) = (strstrt(s, "_") ? s[1:strstrt(s, "_") - 1] . " " . spaced(s[strstrt(s, "_") + 1:*]) : s)

set output out . "/uncontended.svg"
set title "Lock and unlock, nobody else about"
set ylabel "ns"
plot bars("uncontended") using 0:2:xtic(1) with boxes ls 3, \
	"" using 0:2:(sprintf("%.0f", $2)) with labels offset 0,0.7

set output out . "/life.svg"
set multiplot layout 1,2 title "A short life: open, lock, unlock, close"
set ylabel "µs"
do for [name in "open_to_close fork_to_exit"] {
	set title spaced(name)
	plot bars(name) using 0:2:xtic(1) with boxes ls 3, \
		"" using 0:2:(sprintf("%.0f", $2)) with labels offset 0,0.7
}
unset multiplot

# ---- the same from 0

unset logscale
set yrange [0:*]

set output out . "/handover.svg"
set xtics rotate by -60
set multiplot layout 1,3 title "Until the next one has the lock"
do for [name in "two_processors one_processor SIGKILL"] {
	set title spaced(name)
	plot bars(name) using 0:2:xtic(1) with boxes ls 3
}
unset multiplot

set xtics rotate by -35
set output out . "/instructions.svg"
set title "Instructions of lock and unlock"
set ylabel ""
set key top left
set style data histograms
set style histogram rowstacked
plot bars("instructions") using 2:xtic(1) title "user" ls 4, "" using 3 title "kernel" ls 3

# ---- lines over the number of processes

unset title
unset label
set xtics norotate 2, 2
set xlabel "processes"
set logscale x 2
set yrange [*:*]
panels = "1_lock_short 1_lock_long 64_locks_short 64_locks_long"

do for [what in "throughput waits fairness"] {
	set output out . "/" . what . ".svg"
	unset logscale y
	if (what eq "throughput") { set ylabel "locks/s"; set logscale y; set yrange [*:*] }
	if (what eq "waits") { set ylabel "p99.9 wait, µs"; set logscale y; set yrange [*:*] }
	if (what eq "fairness") { set ylabel "least over most served"; set yrange [0:1] }
	set multiplot layout 2,2 margins 0.08,0.8,0.1,0.93 spacing 0.12,0.15
	set key at screen 0.99, screen 0.95 right top vertical
	do for [panel in panels] {
		set label 1 spaced(panel) at graph 0.5, graph 1.06 center
		plot for [i=0:7] data . "/" . what . "_" . panel index i using 1:2 \
			with linespoints ls (i + 1) title columnheader(1)
		unset key
	}
	unset multiplot
}
