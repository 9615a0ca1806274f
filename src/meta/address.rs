//! URLs of server databases: which there are, and what each may say.
//!
//! What the driver does not know it ignores, so that a misspelt `sslmode` would mean a connection that verifies nobody.
//! Everything is therefore read before it is used. Errors repeat no value: any of them may be a secret.

use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;

use super::dialect::Dialect;
use crate::model::url::check_query;

/// What sqlx takes from the query of a URL of PostgreSQL.
const POSTGRES_PARAMETERS: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "options[NAME]",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];
/// And of one of MySQL and MariaDB.
const MYSQL_PARAMETERS: &[&str] = &[
    "charset",
    "collation",
    "socket",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "sslca",
    "sslcert",
    "sslkey",
    "sslmode",
    "statement-cache-capacity",
    "time-zone",
    "timezone",
];

/// How a server database is reached.
pub(super) enum Address {
    Postgres(Box<PgConnectOptions>),
    MySql(Box<MySqlConnectOptions>),
}

impl Address {
    /// Reads a URL. The error says what is wrong with it, and repeats no value.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(unknown());
        };
        match scheme {
            "postgres" | "postgresql" => {
                let options = parse::<PgConnectOptions>(scheme, rest, POSTGRES_PARAMETERS)?;
                Ok(Self::Postgres(Box::new(options)))
            }
            "mysql" | "mariadb" => {
                let options = parse::<MySqlConnectOptions>("mysql", rest, MYSQL_PARAMETERS)?;
                Ok(Self::MySql(Box::new(options)))
            }
            _ => Err(unknown()),
        }
    }

    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Self::Postgres(_) => Dialect::Postgres,
            Self::MySql(_) => Dialect::MySql,
        }
    }
}

/// What is wrong with the URL of a server database; its values are not repeated.
pub fn check(url: &str) -> Result<(), String> {
    Address::parse(url).map(|_| ())
}

fn unknown() -> String {
    "expected postgres://, postgresql://, mysql:// or mariadb://".to_owned()
}

fn parse<T: std::str::FromStr>(scheme: &str, rest: &str, parameters: &[&str]) -> Result<T, String> {
    let url = format!("{scheme}://{rest}");
    let (place, query) = url.split_once('?').unwrap_or((&url, ""));
    let form = "://USER:PASSWORD@HOST:PORT/DATABASE, with whatever is special in a name or password as %HH";
    if place.contains('#') || place.parse::<T>().is_err() {
        return Err(format!("expected {scheme}{form}"));
    }
    check_query(&url, parameters)?;
    // Each alone, to tell whose value is at fault.
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if format!("{scheme}://h/?{pair}").parse::<T>().is_err() {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            return Err(format!(
                "parameter `{name}`: its value is none that there is"
            ));
        }
    }
    url.parse().map_err(|_| format!("expected {scheme}{form}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_url_is_taken() {
        for (url, dialect) in [
            ("postgres://user:p%40ss%3F@host:5432/db", Dialect::Postgres),
            ("postgresql://host/db", Dialect::Postgres),
            (
                "postgres://u@h/d?sslmode=verify-full&sslrootcert=/ca.pem&application_name=a%20b",
                Dialect::Postgres,
            ),
            (
                "postgres:///d?host=/run/postgresql&options[search_path]=x&options=-c%20geqo=off",
                Dialect::Postgres,
            ),
            ("mysql://user:pass@host:3306/db", Dialect::MySql),
            (
                "mariadb://h/d?ssl-mode=VERIFY_IDENTITY&ssl-ca=/ca.pem&socket=/run/s",
                Dialect::MySql,
            ),
        ] {
            let address = Address::parse(url);
            assert_eq!(address.map(|it| it.dialect()).ok(), Some(dialect), "{url}");
        }
    }

    #[test]
    fn what_the_driver_would_ignore_is_refused_by_name() {
        for (url, name) in [
            ("postgres://u:hush@h/d?sslmod=verify-full", "`sslmod`"),
            (
                "postgres://u:hush@h/d?sslmode=verify-full&SSLROOTCERT=x",
                "`SSLROOTCERT`",
            ),
            (
                "postgres://u:hush@h/d?ssl-mode=require&charset=x",
                "`charset`",
            ),
            ("postgres://u:hush@h/d?options[x=y", "`options[x`"),
            ("mysql://u:hush@h/d?sslrootcert=x", "`sslrootcert`"),
            ("mariadb://u:hush@h/d?ssl_mode=REQUIRED", "`ssl_mode`"),
        ] {
            let refused = check(url).unwrap_err();
            assert!(refused.contains(name), "{refused}");
            assert!(
                refused.starts_with("expected no parameters but ") && refused.contains("sslmode"),
                "{refused}"
            );
            assert!(!refused.contains("hush"), "{refused}");
        }
    }

    #[test]
    fn a_value_that_there_is_not_is_refused_by_the_name_of_its_parameter() {
        for (url, name) in [
            ("postgres://u:p@h/d?sslmode=hush", "`sslmode`"),
            ("postgres://u:p@h/d?port=hush", "`port`"),
            (
                "mysql://u:p@h/d?ssl-mode=hush&charset=utf8mb4",
                "`ssl-mode`",
            ),
        ] {
            let refused = check(url).unwrap_err();
            assert!(
                refused.contains(name) && !refused.contains("hush"),
                "{refused}"
            );
        }
    }

    #[test]
    fn any_other_text_is_refused_unseen() {
        for url in [
            "hush",
            "postgresx://u:hush@h/d",
            "sqlite://hush",
            "postgres://u:hush@h:99999/d",
            "postgres://u:hush@h:port/d",
            "mysql://u:hush@h:99999/d",
            "postgres://u:hu?hush@h/d",
            "postgres://u:12?hush@h/d",
            "postgres://u:12?hush=hush@h/d",
            "postgres://u:12#hush@h/d",
            "mysql://u:p@h/d#hush",
            "mysql://u:p@h/d?charset=utf8mb4#hush",
            "postgres://h/d?password=pass&hush",
        ] {
            let refused = check(url).unwrap_err();
            assert!(!refused.contains("hush"), "{refused}");
        }
    }
}
