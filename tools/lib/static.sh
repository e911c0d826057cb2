# The static checks of tools/test: each a function that prints what is wrong. Exit status 77: skipped, and why.

c_files() { find auth server storage tests tools -name '*.[ch]' | sort; }

static_gcc_werror() {
	local build_arguments=(-k 0)
	build release build/static -DGENIE_WERROR=ON
}

static_clang_format() { c_files | xargs clang-format-16 --dry-run -Werror; }

# The fuzzers are built by another compiler, elsewhere. Needs the generated headers and compile_commands.json of
# static_gcc_werror. Warnings are gcc's business, with the house's flags. A file that clang-tidy does not end with in two
# minutes is one that it, or its reader, cannot cope with.
static_clang_tidy() {
	local tidy='timeout 120 clang-tidy-16 -p build/static --quiet --warnings-as-errors="*" \
		--extra-arg=-w "$0" || [ $? != 124 ] || echo "$0: not done in 120 s"'
	c_files | grep '\.c$' | grep -v '^tests/fuzz/' | xargs -P 2 -n 1 sh -c "$tidy" 2>&1 |
		grep -v 'warnings generated\|warning generated\|^Suppressed\|^Use -header-filter' | grep . && return 1 || return 0
}

# Left out: what cppcheck 2.10 gets wrong in C that gcc and clang's analyser check as well (initialisers with members of
# members, pointers to locals that are gone before the function is, arrays between a linker's symbols), and a NULL that
# POSIX makes a pointer.
static_cppcheck() {
	cppcheck --enable=warning,performance,portability --error-exitcode=1 --inline-suppr --quiet -j 2 --std=c11 \
		--suppress=uninitvar --suppress=legacyUninitvar --suppress=autoVariables --suppress=comparePointers \
		--suppress=varFuncNullUB -I . auth server storage tests tools
}

# The state machines that ARCHITECTURE.md draws are those of the code.
static_drawings() { /usr/bin/python3 tools/drawings.py --check; }

static_buf_lint() { buf lint proto; }

static_buf_format() { buf format proto --diff --exit-code; }

# The API of this tree against the one that landed before it.
static_buf_breaking() {
	local base=${GENIE_BREAKING_BASE:-} old
	if [ -z "$base" ]; then
		base=HEAD~1
		if git rev-parse -q --verify origin/main >/dev/null && ! git merge-base --is-ancestor HEAD origin/main; then
			base=origin/main
		fi
	fi
	old=$scratch/proto-before
	mkdir -p "$old"
	git archive "$base" proto 2>/dev/null | tar -x -C "$old" 2>/dev/null ||
		{ echo "no commit $base with an API to compare with"; return 77; }
	buf breaking proto --against "$old/proto"
}
