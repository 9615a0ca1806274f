//! Whom a statement is about.

use super::Malformed;
use super::json::Json;

/// Who asks, as policies know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::auth) enum Who<'a> {
    /// Nobody said who they are.
    Anonymous,
    /// The holder of an access key.
    Key {
        /// The tenant's name.
        tenant: &'a str,
        /// The tenant's canonical user id.
        owner_id: &'a str,
        /// The access key; for a temporary key the one that it was made for.
        access_key: &'a str,
        /// Role and session of a temporary key that assumed a role.
        session: Option<(&'a str, &'a str)>,
    },
    /// A part of S3 itself, such as `logging.s3.amazonaws.com`.
    Service(&'a str),
}

/// How closely a principal names who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Named {
    /// Not at all.
    No,
    /// As one of the account's: which of them, the account says.
    ByAccount,
    /// Itself, or as one of everybody.
    Directly,
}

/// One entry of a `Principal`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Everybody,
    /// A tenant by name or canonical user id.
    Account(String),
    User {
        account: String,
        access_key: String,
    },
    Role {
        account: String,
        role: String,
    },
    Session {
        account: String,
        role: String,
        session: String,
    },
    Service(String),
    /// An identity provider: none is known here, so nobody is it.
    Federated,
}

/// A `Principal` or what is in a `NotPrincipal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Principals(Vec<Entry>);

impl Principals {
    /// Reads the element.
    pub(super) fn parse(json: &Json) -> Result<Self, Malformed> {
        let entries = match json {
            Json::Text(text) if text == "*" => vec![Entry::Everybody],
            Json::Object(kinds) if !kinds.is_empty() => {
                let mut entries = Vec::new();
                for (kind, names) in kinds {
                    let names = names.texts().filter(|names| !names.is_empty());
                    for name in names.ok_or(Malformed::PRINCIPAL)? {
                        entries.push(Entry::parse(kind, &name).ok_or(Malformed::PRINCIPAL)?);
                    }
                }
                entries
            }
            _ => return Err(Malformed::PRINCIPAL),
        };
        Ok(Self(entries))
    }

    /// How closely it names `who`.
    pub(super) fn name(&self, who: &Who<'_>) -> Named {
        let named = self.0.iter().map(|entry| entry.name(who));
        named.max().unwrap_or(Named::No)
    }

    /// Whether everybody is meant.
    pub(super) fn is_everybody(&self) -> bool {
        self.0.contains(&Entry::Everybody)
    }

    /// The tenants that are named, by name or canonical user id.
    pub(super) fn accounts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|entry| match entry {
            Entry::Account(account)
            | Entry::User { account, .. }
            | Entry::Role { account, .. }
            | Entry::Session { account, .. } => Some(account.as_str()),
            Entry::Everybody | Entry::Service(_) | Entry::Federated => None,
        })
    }
}

impl Entry {
    fn parse(kind: &str, name: &str) -> Option<Self> {
        match kind {
            "AWS" if name == "*" => Some(Self::Everybody),
            "AWS" => Self::of_aws(name),
            "CanonicalUser" if is_name(name) => Some(Self::Account(name.to_owned())),
            "Service" if is_name(name) => Some(Self::Service(name.to_owned())),
            "Federated" if !name.is_empty() => Some(Self::Federated),
            _ => None,
        }
    }

    /// An account, or an ARN: `arn:aws:iam::ACCOUNT:root`, `:user/KEY`, `:role/ROLE`, or
    /// `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`.
    fn of_aws(name: &str) -> Option<Self> {
        let Some(arn) = name.strip_prefix("arn:aws:") else {
            return is_name(name).then(|| Self::Account(name.to_owned()));
        };
        let (service, rest) = arn.split_once(':')?;
        let (account, resource) = rest.strip_prefix(':')?.split_once(':')?;
        let owned = |text: &str| is_name(text).then(|| text.to_owned());
        // Paths before a name are not kept.
        let last = |path: &str| path.rsplit('/').next().and_then(owned);
        // Without an account the user itself is the account, as in systems that know users only.
        if let (true, Some(user)) = (account.is_empty(), resource.strip_prefix("user/")) {
            return Some(Self::Account(last(user)?));
        }
        let account = owned(account)?;
        match (service, resource.split_once('/')) {
            ("iam", None) if resource == "root" => Some(Self::Account(account)),
            ("iam", Some(("user", user))) => Some(Self::User {
                account,
                access_key: last(user)?,
            }),
            ("iam", Some(("role", role))) => Some(Self::Role {
                account,
                role: last(role)?,
            }),
            ("sts", Some(("assumed-role", session))) => {
                let (role, session) = session.split_once('/')?;
                Some(Self::Session {
                    account,
                    role: owned(role)?,
                    session: owned(session)?,
                })
            }
            _ => None,
        }
    }

