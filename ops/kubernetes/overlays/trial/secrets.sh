#!/bin/sh
# Prints the secrets of the trial, with new passwords: `./secrets.sh | kubectl -n evflow create -f -`, once. The users are those of ops/redis/users.acl.
set -eu
acl=$(dirname "$0")/../../../redis/users.acl
password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
scheduler=$(password) worker=$(password)

cat <<END
apiVersion: v1
kind: Secret
metadata:
  name: evflow-redis
stringData:
  scheduler: redis://scheduler:$scheduler@evflow-redis:6379/0
  worker: redis://worker:$worker@evflow-redis:6379/0
---
apiVersion: v1
kind: Secret
metadata:
  name: evflow-redis-users
stringData:
  users.acl: |
END
sed -n -e "s/CHANGE-ME-admin/$(password)/" -e "s/CHANGE-ME-scheduler/$scheduler/" -e "s/CHANGE-ME-worker/$worker/" \
  -e "s/CHANGE-ME-reader/$(password)/" -e 's/^user /    &/p' "$acl"
