# A local certificate authority and a server certificate for localhost, 127.0.0.1, ::1 and one host more. Sourced after
# common.sh, or called: bash tools/lib/certificates.sh DIR
#
# In DIR: ca.pem, ca-key.pem, server.pem, server-key.pem, all with mode 0600. What is there is kept until it has less
# than a month to live, or does not name the host.

certificates_good() { # FILE HOST
	local check=-checkhost
	[[ $2 =~ ^[0-9.]+$|: ]] && check=-checkip
	[ -e "$1" ] && openssl x509 -in "$1" -noout -checkend $((30 * 86400)) >/dev/null 2>&1 &&
		{ [ -z "$2" ] || openssl x509 -in "$1" -noout "$check" "$2" | grep -q 'does match'; }
}

certificates_make() ( # DIR [HOST]
	set -e
	umask 077
	cd "$1"
	host=${2:-localhost}
	key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
	if ! certificates_good ca.pem ''; then
		rm -f server.pem
		openssl req -x509 "${key[@]}" -days 3650 -subj '/O=DevOps Genie/CN=local certificate authority' \
			-addext 'keyUsage=critical,keyCertSign,cRLSign' -keyout ca-key.pem -out ca.pem.new 2>/dev/null
		mv ca.pem.new ca.pem
	fi
	if ! certificates_good server.pem "$host"; then
		names=DNS:localhost,IP:127.0.0.1,IP:::1
		if [[ $host =~ ^[0-9.]+$|: ]]; then names+=,IP:$host; else names+=,DNS:$host; fi
		openssl req -x509 -CA ca.pem -CAkey ca-key.pem "${key[@]}" -days 365 -subj '/O=DevOps Genie/CN=localhost' \
			-addext "subjectAltName=$names" -addext 'basicConstraints=critical,CA:FALSE' \
			-addext 'keyUsage=critical,digitalSignature' -addext 'extendedKeyUsage=serverAuth' \
			-keyout server-key.pem.new -out server.pem.new 2>/dev/null
		mv server-key.pem.new server-key.pem
		mv server.pem.new server.pem
	fi
)

if [ "${BASH_SOURCE[0]}" = "$0" ]; then certificates_make "$@"; fi