    fn name(&self, who: &Who<'_>) -> Named {
        let named = |directly: bool| if directly { Named::Directly } else { Named::No };
        let (wanted, who) = match (self, who) {
            (Self::Everybody, Who::Anonymous | Who::Key { .. }) => return Named::Directly,
            (Self::Service(wanted), Who::Service(name)) => return named(wanted == name),
            (
                Self::Account(account)
                | Self::User { account, .. }
                | Self::Role { account, .. }
                | Self::Session { account, .. },
                Who::Key { .. },
            ) => (account, who),
            _ => return Named::No,
        };
        let Who::Key {
            tenant,
            owner_id,
            access_key: key,
            session: current,
        } = who
        else {
            return Named::No;
        };
        if wanted != tenant && wanted != owner_id {
            return Named::No;
        }
        match self {
            Self::Account(_) => Named::ByAccount,
            Self::User { access_key, .. } => named(access_key == key && current.is_none()),
            Self::Role { role, .. } => named(current.is_some_and(|(name, _)| name == role)),
            Self::Session { role, session, .. } => {
                named(*current == Some((role.as_str(), session.as_str())))
            }
            Self::Everybody | Self::Service(_) | Self::Federated => Named::No,
        }
    }
}

/// A name without wildcards, blanks or separators of ARNs.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| !c.is_whitespace() && !c.is_control() && !"*?:/\"\\".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOB: Who<'_> = Who::Key {
        tenant: "acme",
        owner_id: "00ff",
        access_key: "AKBOB",
        session: None,
    };
    const ROLE: Who<'_> = Who::Key {
        tenant: "acme",
        owner_id: "00ff",
        access_key: "AKBOB",
        session: Some(("reader", "s1")),
    };

    fn name(json: &str, who: &Who<'_>) -> Named {
        Principals::parse(&Json::read(json).unwrap())
            .unwrap()
            .name(who)
    }

    #[test]
    fn principals_name_whom_they_mean() {
        for (json, bob, role, anonymous) in [
            (r#""*""#, Named::Directly, Named::Directly, Named::Directly),
            (
                r#"{"AWS":"*"}"#,
                Named::Directly,
                Named::Directly,
                Named::Directly,
            ),
            (
                r#"{"AWS":"acme"}"#,
                Named::ByAccount,
                Named::ByAccount,
                Named::No,
            ),
            (
                r#"{"AWS":["x","00ff"]}"#,
                Named::ByAccount,
                Named::ByAccount,
                Named::No,
            ),
            (
                r#"{"CanonicalUser":"00ff"}"#,
                Named::ByAccount,
                Named::ByAccount,
                Named::No,
            ),
            (
                r#"{"AWS":"arn:aws:iam::acme:root"}"#,
                Named::ByAccount,
                Named::ByAccount,
                Named::No,
            ),
            (
                r#"{"AWS":"arn:aws:iam::acme:user/AKBOB"}"#,
                Named::Directly,
                Named::No,
                Named::No,
            ),
            (
                r#"{"AWS":"arn:aws:iam::00ff:user/p/AKBOB"}"#,
                Named::Directly,
                Named::No,
                Named::No,
            ),
            (
                r#"{"AWS":"arn:aws:iam::acme:user/AKEVE"}"#,
                Named::No,
                Named::No,
                Named::No,
            ),
            (
                r#"{"AWS":"arn:aws:iam::other:user/AKBOB"}"#,
                Named::No,
                Named::No,
                Named::No,
            ),
            (
                r#"{"AWS":"arn:aws:iam:::user/00ff"}"#,
                Named::ByAccount,
                Named::ByAccount,
                Named::No,
            ),
            (
                r#"{"AWS":"arn:aws:iam::acme:role/reader"}"#,
                Named::No,
                Named::Directly,
                Named::No,
            ),
            (
                r#"{"AWS":"arn:aws:sts::acme:assumed-role/reader/s1"}"#,
                Named::No,
                Named::Directly,
                Named::No,
            ),
            (
                r#"{"AWS":"arn:aws:sts::acme:assumed-role/reader/s2"}"#,
                Named::No,
                Named::No,
                Named::No,
            ),
            (
                r#"{"Service":"logging.s3.amazonaws.com"}"#,
                Named::No,
                Named::No,
                Named::No,
            ),
            (r#"{"Federated":"x"}"#, Named::No, Named::No, Named::No),
        ] {
            assert_eq!(name(json, &BOB), bob, "{json}");
            assert_eq!(name(json, &ROLE), role, "{json}");
            assert_eq!(name(json, &Who::Anonymous), anonymous, "{json}");
        }
        let service = Who::Service("logging.s3.amazonaws.com");
        assert_eq!(
            name(r#"{"Service":"logging.s3.amazonaws.com"}"#, &service),
            Named::Directly
        );
        assert_eq!(name(r#""*""#, &service), Named::No);
    }

    #[test]
    fn what_names_nobody_is_invalid() {
        for json in [
            r#""bob""#,
            r#"{}"#,
            r#"{"AWS":[]}"#,
            r#"{"AWS":""}"#,
            r#"{"AWS":"arn:aws:iam::acme:*"}"#,
            r#"{"AWS":"arn:aws:iam::*:root"}"#,
            r#"{"AWS":"arn:aws:s3::acme:root"}"#,
            r#"{"AWS":{"a":"b"}}"#,
            r#"{"Martian":"x"}"#,
            r#"["*"]"#,
        ] {
            let parsed = Principals::parse(&Json::read(json).unwrap());
            assert_eq!(parsed, Err(Malformed::PRINCIPAL), "{json}");
        }
    }
}
