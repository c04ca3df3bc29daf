#!/bin/bash
set -Eeuo pipefail
if [ "$1" = postgres ] && [ "$(id -u)" = 0 ]; then
    install --directory --owner postgres --mode 2775 /var/run/postgresql
    chmod 700 "$PGDATA"
    exec as-user postgres "$PGDATA" "$0" "$@"
fi
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    user=${POSTGRES_USER:-postgres}
    database=${POSTGRES_DB:-$user}
    initdb --username="$user" --pwfile=<(printf '%s\n' "${POSTGRES_PASSWORD:?}")
    printf 'host all all all scram-sha-256\n' >> "$PGDATA/pg_hba.conf"
    printf "listen_addresses = '*'\n" >> "$PGDATA/postgresql.conf"
    # Like the official image: a server on the socket only, which is not the real one.
    pg_ctl --pgdata "$PGDATA" --options "-c listen_addresses=''" --wait start
    [ "$database" = postgres ] || createdb --username "$user" --maintenance-db postgres "$database"
    for script in /docker-entrypoint-initdb.d/*.sql; do
        [ ! -e "$script" ] || psql --set ON_ERROR_STOP=1 --username "$user" --dbname "$database" --file "$script"
    done
    pg_ctl --pgdata "$PGDATA" --mode fast --wait stop
    printf '\nPostgreSQL init process complete; ready for start up.\n\n'
fi
exec "$@"
