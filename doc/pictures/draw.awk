# draw.awk - SVG from a text that says what stands where.
#
# usage: awk -f draw.awk NAME.txt >NAME.svg
#
#     size WIDTH HEIGHT
#     box KIND X Y WIDTH HEIGHT TEXT|TEXT     a box, its text in the middle
#     cells KIND X Y WIDTH HEIGHT N TEXT|...  a row of N boxes with a text each
#     text KIND X Y TEXT|TEXT                 text that begins at X (KIND left),
#                                             ends (right) or has its middle
#                                             there (middle)
#     line X Y X Y ...                        a line through these points
#     arrow X Y X Y ...                       the same with a head
#
# KIND of a box: thread, shared, pages, kernel, plain, none.  The first part
# of a text is bold where it begins with a star.  Empty lines and those that
# begin with # are nothing.

function esc(s) {
	gsub(/&/, "\\&amp;", s)
	gsub(/</, "\\&lt;", s)
	gsub(/>/, "\\&gt;", s)
	return s
}

# The fields from the n-th on, as they stand.
function rest(n,   s, i) {
	s = $0
	for (i = 1; i < n; i++)
		sub(/^[ \t]*[^ \t]+[ \t]+/, "", s)
	return NF < n ? "" : s
}

# Lines of text around or below y.
function write_text(x, y, anchor, s, centred,   n, part, i, bold) {
	n = split(s, part, "|")
	if (centred)
		y -= (n - 1) * 8 - 4
	for (i = 1; i <= n; i++) {
		bold = sub(/^\*/, "", part[i]) ? " font-weight=\"bold\"" : ""
		printf "<text x=\"%d\" y=\"%d\" text-anchor=\"%s\"%s>%s</text>\n",
			x, y + (i - 1) * 16, anchor, bold, esc(part[i])
	}
}

function box(kind, x, y, w, h, s) {
	if (!(kind in fill)) {
		print FILENAME ":" FNR ": no kind " kind >"/dev/stderr"
		failed = 1
	}
	printf "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"3\" fill=\"%s\" stroke=\"%s\"/>\n",
		x, y, w, h, fill[kind], kind == "none" ? "none" : "#444444"
	write_text(x + w / 2, y + h / 2, "middle", s, 1)
}

function path(head,   i, d) {
	for (i = 2; i < NF; i += 2)
		d = d (i == 2 ? "M" : " L") $i " " $(i + 1)
	printf "<path d=\"%s\" fill=\"none\" stroke=\"#444444\"%s/>\n", d,
		head ? " marker-end=\"url(#head)\"" : ""
}

BEGIN {
	fill["thread"] = "#d8ecd4"
	fill["shared"] = "#fbe3c0"
	fill["pages"] = "#d5e3f4"
	fill["kernel"] = "#e4e0e8"
	fill["plain"] = "#ffffff"
	fill["none"] = "none"
}

/^[ \t]*(#|$)/ { next }

$1 == "size" {
	printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"13\">\n",
		$2, $3, $2, $3
	print "<!-- Made by draw.awk; the text beside this file is what to change. -->"
	print "<defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0 L8 4 L0 8 z\" fill=\"#444444\"/></marker></defs>"
	printf "<rect width=\"%d\" height=\"%d\" fill=\"#ffffff\"/>\n", $2, $3
	next
}
$1 == "box" { box($2, $3, $4, $5, $6, rest(7)); next }
$1 == "cells" {
	n = split(rest(8), cell, "|")
	for (i = 1; i <= $7; i++)
		box($2, $3 + (i - 1) * $5, $4, $5, $6, i <= n ? cell[i] : "")
	next
}
$1 == "text" {
	write_text($3, $4, $2 == "left" ? "start" : $2 == "right" ? "end" : \
		   "middle", rest(5), 0)
	next
}
$1 == "line" { path(0); next }
$1 == "arrow" { path(1); next }
{
	print FILENAME ":" FNR ": what is " $1 "?" >"/dev/stderr"
	failed = 1
}

END {
	print "</svg>"
	exit failed
}
