# A private PostgreSQL that listens on a unix socket and on nothing else. Sourced after common.sh.
#
# Its folder holds data/, log and the socket, and belongs to whom the server runs as, with mode 0700: nobody else (but
# root) can reach the socket, so who reaches it is trusted. PostgreSQL refuses to run as root; there it runs as the
# user `postgres` of Debian's package.

postgres_bin() { printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -1; }

as_postgres() (
	cd /
	if [ "$(id -u)" = 0 ]; then exec runuser -u postgres -- "$@"; else exec "$@"; fi
)

# Sets postgres_home to where PostgreSQL's folder for DIR is: DIR/postgres, which is a link where the user that
# PostgreSQL runs as cannot reach DIR, or where DIR is too long for a socket's path.
postgres_place() { # DIR
	postgres_home=$1/postgres
	if [ -L "$postgres_home" ]; then
		postgres_home=$(readlink "$postgres_home")
	elif [ "$(id -u)" = 0 ] && [ ! -e "$postgres_home" ] &&
		{ [ ${#postgres_home} -gt 85 ] || ! as_postgres test -x "$1"; }; then
		postgres_home=/var/lib/postgresql/devopsgenie-$(printf %s "$1" | sha256sum | cut -c1-12)
		rm -rf "$postgres_home"
		ln -s "$postgres_home" "$1/postgres"
	fi
	[ ${#postgres_home} -le 85 ] ||
		fail "$1 is too long a path for PostgreSQL's socket: choose a folder of at most 75 characters"
	mkdir -p "$postgres_home"
	chmod 700 "$postgres_home"
	if [ "$(id -u)" = 0 ]; then chown postgres: "$postgres_home"; fi
}

# Starts it, made first where it is not there yet, with a login role `genie` that may make roles and databases and is no
# superuser. Further arguments are settings, NAME=VALUE, that hold from its making on.
postgres_start() { # DIR SETTING…
	local data
	postgres_place "$1"
	shift
	data=$postgres_home/data
	if [ ! -e "$data" ]; then
		rm -rf "$data.new"
		as_postgres "$(postgres_bin)/initdb" --pgdata "$data.new" --username postgres --auth trust --encoding UTF8 \
			--locale C.UTF-8 --no-instructions >"$postgres_home/initdb.log" 2>&1 ||
			fail "initdb: $(tail -1 "$postgres_home/initdb.log")$(disk_hint "$postgres_home")"
		printf '%s\n' "listen_addresses = ''" "unix_socket_directories = '..'" 'unix_socket_permissions = 0700' \
			"timezone = 'UTC'" 'max_connections = 200' "$@" >>"$data.new/postgresql.conf"
		mv "$data.new" "$data"
	fi
	if ! as_postgres "$(postgres_bin)/pg_ctl" --pgdata "$data" status >/dev/null 2>&1; then
		as_postgres "$(postgres_bin)/pg_ctl" --pgdata "$data" --log "$postgres_home/log" --wait --timeout 120 start \
			>/dev/null 2>&1 8>&- 9>&- ||
			fail "PostgreSQL does not start: $(tail -1 "$postgres_home/log" 2>/dev/null)$(disk_hint "$postgres_home")"
	fi
	psql --quiet --no-psqlrc "$(postgres_url postgres postgres)" >/dev/null <<-'SQL'
		SELECT 'CREATE ROLE genie LOGIN CREATEDB CREATEROLE'
		 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'genie') \gexec
		SELECT 'CREATE DATABASE genie OWNER genie'
		 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'genie') \gexec
	SQL
}

# Stops it, if it runs, and returns when its process has ended: pg_ctl waits for the pid file alone, which goes earlier.
# An ended process that its parent has not collected yet has no command line any more, though its pid remains.
postgres_stop() {
	local pid i
	[ -n "${postgres_home:-}" ] && read -r pid 2>/dev/null <"$postgres_home/data/postmaster.pid" || return 0
	as_postgres "$(postgres_bin)/pg_ctl" --pgdata "$postgres_home/data" --mode fast --wait stop >/dev/null 2>&1 || return 0
	for ((i = 0; i < 1200; i++)); do
		grep -qs . "/proc/$pid/cmdline" || return 0
		sleep 0.05
	done
}

postgres_url() { # ROLE DATABASE
	local LC_ALL=C path='' i c
	for ((i = 0; i < ${#postgres_home}; i++)); do
		c=${postgres_home:i:1}
		case $c in [a-zA-Z0-9/._-]) ;; *) printf -v c '%%%02X' "'$c" ;; esac
		path+=$c
	done
	printf 'postgresql://%s@/%s?host=%s' "$1" "$2" "$path"
}
