#!/bin/bash
set -Eeuo pipefail
data=/var/lib/mysql
if [ "$1" = mysqld ] && [ "$(id -u)" = 0 ]; then
    install --directory --owner mysql /var/run/mysqld
    exec as-user mysql "$data" "$0" "$@"
fi
if [ "$1" = mysqld ] && [ ! -d "$data/mysql" ]; then
    if [ "${MYSQL_USER:-}" = root ]; then
        echo 'MYSQL_USER="root": MYSQL_USER and MYSQL_PASSWORD are for a regular user' >&2
        exit 1
    fi
    "$@" --initialize-insecure
    # Like the official image: a server on the socket only, which is not the real one.
    "$@" --skip-networking &
    server=$!
    until mysqladmin --user root --silent ping; do sleep 0.5; done
    {
        echo "CREATE USER 'root'@'%' IDENTIFIED BY '${MYSQL_ROOT_PASSWORD:?}';"
        echo "GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;"
        echo "ALTER USER 'root'@'localhost' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';"
        [ -z "${MYSQL_DATABASE:-}" ] || echo "CREATE DATABASE \`$MYSQL_DATABASE\`;"
        if [ -n "${MYSQL_USER:-}" ]; then
            echo "CREATE USER '$MYSQL_USER'@'%' IDENTIFIED BY '$MYSQL_PASSWORD';"
            [ -z "${MYSQL_DATABASE:-}" ] || echo "GRANT ALL ON \`$MYSQL_DATABASE\`.* TO '$MYSQL_USER'@'%';"
        fi
    } | mysql --user root
    export MYSQL_PWD=$MYSQL_ROOT_PASSWORD
    for script in /docker-entrypoint-initdb.d/*.sql; do
        [ ! -e "$script" ] || mysql --user root ${MYSQL_DATABASE:+"$MYSQL_DATABASE"} < "$script"
    done
    mysqladmin --user root shutdown
    unset MYSQL_PWD
    wait "$server"
    printf '\nMySQL init process done. Ready for start up.\n\n'
fi
exec "$@"
