#!/usr/bin/env bash
# Makes the root file system of an image: programs, the libraries that ldd names, certificate authorities, and the few
# files that the C library asks for. For the Containerfile.
#
#   image_root.sh FOLDER PROGRAM…
set -euo pipefail
root=$1
shift

put() { # FILE…: at the same path, as the file that it is a link to
	local file
	for file in "$@"; do
		mkdir -p "$root${file%/*}"
		cp -L --preserve=mode "$file" "$root$file"
	done
}

mkdir -p "$root"/{etc,tmp,usr/bin,usr/lib,usr/lib64,var/lib,var/cache}
ln -s usr/lib "$root/lib" # as in Debian, where ldd names /lib/…
ln -s usr/lib64 "$root/lib64"
install --strip -m 755 "$@" "$root/usr/bin/"

libraries=$(ldd "$@" | grep -v ':$')
if grep 'not found' <<<"$libraries" >&2; then exit 1; fi
mapfile -t files < <(grep -o '/[^ ]*' <<<"$libraries" | sort -u)
put "${files[@]}"

# Whose they are, where scanners of images look for it, and their licences.
mkdir -p "$root/var/lib/dpkg/status.d"
for file in "$@" "${files[@]}" /usr/sbin/update-ca-certificates; do
	dpkg-query -S "*/$(basename "$(readlink -f "$file")")" 2>/dev/null | cut -d: -f1 || true # what we built is no package's
done | sort -u | while read -r package; do
	dpkg-query -s "$package" >"$root/var/lib/dpkg/status.d/$package"
	put "/usr/share/doc/$package/copyright"
done

# As one file (gRPC, libcurl, libgit2) and by hash in a folder; OpenSSL looks into its own.
mkdir -p "$root/etc/ssl" "$root/usr/lib/ssl"
cp -rL --preserve=mode /etc/ssl/certs "$root/etc/ssl/"
ln -s /etc/ssl/certs "$root/usr/lib/ssl/certs"
ln -s /etc/ssl/certs/ca-certificates.crt "$root/usr/lib/ssl/cert.pem"

echo 'genie-agent:x:65532:65532::/var/lib/genie-agent:/nonexistent' >"$root/etc/passwd"
echo 'genie-agent:x:65532:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
chmod 1777 "$root/tmp"
find "$root" -exec touch -hd @0 {} +
