#!/bin/sh
# The log's server of the composed system: ops/redis/redis.conf, and the users of ops/redis/users.acl with their passwords put in.
# Runs in images of Redis (7.0 or newer) and of Valkey.
#
# environment: ADMIN_PASSWORD, SCHEDULER_PASSWORD, WORKER_PASSWORD, READER_PASSWORD
# usage: redis.sh CONF ACL FOLDER [option of redis-server …]
set -eu
umask 077
conf=$1 acl=$2 folder=$3
shift 3
made=${TMPDIR:-/tmp}

for user in admin scheduler worker reader; do
  name=$(echo $user | tr a-z A-Z)_PASSWORD
  eval "password=\${$name:?}"
  case $password in *[!A-Za-z0-9_.-]*) echo "redis.sh: $name has characters that a URL or an ACL file would need to quote" >&2; exit 2 ;; esac
  printf 's/>CHANGE-ME-%s /#%s /\n' "$user" "$(printf %s "$password" | sha256sum | cut -d' ' -f1)"
done >"$made/passwords.sed"
# An ACL file holds users alone, no comments.
sed -e '/^#/d' -e '/^$/d' -f "$made/passwords.sed" "$acl" >"$made/users.acl"
rm "$made/passwords.sed"

server=$(command -v valkey-server || command -v redis-server) || { echo "redis.sh: this image has neither valkey-server nor redis-server" >&2; exit 2; }
exec "$server" "$conf" --aclfile "$made/users.acl" --dir "$folder" "$@"
