# What tools/run and tools/test share. Sourced by bash with `set -euo pipefail`, in the checkout's root.

program=tools/${0##*/}

say() { printf '%s\n' "$*"; }

fail() {
	printf '%s: %s\n' "$program" "$*" >&2
	exit 1
}

# What the server and its tools are built with and run on.
build_packages=(cmake ninja-build gcc libc6-dev pkg-config protobuf-compiler protobuf-c-compiler libprotobuf-dev
	libprotobuf-c-dev libgrpc-dev libpq-dev libjwt-dev libssl-dev libjansson-dev zlib1g-dev libmimalloc-dev
	libcmocka-dev libcurl4-openssl-dev libisal-dev python3 python3-protobuf)
run_packages=(postgresql-15 openssl)

packages_missing() {
	comm -23 <(printf '%s\n' "$@" | sort -u) \
		<(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "$@" 2>/dev/null | awk '$1 == "ii" {print $2}' | sort -u)
}

# Installs those of the packages that are missing, and says which.
packages_need() {
	local missing sudo=() log
	command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
		fail "there is no apt-get here to look for packages with; on another system than Debian, see CONTRIBUTING.md"
	mapfile -t missing < <(packages_missing "$@")
	[ ${#missing[@]} -gt 0 ] || return 0
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; } ||
			fail "packages are missing, and installing them takes root or sudo. As root: apt-get install ${missing[*]}"
		sudo=(sudo)
	fi
	say "installing packages: ${missing[*]}"
	log=$(mktemp)
	packages_install_quietly >"$log" 2>&1 ||
		fail "cannot install ${missing[*]}: $(grep -m1 '^E: ' "$log" | cut -c4- || true); $log has the whole of it"
	rm -f "$log"
}

# Helps packages_need, whose `sudo` and `missing` it uses. A first install of PostgreSQL would also make and start a
# cluster that nobody asked for, unless a setting forbids it for that moment.
packages_install_quietly() {
	local apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
	local settings=/etc/postgresql-common/createcluster.d held='' status=0
	if [[ " ${missing[*]} " == *" postgresql-"* ]]; then
		held=1
		"${sudo[@]}" mkdir -p "$settings"
		printf 'create_main_cluster = false\n' | "${sudo[@]}" tee "$settings/devopsgenie.conf" >/dev/null
	fi
	"${apt[@]}" install -y --no-install-recommends "${missing[@]}" ||
		{ "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } || status=$?
	if [ -n "$held" ]; then "${sudo[@]}" rm -f "$settings/devopsgenie.conf"; fi
	return $status
}

# Builds with a preset (release, debug, asan, tsan) into build/PRESET or elsewhere, all or what build_targets names. What
# is up to date costs a fraction of a second. Two at once wait for each other.
build_targets=() build_arguments=()
programs=(genied genie)
build() { # PRESET [FOLDER [CMAKE-ARGUMENT…]]
	local preset=$1 dir=${2:-build/$1} log
	shift $(($# < 2 ? $# : 2))
	mkdir -p "$dir"
	log=$dir/build.log
	(
		flock 8
		: >"$log"
		{ [ -e "$dir/build.ninja" ] && [ $# -eq 0 ]; } ||
			cmake --preset "$preset" -B "$dir" "$@" >>"$log" 2>&1 &&
			cmake --build "$dir" --parallel "$(nproc)" \
				${build_targets:+--target "${build_targets[@]}"} -- "${build_arguments[@]}" >>"$log" 2>&1
	) 8>"$dir/lock" || {
		grep -E -m20 'error: |CMake Error|undefined reference|No space left' "$log" >&2 || tail -20 "$log" >&2
		fail "the build failed; $log has the whole of it$(disk_hint "$dir")"
	}
}

# Says so where a folder's disk is (all but) full, to be put behind a message.
disk_hint() {
	local free
	free=$(df --output=avail -k "$1" 2>/dev/null | tail -1) || return 0
	if [ "${free:-0}" -lt 32768 ]; then printf ' (the disk that holds %s is full: free some space and try again)' "$1"; fi
}

disk_need() { # FOLDER MEGABYTES
	local free
	free=$(df --output=avail -m "$1" | tail -1)
	[ "$free" -ge "$2" ] ||
		fail "the disk that holds $1 has $((free)) MB left and this takes $2 MB: free some space, or choose another folder"
}
