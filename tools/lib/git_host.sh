# A Gitea on loopback for tools/run --git-host: a repository with a small Helm chart, and a token for the agent. Sourced
# after common.sh and tools.sh; git_host.py beside this file says what it keeps.

# Makes a folder for Gitea in DIR: DIR/gitea, which is a link where the user that it runs as cannot reach DIR.
git_host_place() { # DIR
	local home
	[ "$(id -u)" = 0 ] && [ ! -e "$1/gitea" ] || return 0
	if ! setpriv --reuid 65534 --regid 65534 --clear-groups test -x "$1"; then
		home=/var/lib/devopsgenie-gitea-$(printf %s "$1" | sha256sum | cut -c1-12)
		rm -rf "$home"
		mkdir -m 700 "$home"
		ln -sfn "$home" "$1/gitea"
	fi
}

# Sets git_host, the process, and git_host_url. It ends with this script.
git_host_start() { # DIR
	git_host_place "$1"
	[ ! -e "$1/gitea.log" ] || mv "$1/gitea.log" "$1/gitea.log.1"
	setsid setpriv --pdeathsig TERM /usr/bin/python3 -B tools/lib/git_host.py "$gitea" "$1" >"$1/gitea.log" 2>&1 9>&- &
	git_host=$!
	until git_host_url=$(grep -oP '^ready \K.*' "$1/gitea.log"); do
		kill -0 "$git_host" 2>/dev/null || { git_host='' && fail "Gitea: $(tail -1 "$1/gitea.log")$(disk_hint "$1")"; }
		sleep 0.1
	done
}

git_host_delete() { # DIR
	rm -rf "$(readlink -f "$1/gitea")"
}
