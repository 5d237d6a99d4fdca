#!/bin/sh
# Shows that each patch of the series builds alone: applies them one by one and, after each, compiles the files that it touches (for a
# header of mm/, mm/gup.o and mm/page_alloc.o as well). Links nothing. Needs root, for an overlay mount: neither the cache's tree nor its
# build is changed.
#
#   build-each.sh CACHE/sources/DIGEST [FIRST [LAST]]
#
# CACHE/sources/DIGEST is where `pincushion image kernel build` has unpacked and built; FIRST and LAST are numbers of patches. Says a line for
# each patch; the first that does not apply or compile ends it, with its output.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
source=${1:?which directory of the cache has the source? the usage is in this file}
first=${2:-1} last=${3:-9999}
[ -f "$source/tree/build-pin-guest/.config" ] || { echo "$source has no tree/build-pin-guest: run \`pincushion image kernel build\` first" >&2; exit 1; }

work=$(mktemp -d)
mkdir "$work/upper" "$work/overlay" "$work/tree"
mount -t overlay overlay -o "lowerdir=$source/tree,upperdir=$work/upper,workdir=$work/overlay" "$work/tree"
trap 'cd /; umount "$work/tree"; rm -rf "$work"' EXIT
# dash runs the line above at an exit only, and not at the end by a signal.
trap 'exit 1' HUP INT TERM
cd "$work/tree"

# Back to what the source is without the series.
for file in $(sed -n 's/^+++ b\///p' "$here"/patches/*.patch | sort -u); do
	if [ -f "$source/pristine/$file" ]; then
		cp "$source/pristine/$file" "$file"
	else
		rm -f "$file"
	fi
done

number=0
while read -r patch; do
	number=$((number + 1))
	patch -s -p1 -F0 <"$here/patches/$patch" || { echo "$patch does not apply" >&2; exit 1; }
	[ "$number" -ge "$first" ] || continue
	[ "$number" -le "$last" ] || break
	touched=$(sed -n 's/^+++ b\///p' "$here/patches/$patch")
	objects=$(echo "$touched" | sed -n 's/\.c$/.o/p')
	echo "$touched" | grep -q '\.h$' && objects="$objects mm/gup.o mm/page_alloc.o"
	log="$work/log"
	# What the series does not have yet is not in the configuration; what is new is answered by the fragment.
	cp "$source/tree/build-pin-guest/.config" build-pin-guest/.config
	case $touched in *mm/pin_field.c*) echo CONFIG_PIN_DESIGN_FIELD=y >>build-pin-guest/.config ;; esac
	case $touched in *mm/pin_lru.c*) echo CONFIG_DEBUG_PAGE_REF=y >>build-pin-guest/.config ;; esac
	case $touched in *mm/pin_proxy.c*) echo CONFIG_PIN_DESIGN_PROXY=y >>build-pin-guest/.config ;; esac
	(make -C build-pin-guest olddefconfig && make -C build-pin-guest -j"${JOBS:-2}" CC="ccache gcc" HOSTCC="ccache gcc" $objects) >"$log" 2>&1 || {
		echo "$patch does not build:" >&2
		tail -n 40 "$log" >&2
		exit 1
	}
	warnings=$(grep -c 'warning:' "$log" || true)
	echo "ok $patch: $(echo $objects | wc -w) objects, $warnings warnings"
done <"$here/patches/series"
